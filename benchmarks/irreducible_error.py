"""How small the error of a perfect predictor is on the simulated data: no network is asked, only the simulator.

Clips are drawn as the simulator draws them. The posterior of all that a clip was made of is taken as normal around
the truth (Laplace): labels, nuisances, flicker and plume of every frame, and the texture at some thousand points, with
the camera's noise and the spreads of the simulation as the prior. What then remains uncertain of speed and power, in
the range of the labels, is what the best of all predictors, the posterior mean, errs by.

There are two: one that sees all that is in a clip, and one that cannot follow the texture from frame to frame. The
texture glides at exactly the scan speed: the first reads the speed as on a ruler. Without motion there is the pool's
shape, and what makes equal labels look different stands between.

Taken in the predictor's favour: droplets are counted without a mistake and hide nothing, and the camera, its noise and
the spreads are known. Taken against it: clipped pixels tell nothing, the texture is known by its covariance only.

The simulator moves the texture by whole half pixels. Few frames leave room for several speeds even to whoever sees
exactly where it is in each; that is found by drawing speeds and comparing where they would put it (`stepped`).

Droplets come with the power. What a predictor can do that does not count them is told as well.

A posterior that is taken as normal around the truth knows of no other speed, far from it, at which the texture would
fit as well. With --all-speeds the likelihood of every speed is taken, to whoever knows all but the texture and how fast
it glides: it says whether there is such a speed.

    python benchmarks/irreducible_error.py [--presets clear,realistic] [--frames 16,4] [--lines 60] [--spacing 1.5]
        [--all-speeds] [--json OUT]
"""

import argparse
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular, toeplitz
from tabulate import tabulate

from edgeloop.data import meltpool, simulate
from edgeloop.data.cache import TARGET_SCALE
from edgeloop.data.simulate import PRESETS, Simulation
from edgeloop.models.preprocess import CLIP_FRAMES, CLIP_PIXELS
from edgeloop.records import write_json

TEXTURE_SIGMA, TEXTURE_WIDTH_PX = 1 / 3, 3.0
"""Standard deviation of the texture, and the side of the square over which it is averaged."""
GLOBAL = (
    "speed",
    "power",
    "absorptivity",
    "diffusivity",
    "gain",
    "size",
    "glow",
    "preheat",
    "direction",
    "row",
    "column",
)
"""Logarithms but for preheat (100 K), direction (radians), row and column (pixels)."""
STEP = 1e-3
GRID = 81
STARTS, SPEEDS = 20, 100_000
"""A clip begins at any of so many frames of a run, for all that is known; so many speeds are drawn."""
ASKED_MM_S = 10.0
"""Between the speeds whose likelihood is taken."""
FAR = 0.15
"""An error of the speed, in units of the target, that comes from another peak of the likelihood."""


@dataclass(frozen=True)
class Scene:
    """A line as the simulation drew it, and the course of flicker and plume over a clip."""

    simulation: Simulation
    line: meltpool.Line
    flicker: np.ndarray
    plume: np.ndarray

    @property
    def frames(self) -> int:
        """How many the clip has."""
        return len(self.flicker)

    def moved(self, name: str, by: float) -> "Scene":
        """The scene with one of GLOBAL changed. What depends on speed and power follows them."""
        line, factor = self.line, math.exp(by)
        changed = {
            "speed": {"speed_m_s": line.speed_m_s * factor},
            "power": {"power_w": line.power_w * factor, "glow": line.glow * factor},
            "absorptivity": {"absorptivity": line.absorptivity * factor},
            "diffusivity": {"diffusivity_m2_s": line.diffusivity_m2_s * factor},
            "gain": {"gain_counts": line.gain_counts * factor},
            "size": {"size_factor": line.size_factor * factor},
            "glow": {"glow": line.glow * factor},
            "preheat": {"preheat_k": line.preheat_k + 100 * by},
            "direction": {"direction_rad": line.direction_rad + by},
            "row": {"row_px": line.row_px + by},
            "column": {"column_px": line.column_px + by},
        }[name]
        return replace(self, line=replace(line, **changed))


def prior_precision(simulation: Simulation) -> np.ndarray:
    """[len(GLOBAL)] of the normal prior; none for the labels, whose range is seen to at the end."""
    low, high = simulation.preheat_range_k
    spread = {
        "absorptivity": simulation.absorptivity_spread,
        "diffusivity": simulation.diffusivity_spread,
        "gain": simulation.gain_spread,
        "size": simulation.size_spread,
        "glow": simulation.glow_spread,
        "preheat": (high - low) / math.sqrt(12) / 100,
        "row": simulation.wander_px,
        "column": simulation.wander_px,
    }
    # What does not vary is known: as good as infinitely precise.
    return np.array([1 / max(spread[name], 1e-6) ** 2 if name in spread else 0.0 for name in GLOBAL])


def ar1_precision(memory: float, count: int) -> np.ndarray:
    """The inverse covariance of a stationary AR(1) series of unit variance."""
    precision = np.diag(np.full(count, 1 + memory**2)) - memory * (np.eye(count, k=1) + np.eye(count, k=-1))
    precision[0, 0] = precision[-1, -1] = 1
    return precision / (1 - memory**2)


class Texture:
    """The texture under a clip on a lattice that lies along the scan, read in between by bilinear interpolation.

    With `motion` the same texture glides through all frames, otherwise each frame has one of its own.
    """

    def __init__(self, scene: Scene, studio: meltpool.Studio, spacing_px: float, motion: bool):
        self.spacing, self.motion = spacing_px, motion
        self.direction = scene.line.direction_rad
        reach = math.ceil(CLIP_PIXELS / math.sqrt(2) / spacing_px) + 2
        self.advance = studio.optics.advance_px(scene.line.speed_m_s)
        ahead = math.ceil(self.advance * (scene.frames - 1) / spacing_px) if motion else 0
        self.behind, self.shape = reach, (2 * reach + ahead + 1, 2 * reach + 1)
        self.nodes = self.shape[0] * self.shape[1]
        first, second = (self._precision(count) for count in self.shape)
        self.precision = np.kron(first, second) / TEXTURE_SIGMA**2

    def _precision(self, count: int) -> np.ndarray:
        lag = np.arange(count) * self.spacing / TEXTURE_WIDTH_PX
        # An average over a square of white noise is correlated like a triangle; the last term keeps it invertible.
        return np.linalg.inv(toeplitz(np.maximum(1 - lag, 0)) + 1e-3 * np.eye(count))

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Values at the nodes, flat."""
        first, second = (np.linalg.cholesky(np.linalg.inv(self._precision(count))) for count in self.shape)
        return (TEXTURE_SIGMA * first @ rng.standard_normal(self.shape) @ second.T).ravel()

    def at(self, scene: Scene, studio: meltpool.Studio, frame: int) -> sparse.csr_matrix:
        """[pixels, nodes]: what reads the texture of a frame."""
        axis = np.arange(CLIP_PIXELS) - (CLIP_PIXELS - 1) / 2
        row, column = (grid.ravel() for grid in np.meshgrid(axis, axis, indexing="ij"))
        if self.motion:
            glided = studio.optics.advance_px(scene.line.speed_m_s) * frame
            row = row + glided * math.sin(scene.line.direction_rad)
            column = column + glided * math.cos(scene.line.direction_rad)
        cos, sin = math.cos(self.direction), math.sin(self.direction)
        along = (column * cos + row * sin) / self.spacing + self.behind
        across = (row * cos - column * sin) / self.spacing + self.behind
        i, j = (np.clip(np.floor(u).astype(int), 0, n - 2) for u, n in zip((along, across), self.shape, strict=True))
        u, v = along - i, across - j
        corner, pixels = i * self.shape[1] + j, np.arange(len(row))
        weights = [(1 - u) * (1 - v), (1 - u) * v, u * (1 - v), u * v]
        columns = [corner, corner + 1, corner + self.shape[1], corner + self.shape[1] + 1]
        return sparse.csr_matrix(
            (np.concatenate(weights), (np.tile(pixels, 4), np.concatenate(columns))), (len(pixels), self.nodes)
        )


def light(scene: Scene, studio: meltpool.Studio) -> tuple[np.ndarray, np.ndarray]:
    """Expected counts without texture, and the counts that a unit of texture adds: [frames, pixels] each."""
    simulation, line = scene.simulation, scene.line
    rise = meltpool.temperature_rise(studio, line, simulation.diffusivity_m2_s).astype(float)
    absorbed = simulation.absorbed(line.speed_m_s, line.power_w, scene.flicker)[:, None, None]
    radiance = rise * absorbed + line.preheat_k
    radiance = meltpool.radiance(radiance, np.empty_like(radiance), studio.optics.wavelength_um)
    solidified, glow = meltpool.surroundings(line, *meltpool.along_across(studio, line))
    transmission = np.exp(-simulation.plume_depth(line.power_w, scene.plume))
    counts = (line.gain_counts * transmission)[:, None, None]
    flat = (scene.frames, -1)
    return (counts * (radiance + glow)).reshape(flat), (counts * (radiance * solidified + glow * line.grain)).reshape(
        flat
    )


def precision_of_counts(signal: np.ndarray, optics: meltpool.Optics) -> np.ndarray:
    """The inverse variance of counts of which `signal` is expected, pedestal aside; none of those that are clipped."""
    variance = optics.read_noise_counts**2 + optics.shot_noise_counts * np.maximum(signal, 0) + 1 / 12
    return np.where(signal + optics.pedestal_counts < 255, 1 / variance, 0.0)


def label_precision(scene: Scene, studio: meltpool.Studio, texture: Texture, field: np.ndarray) -> np.ndarray:
    """[2, 2]: what the clip tells of the logarithms of speed and power once all else is integrated out."""
    simulation = scene.simulation
    base, contrast = light(scene, studio)

    def expected(changed: Scene) -> np.ndarray:
        plain, textured = light(changed, studio)
        return np.stack(
            [
                p + c * (texture.at(changed, studio, n) @ field)
                for n, (p, c) in enumerate(zip(plain, textured, strict=True))
            ]
        )

    frames = [texture.at(scene, studio, n) for n in range(scene.frames)]
    signal = base + contrast * np.stack([read @ field for read in frames])
    weight = precision_of_counts(signal, studio.optics)

    columns = [(expected(scene.moved(name, STEP)) - expected(scene.moved(name, -STEP))) / (2 * STEP) for name in GLOBAL]
    for series in ("flicker", "plume"):
        for frame in range(scene.frames):
            shifted = []
            for sign in (1, -1):
                course = getattr(scene, series).copy()
                course[frame] += sign * STEP
                plain, textured = light(replace(scene, **{series: course}), studio)
                shifted.append(plain[frame] + textured[frame] * (frames[frame] @ field))
            column = np.zeros_like(signal)
            column[frame] = (shifted[0] - shifted[1]) / (2 * STEP)
            columns.append(column)
    count = len(columns)
    jacobian = np.stack(columns)  # [numbers, frames, pixels]
    information = np.einsum("aip,ip,bip->ab", jacobian, weight, jacobian, optimize=True)
    information[: len(GLOBAL), : len(GLOBAL)] += np.diag(prior_precision(simulation))
    memories = (simulation.flicker_memory, simulation.plume_memory)
    for number, memory in enumerate(memories):
        part = slice(len(GLOBAL) + number * scene.frames, len(GLOBAL) + (number + 1) * scene.frames)
        information[part, part] += ar1_precision(memory, scene.frames)

    # The texture is integrated out: all frames share it, or each has its own.
    groups = [range(scene.frames)] if texture.motion else [[frame] for frame in range(scene.frames)]
    for group in groups:
        own, mixed = texture.precision.copy(), np.zeros((count, texture.nodes))
        for frame in group:
            reading = sparse.diags(contrast[frame]) @ frames[frame]
            weighed = sparse.diags(weight[frame]) @ reading
            own += (reading.T @ weighed).toarray()
            mixed += (weighed.T @ jacobian[:, frame].T).T
        information -= mixed @ cho_solve(cho_factor(own, overwrite_a=True), mixed.T)

    labels, rest = information[:2, :2], information[2:, 2:]
    precision = labels - information[:2, 2:] @ np.linalg.solve(rest, information[2:, :2])
    return precision


def stepped(line: meltpool.Line, optics: meltpool.Optics, frames: int, rng: np.random.Generator) -> float:
    """The variance of the logarithm of the speed to whoever knows the direction and sees, without any noise, how far
    the texture has come in each of `frames` frames, in the whole half pixels by which the simulator moves it."""
    advance_px = optics.advance_px(line.speed_m_s)
    turned = np.array([math.sin(line.direction_rad), math.cos(line.direction_rad)])

    def places(advances_px: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """[n, frames - 1, 2], seen from the first frame."""
        glided = advances_px[:, None] * (starts[:, None] + np.arange(frames))
        half_px = np.rint(2 * glided[..., None] * turned)
        return half_px[:, 1:] - half_px[:, :1]

    seen = places(np.array([advance_px]), rng.integers(0, STARTS, 1))
    # Each coordinate is known to half a pixel over all the frames, and one of the two is at least 0.7 of the way.
    others = advance_px + rng.uniform(-0.75, 0.75, SPEEDS) / (frames - 1)
    same = (places(others, rng.integers(0, STARTS, SPEEDS)) == seen).all((1, 2))
    return float(np.log(others[same]).var())


def following(still: np.ndarray, moving: np.ndarray, variance: float) -> np.ndarray:
    """[2, 2]: the precision with motion, `moving`, where the texture's own speed differs from the one asked for by an
    unknown part with this variance; `still` is the precision without motion."""
    told = (moving - still)[0]
    return moving - np.outer(told, told) / (told[0] + 1 / variance)


def droplets_precision(scene: Scene) -> np.ndarray:
    """[2, 2]: what the number of droplets in a clip tells of the same; it is Poisson's, of a mean of known powers."""
    droplets = scene.frames * scene.simulation.droplets_per_frame(scene.line.speed_m_s, scene.line.power_w)
    exponents = np.array([0.3, 1.5])
    return droplets * np.outer(exponents, exponents)


def squared_errors(simulation: Simulation, line: meltpool.Line, precision: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """[draws, 2]: of the posterior mean in units of the targets, for labels that are uniform within their range.

    draws: [n, 2] standard normal, for where the likelihood's centre comes to lie around the truth.
    """
    truth = np.log([line.speed_m_s * 1000, line.power_w])
    centres = truth + np.linalg.solve(np.linalg.cholesky(precision).T, draws.T).T
    ranges = np.log([simulation.speed_range_mm_s, simulation.power_range_w])
    deviation = np.sqrt(np.diag(np.linalg.inv(precision)))
    errors = []
    for centre in centres:
        axes = [
            np.linspace(max(low, c - 6 * d), min(high, c + 6 * d), GRID)
            if c - 6 * d < high and c + 6 * d > low
            else np.array([np.clip(c, low, high)])
            for (low, high), c, d in zip(ranges, centre, deviation, strict=True)
        ]
        speed, power = np.meshgrid(*axes, indexing="ij")
        x, y = speed - centre[0], power - centre[1]
        # Uniform in the label is exponential in its logarithm.
        log = speed + power - 0.5 * (precision[0, 0] * x * x + 2 * precision[0, 1] * x * y + precision[1, 1] * y * y)
        share = np.exp(log - log.max())
        mean = [(share * np.exp(values)).sum() / share.sum() for values in (speed, power)]
        errors.append((np.array(mean) - np.exp(truth)) / TARGET_SCALE)
    return np.square(errors)


def likelihoods(
    scene: Scene, studio: meltpool.Studio, spacing_px: float, speeds_mm_s: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The logarithm of the likelihood of each speed of the texture, up to a constant, for a clip of `scene`; texture
    and noise are drawn by `rng`. All else is known: the pool's picture, flicker, plume, direction."""

    def gliding(speed_mm_s: float) -> Scene:
        return replace(scene, line=replace(scene.line, speed_m_s=speed_mm_s / 1000))

    # One lattice for all speeds, with room for the fastest.
    texture = Texture(gliding(max(speeds_mm_s.max(), scene.line.speed_m_s * 1000)), studio, spacing_px, motion=True)
    base, contrast = light(scene, studio)
    field = texture.draw(rng)
    textured = contrast * np.stack([texture.at(scene, studio, frame) @ field for frame in range(scene.frames)])
    weight = precision_of_counts(base + textured, studio.optics)
    deviation = np.divide(1, np.sqrt(weight), out=np.zeros_like(weight), where=weight > 0)
    seen = textured + deviation * rng.standard_normal(textured.shape)
    found = []
    for speed in speeds_mm_s:
        scaled = [sparse.diags(c) @ texture.at(gliding(speed), studio, frame) for frame, c in enumerate(contrast)]
        found.append(log_likelihood(scaled, weight, texture.precision, seen))
    return np.array(found)


def log_likelihood(
    readings: Sequence[sparse.csr_matrix], weight: np.ndarray, precision: np.ndarray, seen: np.ndarray
) -> float:
    """Of `seen`, that is readings @ x and noise, where x is normal with `precision` [nodes, nodes], and integrated out.

    readings: [pixels, nodes] of each frame. weight: the noise's inverse variance, like `seen` [frames, pixels]. Without
    what the readings have no part in.
    """
    own, told = precision.copy(), np.zeros(len(precision))
    for reading, heavy, counts in zip(readings, weight, seen, strict=True):
        weighed = sparse.diags(heavy) @ reading
        own += (reading.T @ weighed).toarray()
        told += weighed.T @ counts
    root = cholesky(own, lower=True, overwrite_a=True, check_finite=False)
    half = solve_triangular(root, told, lower=True, check_finite=False)
    return float(half @ half / 2 - np.log(np.diag(root)).sum())


def drawn(
    simulation: Simulation, frames: int, lines: int, rng: np.random.Generator
) -> Iterator[tuple[Scene, meltpool.Studio]]:
    """So many clips as the simulator draws them, and the studio that they have in common."""
    studio = meltpool.studio(CLIP_PIXELS, meltpool.Optics(), simulation.diffusivity_m2_s, rng)
    studio = replace(studio, optics=simulation.optics)
    memories = (simulation.flicker_memory, simulation.plume_memory)
    for line in simulate.draw_lines(simulation, 1, lines, rng):
        # A crop is centred on the pool to a pixel or so.
        line = replace(line, row_px=line.row_px % 1, column_px=line.column_px % 1)
        yield Scene(simulation, line, *(simulate.ar1(memory, frames, rng) for memory in memories)), studio


def speed_by_texture(preset: str, frames: int, lines: int, spacing_px: float, seed: int = 1) -> dict[str, Any]:
    """What the posterior mean of the speed errs by, of all speeds of the range, where the texture alone tells it."""
    simulation, rng = PRESETS[preset], np.random.default_rng(seed)
    errors, speeds = [], np.arange(*simulation.speed_range_mm_s, ASKED_MM_S)
    for scene, studio in drawn(simulation, frames, lines, rng):
        found = likelihoods(scene, studio, spacing_px, speeds, rng)
        share = np.exp(found - found.max())
        errors.append((share @ speeds / share.sum() - 1000 * scene.line.speed_m_s) / TARGET_SCALE[0])
    return {
        "preset": preset,
        "frames": frames,
        "rmse": float(np.sqrt(np.mean(np.square(errors)))),
        "worst": float(np.abs(errors).max()),
        "far": int((np.abs(errors) > FAR).sum()),
        "lines": lines,
    }


@dataclass(frozen=True)
class Sight:
    """What a predictor sees of a clip."""

    motion: bool
    droplets: bool
    words: str


SIGHTS = (
    Sight(True, True, "all of the clip"),
    Sight(True, False, "does not count droplets"),
    Sight(False, True, "cannot follow the texture"),
)


def irreducible(preset: str, frames: int, lines: int, spacing_px: float, seed: int = 1) -> list[dict[str, Any]]:
    """For each of SIGHTS the RMSE of the best predictor, mean over `lines` clips, with its standard error."""
    simulation, rng = PRESETS[preset], np.random.default_rng(seed)
    errors: dict[Sight, list[np.ndarray]] = {sight: [] for sight in SIGHTS}
    for number, (scene, studio) in enumerate(drawn(simulation, frames, lines, rng)):
        precision = {}
        for motion in (True, False):
            texture = Texture(scene, studio, spacing_px, motion)
            precision[motion] = label_precision(scene, studio, texture, texture.draw(rng))
        steps = stepped(scene.line, simulation.optics, frames, np.random.default_rng([seed, number]))
        precision[True] = following(precision[False], precision[True], steps)
        draws = rng.standard_normal((16, 2))
        for sight, found in errors.items():
            told = precision[sight.motion] + (droplets_precision(scene) if sight.droplets else 0)
            found.append(squared_errors(simulation, scene.line, told, draws).mean(0))
    return [{"preset": preset, "frames": frames, **summary(sight, np.array(errors[sight]))} for sight in SIGHTS]


def summary(sight: Sight, per_line: np.ndarray) -> dict[str, Any]:
    """Of the squared errors [lines, 2]."""
    speed, power = np.sqrt(per_line.mean(0))
    both = math.sqrt(per_line.mean())
    return {
        "motion": sight.motion,
        "droplets": sight.droplets,
        "sees": sight.words,
        "rmse": both,
        "standard_error": float(per_line.mean(1).std(ddof=1) / math.sqrt(len(per_line)) / (2 * both)),
        "rmse_speed": float(speed),
        "rmse_power": float(power),
    }


def print_table(rows: list[dict[str, Any]], lines: int) -> None:
    """What `irreducible` has found."""
    table = [
        [
            row["preset"],
            row["frames"],
            row["sees"],
            f"{row['rmse']:.4f} ± {row['standard_error']:.4f}",
            f"{row['rmse_speed']:.4f}",
            f"{row['rmse_power']:.4f}",
        ]
        for row in rows
    ]
    heads = ["preset", "frames", "predictor", "RMSE", "speed", "power"]
    print(f"The best possible predictor of a clip's labels, {lines} lines, units of 900 mm/s and 215 W")
    print(tabulate(table, heads, disable_numparse=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="clear,realistic")
    parser.add_argument("--frames", default=f"{CLIP_FRAMES},4", help="of a clip")
    parser.add_argument("--lines", type=int, default=60)
    parser.add_argument("--spacing", type=float, default=1.5, help="of the texture's lattice, in pixels")
    parser.add_argument(
        "--all-speeds", action="store_true", help="whether another speed would fit as well, and no more"
    )
    parser.add_argument("--json", metavar="OUT", type=Path)
    asked = parser.parse_args()
    kinds = [(preset, int(frames)) for preset in asked.presets.split(",") for frames in asked.frames.split(",")]
    if asked.all_speeds:
        rows = [speed_by_texture(*kind, asked.lines, asked.spacing) for kind in kinds]
        print(f"The speed by the texture alone, {asked.lines} lines, errors in units of {TARGET_SCALE[0]:.0f} mm/s")
        table = [
            [
                row["preset"],
                row["frames"],
                f"{row['rmse']:.4f}",
                f"{row['worst']:.4f}",
                f"{row['far']} of {row['lines']}",
            ]
            for row in rows
        ]
        print(tabulate(table, ["preset", "frames", "RMSE", "worst", f"above {FAR}"], disable_numparse=True))
    else:
        rows = [row for kind in kinds for row in irreducible(*kind, asked.lines, asked.spacing)]
        print_table(rows, asked.lines)
    if asked.json:
        write_json(asked.json, rows)


if __name__ == "__main__":
    main()
