"""Simulated RAISE-LPBF objects: raw HDF5 files with on-axis melt-pool video, as the printer's camera would
have written them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from edgeloop import records
from edgeloop.data import meltpool

LAYOUT_VERSION = "1.1"
SMALLEST_FRAME_PX = 48  # a 41 px crop and the wander of the pool have to fit


@dataclass(frozen=True)
class Simulation:
    """All parameters of the process, the camera and the nuisances. Spreads are standard deviations of a
    logarithm, so 0.06 is 6 %.

    The nuisances stand for all that a label does not say about a line: surface and powder under the beam,
    defocus, a window that gets dirty, heat left by the lines before.
    """

    speed_range_mm_s: tuple[float, float] = (300.0, 1500.0)
    power_range_w: tuple[float, float] = (100.0, 330.0)
    optics: meltpool.Optics = field(default_factory=meltpool.Optics)
    absorptivity: float = 0.35
    diffusivity_m2_s: float = 5.5e-6
    gain_counts: float = 400.0
    """Counts of metal at boiling temperature: above 255, so the core of the pool saturates."""

    absorptivity_spread: float = 0.06
    diffusivity_spread: float = 0.05
    gain_spread: float = 0.05
    size_spread: float = 0.03
    glow_spread: float = 0.0
    preheat_range_k: tuple[float, float] = (400.0, 600.0)
    wander_px: float = 1.0
    """Standard deviation of the pool's position in the frame, per axis and line."""
    direction_jitter_deg: float = 180.0
    """Spread (half width) around the layer's hatch direction, which alternates line by line and turns by 67
    degrees a layer.
    """

    flicker: float = 0.02
    keyhole_flicker: float = 0.05
    """Grows with the square root of power over speed, both relative to nominal."""
    flicker_memory: float = 0.7
    """AR(1) coefficient from frame to frame."""
    plume: float = 0.06
    """Optical depth at nominal power."""
    plume_memory: float = 0.9
    texture: float = 0.6
    glow: float = 0.03
    grain: float = 1.0
    """Contrast of the powder in the glow. Its motion gives the scan speed away."""
    spatter_per_frame: float = 0.35
    """Droplets at nominal power and speed."""
    spatter_brightness: tuple[float, float] = (0.1, 0.6)
    """At birth, relative to boiling metal."""

    lead_frames: tuple[int, int] = (0, 1)
    """Fewest and most dark frames before a line, and as many after it."""
    pause_frames: tuple[int, int] = (1, 3)
    """Fewest and most dark frames between two lit runs of a line."""
    extra_runs: float = 0.02
    """Mean number of lit runs of a line beyond the first."""
    missing_lines: float = 0.01
    """Share of lines that the video lacks: their numbers are a gap, their labels stay."""
    missing_layers: float = 0.15
    """Probability of a gap after a layer's number."""

    def absorbed(self, speed_m_s: float, power_w: float, flicker: np.ndarray) -> np.ndarray:
        """The absorbed power, relative to its mean; `flicker` is a series of unit variance."""
        amplitude = self.flicker + self.keyhole_flicker * np.sqrt((power_w / 215) / max(speed_m_s / 0.9, 0.3))
        return np.maximum(1 + amplitude * flicker, 0.2)

    def plume_depth(self, power_w: float, plume: np.ndarray) -> np.ndarray:
        """Optical depth of the plume; `plume` is a series of unit variance."""
        return self.plume * power_w / 215 * np.maximum(1 + 0.7 * plume, 0)

    def droplets_per_frame(self, speed_m_s: float, power_w: float) -> float:
        """Mean number of droplets that are born in a frame."""
        return self.spatter_per_frame * (power_w / 215) ** 1.5 * (speed_m_s / 0.9) ** 0.3


CLEAR = Simulation()
# Calibrated by benchmarks/difficulty.py: its network leaves 0.38 of the constant predictor's MSE; on the real
# data the best known one leaves 0.37. The published label spreads and 1.75 lit runs per line are matched too.
REALISTIC = replace(
    CLEAR,
    speed_range_mm_s=(327.0, 1473.0),
    power_range_w=(101.0, 329.0),
    absorptivity_spread=0.25,
    diffusivity_spread=0.30,
    gain_spread=0.35,
    size_spread=0.10,
    glow_spread=0.5,
    preheat_range_k=(350.0, 900.0),
    wander_px=2.0,
    direction_jitter_deg=5.0,
    flicker=0.06,
    keyhole_flicker=0.10,
    plume=0.15,
    texture=0.2,
    grain=0.75,
    lead_frames=(0, 4),
    pause_frames=(1, 6),
    extra_runs=0.75,
    missing_lines=0.02,
)
PRESETS: dict[str, Simulation] = {"clear": CLEAR, "realistic": REALISTIC}


def _check(simulation: Simulation, layers: int, lines: int, frame_px: int, min_frames: int, max_frames: int) -> None:
    if layers < 1 or lines < 1:
        raise ValueError(f"An object needs at least one layer and one line; got layers={layers}, lines={lines}.")
    if frame_px < SMALLEST_FRAME_PX:
        raise ValueError(f"frame_px={frame_px} is too small: a crop needs at least {SMALLEST_FRAME_PX} pixels.")
    if not 1 <= min_frames <= max_frames:
        raise ValueError(f"Need 1 <= min_frames <= max_frames; got min_frames={min_frames}, max_frames={max_frames}.")
    if frame_px**2 > meltpool.NOISE_SAMPLES:
        raise ValueError(f"frame_px={frame_px} is too large: at most 1024 pixels.")
    if not 0 <= simulation.missing_lines < 1 or not 0 <= simulation.missing_layers < 1:
        raise ValueError("Simulation.missing_lines and missing_layers are shares: at least 0 and below 1.")


def _layer_numbers(count: int, gap: float, rng: np.random.Generator) -> np.ndarray:
    """Rising layer numbers that need not start at 0 and now and then leave one to three out."""
    steps = 1 + (rng.random(count) < gap) * rng.integers(1, 4, count)
    return int(rng.integers(1, 6)) + np.cumsum(steps) - steps[0]


def _runs(simulation: Simulation, lit_frames: int, rng: np.random.Generator) -> list[tuple[bool, int]]:
    """The course of one line: (lit, frames) in turn, dark at both ends where the camera was early or late."""
    extra = int(rng.poisson(simulation.extra_runs))
    parts = min(1 + extra, lit_frames)
    cuts = np.sort(rng.choice(np.arange(1, lit_frames), parts - 1, replace=False)) if parts > 1 else np.array([], int)
    lengths = np.diff(np.concatenate([[0], cuts, [lit_frames]]))
    low, high = simulation.lead_frames
    course = [(False, int(rng.integers(low, high + 1)))]
    for index, length in enumerate(lengths):
        if index:
            pause = simulation.pause_frames
            course.append((False, int(rng.integers(pause[0], pause[1] + 1))))
        course.append((True, int(length)))
    course.append((False, int(rng.integers(low, high + 1))))
    return [(lit, length) for lit, length in course if length]


def ar1(memory: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """A stationary AR(1) series of unit variance."""
    from scipy.signal import lfilter  # takes 0.7 s and 80 MB, which whoever only looks at the presets can do without

    innovation = rng.standard_normal(count) * np.sqrt(1 - memory**2)
    innovation[0] /= np.sqrt(1 - memory**2)
    return lfilter([1.0], [1.0, -memory], innovation)


def _spatter(simulation: Simulation, line: meltpool.Line, frames: int, rng: np.random.Generator) -> meltpool.Spatter:
    count = int(rng.poisson(simulation.droplets_per_frame(line.speed_m_s, line.power_w) * frames))
    return meltpool.Spatter(
        birth_frame=rng.random(count) * frames,
        angle_rad=line.direction_rad + np.pi + 1.2 * rng.standard_normal(count),
        speed_px_frame=2 + 4 * rng.random(count),
        brightness=rng.uniform(*simulation.spatter_brightness, count),
    )


def draw_lines(simulation: Simulation, layer_number: int, count: int, rng: np.random.Generator) -> list[meltpool.Line]:
    """`count` lines of a layer: labels and nuisances as the simulation spreads them."""

    def factor(spread: float) -> np.ndarray:
        return np.exp(spread * rng.standard_normal(count))

    # Labels as the file will hold them: whole thousandths, so that float32 readers see the same numbers.
    speed = np.round(rng.uniform(*simulation.speed_range_mm_s, count), 3)
    power = np.round(rng.uniform(*simulation.power_range_w, count), 3)
    absorptivity = np.minimum(simulation.absorptivity * factor(simulation.absorptivity_spread), 0.95)
    diffusivity = simulation.diffusivity_m2_s * factor(simulation.diffusivity_spread)
    gain = simulation.gain_counts * factor(simulation.gain_spread)
    size = factor(simulation.size_spread)
    glow = simulation.glow * power / 215 * factor(simulation.glow_spread)
    preheat = rng.uniform(*simulation.preheat_range_k, count)
    wander = np.clip(
        simulation.wander_px * rng.standard_normal((count, 2)),
        -4 * simulation.wander_px,
        4 * simulation.wander_px,
    )
    jitter = np.deg2rad(simulation.direction_jitter_deg) * rng.uniform(-1, 1, count)
    direction = np.deg2rad(67.0) * layer_number + np.pi * (np.arange(count) % 2) + jitter
    origin = rng.integers(0, 2 * meltpool.TEXTURE_PERIOD_PX, (count, 2))
    return [
        meltpool.Line(
            speed_m_s=speed[i] / 1000,
            power_w=power[i],
            absorptivity=absorptivity[i],
            diffusivity_m2_s=diffusivity[i],
            preheat_k=float(preheat[i]),
            direction_rad=direction[i],
            row_px=wander[i, 0],
            column_px=wander[i, 1],
            size_factor=size[i],
            gain_counts=gain[i],
            texture=simulation.texture,
            glow=glow[i],
            grain=simulation.grain,
            texture_origin=(int(origin[i, 0]), int(origin[i, 1])),
        )
        for i in range(count)
    ]


def _write_layer(
    group: h5py.Group,
    studio: meltpool.Studio,
    simulation: Simulation,
    layer_number: int,
    lines: int,
    frame_counts: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[int, int]:
    """Write one layer; returns (lines with frames, frames)."""
    drawn = draw_lines(simulation, layer_number, lines, rng)
    seen = rng.random(lines) >= simulation.missing_lines
    seen[int(rng.integers(lines))] = True  # a layer without any frame would not be in the file
    lit_frames = rng.integers(frame_counts[0], frame_counts[1] + 1, lines)
    courses = [_runs(simulation, int(n), rng) if s else [] for n, s in zip(lit_frames, seen, strict=True)]
    lengths = np.array([sum(length for _, length in course) for course in courses])
    total = int(lengths.sum())
    # One AR(1) series for the whole layer: the state of the process carries over from line to line.
    flicker = ar1(simulation.flicker_memory, total, rng)
    plume = ar1(simulation.plume_memory, total, rng)

    size = studio.frame_px
    frames = group.create_dataset("frame", (total, size, size), np.uint8, track_times=False)
    group.create_dataset("scan_line_index", data=np.repeat(np.arange(lines), lengths), track_times=False)
    labels = np.array([[line.speed_m_s * 1000, line.power_w] for line in drawn])
    group.create_dataset("laser_params", data=labels, track_times=False)

    written = 0
    for line, course in zip(drawn, courses, strict=True):
        buffer = np.empty((sum(length for _, length in course), size, size), np.uint8)
        start = 0
        for lit, length in course:
            out = buffer[start : start + length]
            if lit:
                when = slice(written + start, written + start + length)
                depth = simulation.plume_depth(line.power_w, plume[when])
                absorbed = simulation.absorbed(line.speed_m_s, line.power_w, flicker[when])
                spatter = _spatter(simulation, line, length, rng)
                meltpool.render_lit(
                    studio, line, absorbed, np.exp(-depth), spatter, simulation.diffusivity_m2_s, out, rng
                )
            else:
                meltpool.render_dark(studio, out, rng)
            start += length
        if start:
            frames[written : written + start] = buffer
            written += start
    return int(seen.sum()), total


def write_object(
    path: str | Path,
    name: str,
    *,
    seed: int,
    layers: int,
    lines: int,
    frame_px: int,
    min_frames: int,
    max_frames: int,
    simulation: Simulation,
    progress: Callable[..., Iterator[int]] | None = None,
) -> dict[str, Any]:
    """Write one printed object to the HDF5 file `path`, in the layout 1.1 of RAISE-LPBF; returns its record.

    Groups `layerNNNN` at the root, each with `frame` uint8 [N, frame_px, frame_px], `scan_line_index` int64
    [N] and `laser_params` float64 [lines, 2] = [speed mm/s, power W]; row i of `laser_params` belongs to the
    frames whose `scan_line_index` is i. A line has `min_frames` to `max_frames` lit frames, in one or several
    runs, and dark frames around them. Layer numbers and line numbers have gaps. The same arguments give the
    same file, byte for byte; one thread does the work. `progress` is
    `edgeloop.progress.progress`, which then tells of the layers as they are written, or None for silence.

    Raises ValueError for sizes that make no sense.
    """
    _check(simulation, layers, lines, frame_px, min_frames, max_frames)
    identity = [seed, *name.encode()]
    rng = np.random.default_rng(identity)
    studio = meltpool.studio(frame_px, simulation.optics, simulation.diffusivity_m2_s, rng)
    numbers: Iterator[int] = iter(_layer_numbers(layers, simulation.missing_layers, rng).tolist())
    if progress is not None:
        numbers = progress(numbers, total=layers, label=f"simulate {name}", unit="layer")
    lines_seen = frames = 0
    with records.atomic(path) as temporary, h5py.File(temporary, "w", libver=("v108", "v110")) as file:
        file.attrs["layout"] = f"RAISE-LPBF {LAYOUT_VERSION}"
        file.attrs["object"] = name
        file.attrs["origin"] = "simulated by edgeloop"
        for number in numbers:
            layer_rng = np.random.default_rng([*identity, 0, number])
            group = file.create_group(f"layer{number:04d}", track_order=False)
            counts = _write_layer(group, studio, simulation, number, lines, (min_frames, max_frames), layer_rng)
            lines_seen += counts[0]
            frames += counts[1]
    return records.ok(
        object=name,
        file=Path(path).name,
        seed=seed,
        layers=layers,
        lines=lines_seen,
        frames=frames,
        frame_px=frame_px,
        pixels=frames * frame_px**2,
        simulation=asdict(simulation),
    )


def write_configured(
    path: str | Path,
    name: str,
    settings: Mapping[str, Any],
    *,
    progress: Callable[..., Iterator[int]] | None = None,
) -> dict[str, Any]:
    """`write_object` as `dataset.simulate` of the configuration says."""
    return write_object(
        path,
        name,
        **{key: settings[key] for key in ("seed", "layers", "lines", "frame_px", "min_frames", "max_frames")},
        simulation=replace(PRESETS[settings["preset"]], **settings["parameters"]),
        progress=progress,
    )
