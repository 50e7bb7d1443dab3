"""The physics of the simulated melt-pool video: one scan line's parameters in, uint8 frames out.

The steady temperature field around a moving Gaussian source (Eagar and Tsai 1983, Welding Journal 62:346s) is
a table over speed, distance along the scan and distance across it; Wien's approximation of Planck's law turns
temperature into light. What changes from frame to frame (flicker, plume, advected texture, spatter, noise) is
added to blocks of frames that fit the cache.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

BOILING_K = 3100.0  # about that of a steel: evaporation hardly lets the surface grow hotter
SECOND_RADIATION_UM_K = 14388.0  # second radiation constant h c / k
DENSITY_HEAT_J_M3_K = 5.4e6  # density times specific heat
SOFT_CAP = 0.15  # width of the bend at boiling, in units of the Wien exponent (about 60 K)

SPEEDS_M_S = np.geomspace(0.1, 4.0, 41)
TEXTURE_PERIOD_PX = 128
NOISE_SAMPLES = 1 << 20
BLOCK_PIXELS = 1 << 16  # float32 block and scratch together stay within a 1 MB second-level cache
SPATTER_RADIUS_PX = 3
SPATTER_LIFE_FRAMES = 16

Array = np.ndarray


@dataclass(frozen=True)
class Optics:
    """The camera, the same for every line of an object."""

    pixel_um: float = 14.0
    frames_per_s: float = 20_000.0
    wavelength_um: float = 0.85
    spot_sigma_um: float = 35.0
    pedestal_counts: float = 4.0
    shot_noise_counts: float = 0.35
    """Variance per count of signal."""
    read_noise_counts: float = 1.5

    def advance_px(self, speed_m_s: float) -> float:
        """How far the texture glides from frame to frame."""
        return speed_m_s / (self.pixel_um * 1e-6 * self.frames_per_s)


@dataclass(frozen=True)
class Line:
    """What is constant along one scan line. Factors are relative to the nominal material and camera."""

    speed_m_s: float
    power_w: float
    absorptivity: float
    diffusivity_m2_s: float
    preheat_k: float
    direction_rad: float
    row_px: float
    """Position of the pool, from the frame's centre."""
    column_px: float
    size_factor: float
    gain_counts: float
    """Counts of a pixel at boiling temperature."""
    texture: float
    glow: float
    """Light scattered by plume and powder around the pool, relative to boiling metal."""
    grain: float
    """Contrast of the texture in the glow."""
    texture_origin: tuple[int, int]
    """In half pixels."""


@dataclass(frozen=True)
class Spatter:
    """Hot droplets that leave the pool: arrays of the same length, one entry each."""

    birth_frame: Array
    angle_rad: Array
    speed_px_frame: Array
    brightness: Array


@dataclass(frozen=True)
class Studio:
    """All that the lines of one object share. Built by `studio`."""

    optics: Optics
    frame_px: int
    table_k_per_w: Array
    """float32 [speeds, along, across]: temperature rise for one absorbed watt at the nominal diffusivity."""
    origin_px: int
    """Index along the scan of the laser's own position in the table."""
    texture: Array
    """float32 [2, 2, rows, columns]: a periodic texture, sampled at each half-pixel phase."""
    noise: Array
    """float32 [NOISE_SAMPLES]: standard normal; each block of frames reads it from a random place."""


@lru_cache(maxsize=8)
def eagar_tsai(extent_px: int, pixel_um: float, spot_sigma_um: float, diffusivity_m2_s: float) -> tuple[Array, int]:
    """Temperature rise at the surface for one absorbed watt, around a Gaussian source at constant speed.

    Returns float32 [SPEEDS_M_S, along, across] in K/W at a spacing of one pixel, and the index along the scan
    of the source. The integrand separates into along and across for each time, so that the integral over time
    is one matrix product per speed.
    """
    ahead = extent_px // 2
    along_m = np.arange(-extent_px, ahead + 1) * pixel_um * 1e-6
    across_m = np.arange(extent_px + 1) * pixel_um * 1e-6
    time_s = np.geomspace(1e-8, 1e-2, 240)
    sigma_m = spot_sigma_um * 1e-6
    spread_m2 = 4 * diffusivity_m2_s * time_s + 2 * sigma_m**2
    weight = np.gradient(time_s) / np.sqrt(time_s) / (2 * diffusivity_m2_s * time_s + sigma_m**2)
    across = np.exp(-(across_m[None] ** 2) / spread_m2[:, None])
    table = np.empty((len(SPEEDS_M_S), len(along_m), len(across_m)), np.float32)
    for index, speed in enumerate(SPEEDS_M_S):
        along = np.exp(-((along_m[None] + speed * time_s[:, None]) ** 2) / spread_m2[:, None])
        table[index] = (along * weight[:, None]).T @ across
    table /= np.pi * DENSITY_HEAT_J_M3_K * np.sqrt(4 * np.pi * diffusivity_m2_s)
    table.setflags(write=False)
    return table, extent_px


def studio(frame_px: int, optics: Optics, diffusivity_m2_s: float, rng: np.random.Generator) -> Studio:
    """Prepare the tables for frames of `frame_px` x `frame_px` pixels; `rng` draws the texture and the noise."""
    from scipy.ndimage import uniform_filter  # late, see simulate.ar1

    table, origin = eagar_tsai(frame_px, optics.pixel_um, optics.spot_sigma_um, diffusivity_m2_s)
    period = 2 * TEXTURE_PERIOD_PX
    fine = uniform_filter(rng.standard_normal((period, period), np.float32), 6, mode="wrap")
    fine = np.clip(fine / (3 * fine.std()), -1, 1)  # at -1 the light is gone: it must not become negative
    wrapped = np.arange(2 * (TEXTURE_PERIOD_PX + frame_px)) % period
    fine = fine[wrapped[:, None], wrapped[None]]
    phases = np.stack([np.stack([fine[i::2, j::2] for j in (0, 1)]) for i in (0, 1)])
    noise = rng.standard_normal(NOISE_SAMPLES, np.float32)
    return Studio(optics, frame_px, table, origin, np.ascontiguousarray(phases), noise)


def along_across(studio_: Studio, line: Line) -> tuple[Array, Array]:
    """Pixel distances from the laser along the scan (ahead is positive) and across it; float32 [H, W] each."""
    axis = np.arange(studio_.frame_px, dtype=np.float32) - np.float32((studio_.frame_px - 1) / 2)
    rows, columns = (axis - np.float32(line.row_px))[:, None], (axis - np.float32(line.column_px))[None]
    cos, sin = np.float32(np.cos(line.direction_rad)), np.float32(np.sin(line.direction_rad))
    return columns * cos + rows * sin, rows * cos - columns * sin


def temperature_rise(studio_: Studio, line: Line, nominal_diffusivity_m2_s: float) -> Array:
    """The steady rise over the preheat temperature in K at every pixel; float32 [H, W].

    Depends on speed / diffusivity only (for a spot much larger than the diffusion length of one frame), so
    one table at the nominal diffusivity serves them all.
    """
    relative = line.diffusivity_m2_s / nominal_diffusivity_m2_s
    position = np.interp(line.speed_m_s / relative, SPEEDS_M_S, np.arange(len(SPEEDS_M_S)))
    low = min(int(position), len(SPEEDS_M_S) - 2)
    part = np.float32(position - low)
    plane = studio_.table_k_per_w[low] * (1 - part) + studio_.table_k_per_w[low + 1] * part
    along, across = along_across(studio_, line)
    u = np.clip(along / np.float32(line.size_factor) + studio_.origin_px, 0, plane.shape[0] - 1.001)
    w = np.clip(np.abs(across) / np.float32(line.size_factor), 0, plane.shape[1] - 1.001)
    iu, iw = u.astype(np.int32), w.astype(np.int32)
    fu, fw = u - iu, w - iw
    corner = iu * plane.shape[1] + iw
    flat = plane.ravel()
    near = flat[corner] * (1 - fw) + flat[corner + 1] * fw
    corner += plane.shape[1]
    far = flat[corner] * (1 - fw) + flat[corner + 1] * fw
    scale = line.absorptivity * line.power_w / (relative * line.size_factor)
    return (near + fu * (far - near)) * np.float32(scale)


def radiance(kelvin: Array, scratch: Array, wavelength_um: float) -> Array:
    """Wien's law relative to boiling metal, in place of the temperatures `kelvin`; destroys `scratch` of that shape.

    exp(-x) with x = c2/lambda (1/T - 1/T_boiling), bent so that x stays above zero.
    """
    wien_k = SECOND_RADIATION_UM_K / wavelength_um
    np.divide(wien_k, kelvin, out=kelvin)
    kelvin -= wien_k / BOILING_K
    np.multiply(kelvin, kelvin, out=scratch)
    scratch += SOFT_CAP**2
    np.sqrt(scratch, out=scratch)
    kelvin += scratch
    kelvin *= -0.5
    return np.exp(kelvin, out=kelvin)


def surroundings(line: Line, along: Array, across: Array) -> tuple[Array, Array]:
    """Contrast of the texture on the metal solidified behind the pool, and the scattered light: [H, W] each."""
    solidified = line.texture / (1 + np.exp(np.clip((along + 4) / 3, -30, 30)))
    return solidified, np.exp(-(along * along + across * across) / (2 * 15.0**2)) * np.float32(line.glow)


def _add_spatter(light: Array, first_frame: int, line: Line, spatter: Spatter) -> None:
    """Add the droplets' spots in place to `light` [n, H, W], which starts at `first_frame` of the run."""
    frames, size = light.shape[:2]
    age = first_frame + np.arange(frames)[:, None] - spatter.birth_frame[None]
    which_frame, which = np.nonzero((age > 0) & (age < SPATTER_LIFE_FRAMES))
    if not len(which):
        return
    age = age[which_frame, which]
    travelled = age * spatter.speed_px_frame[which]
    middle = (size - 1) / 2
    row = middle + line.row_px + travelled * np.sin(spatter.angle_rad[which])
    column = middle + line.column_px + travelled * np.cos(spatter.angle_rad[which])
    margin = SPATTER_RADIUS_PX + 1
    inside = (row > margin) & (row < size - 1 - margin) & (column > margin) & (column < size - 1 - margin)
    row, column, which_frame = row[inside], column[inside], which_frame[inside]
    peak = (spatter.brightness[which] * np.exp(-age / 6))[inside]
    patch = np.arange(-SPATTER_RADIUS_PX, SPATTER_RADIUS_PX + 1)
    rows = np.rint(row).astype(np.intp)[:, None] + patch
    columns = np.rint(column).astype(np.intp)[:, None] + patch
    spot = (
        np.exp(-0.5 * (rows - row[:, None]) ** 2)[:, :, None] * np.exp(-0.5 * (columns - column[:, None]) ** 2)[:, None]
    )
    where = (which_frame[:, None, None] * size + rows[:, :, None]) * size + columns[:, None]
    np.add.at(light.reshape(-1), where.ravel(), (spot * peak[:, None, None]).astype(np.float32).ravel())


def _expose(studio_: Studio, light: Array, scratch: Array, out: Array, rng: np.random.Generator) -> None:
    """Turn expected counts [n, H, W] into uint8 frames with shot and read noise; destroys `light` and
    `scratch`.
    """
    optics = studio_.optics
    start = int(rng.integers(NOISE_SAMPLES - light.size + 1))
    noise = studio_.noise[start : start + light.size].reshape(light.shape)
    np.multiply(light, optics.shot_noise_counts, out=scratch)
    scratch += optics.read_noise_counts**2
    np.sqrt(scratch, out=scratch)
    scratch *= noise
    light += scratch
    light += optics.pedestal_counts + 0.5  # the conversion to whole counts cuts off
    np.clip(light, 0, 255, out=light)
    np.copyto(out, light, casting="unsafe")


def render_dark(studio_: Studio, out: Array, rng: np.random.Generator) -> None:
    """Fill `out`, uint8 [n, H, W], with frames taken while the laser is off: pedestal and read noise."""
    step = max(1, BLOCK_PIXELS // studio_.frame_px**2)
    for first in range(0, len(out), step):
        block = out[first : first + step]
        light = np.zeros(block.shape, np.float32)
        _expose(studio_, light, np.empty_like(light), block, rng)


def render_lit(
    studio_: Studio,
    line: Line,
    flicker: Array,
    transmission: Array,
    spatter: Spatter,
    nominal_diffusivity_m2_s: float,
    out: Array,
    rng: np.random.Generator,
) -> None:
    """Fill `out`, uint8 [n, H, W], with one lit run of a scan line.

    `flicker` [n] multiplies the absorbed power and `transmission` [n] the light that gets through the plume.
    """
    optics = studio_.optics
    size = studio_.frame_px
    rise = temperature_rise(studio_, line, nominal_diffusivity_m2_s)
    solidified, glow = surroundings(line, *along_across(studio_, line))
    grain = glow * np.float32(line.grain)
    advance_px = optics.advance_px(line.speed_m_s)
    half_px = 2 * advance_px * np.arange(len(out))
    top = (line.texture_origin[0] + np.rint(half_px * np.sin(line.direction_rad)).astype(int)) % (2 * TEXTURE_PERIOD_PX)
    left = (line.texture_origin[1] + np.rint(half_px * np.cos(line.direction_rad)).astype(int)) % (
        2 * TEXTURE_PERIOD_PX
    )
    flicker = flicker.astype(np.float32)[:, None, None]
    counts = (line.gain_counts * transmission).astype(np.float32)[:, None, None]

    step = max(1, BLOCK_PIXELS // size**2)
    buffers = np.empty((2, min(step, len(out)), size, size), np.float32)
    for first in range(0, len(out), step):
        frames = slice(first, min(first + step, len(out)))
        light, scratch = buffers[:, : frames.stop - first]
        np.multiply(rise, flicker[frames], out=light)
        light += line.preheat_k
        radiance(light, scratch, optics.wavelength_um)
        # light (1 + solidified t) + glow (1 + grain t), with the texture t gliding through the frame at the scan
        # speed
        np.multiply(light, solidified, out=scratch)
        scratch += grain
        for index in range(frames.stop - first):
            y, x = top[first + index], left[first + index]
            scratch[index] *= studio_.texture[y & 1, x & 1, y >> 1 : (y >> 1) + size, x >> 1 : (x >> 1) + size]
        light += glow
        light += scratch
        _add_spatter(light, first, line, spatter)
        light *= counts[frames]
        _expose(studio_, light, scratch, out[frames], rng)
