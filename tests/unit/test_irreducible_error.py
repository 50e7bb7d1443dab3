"""The estimate of the best possible error, where it can be said by hand."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import multivariate_normal, poisson

from edgeloop.data import meltpool, simulate
from edgeloop.data.simulate import CLEAR

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import irreducible_error

PLAIN = replace(
    CLEAR, diffusivity_spread=0.0, gain_spread=0.0, size_spread=0.0, glow=0.0, texture=0.0, keyhole_flicker=0.0,
    plume=0.0, spatter_per_frame=0.0, preheat_range_k=(500.0, 500.0),
)  # fmt: skip
"""Nothing but the absorptivity, which multiplies the power, is unknown."""


def deviations(simulation, motion=False):
    """Of the logarithms of speed and power."""
    rng = np.random.default_rng(0)
    studio = meltpool.studio(41, simulation.optics, simulation.diffusivity_m2_s, rng)
    line = replace(simulate.draw_lines(simulation, 1, 1, rng)[0], row_px=0.2, column_px=0.1)
    scene = irreducible_error.Scene(simulation, line, np.zeros(16), np.zeros(16))
    texture = irreducible_error.Texture(scene, studio, 3.0, motion)
    precision = irreducible_error.label_precision(scene, studio, texture, texture.draw(rng))
    return np.sqrt(np.diag(np.linalg.inv(precision)))


@pytest.mark.parametrize("spread", [0.06, 0.25])
def test_what_multiplies_the_power_leaves_its_own_spread(spread):
    # Flicker does, too: the mean over the clip of an AR(1) series.
    memory, count = PLAIN.flicker_memory, 16
    lags = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    mean_flicker = PLAIN.flicker * math.sqrt(1 / np.linalg.inv(memory**lags).sum())
    _, power = deviations(replace(PLAIN, absorptivity_spread=spread))
    assert power == pytest.approx(math.hypot(spread, mean_flicker), rel=0.02)


def test_only_motion_tells_speed_and_diffusivity_apart():
    unsure = replace(PLAIN, absorptivity_spread=0.0, diffusivity_spread=1.0, size_spread=0.5, texture=0.6, glow=0.03)
    still, moving = (deviations(unsure, motion)[0] for motion in (False, True))
    assert moving < 0.01 and still > 10 * moving


def test_from_one_step_of_whole_half_pixels_the_speed_is_known_as_a_triangle():
    # 2v rounds up or down, as the place in the run has it: either with the probability of how near it is.
    rng, lines = np.random.default_rng(0), simulate.draw_lines(CLEAR, 1, 60, np.random.default_rng(0))
    lines = [replace(line, direction_rad=0.0) for line in lines]
    advances = np.array([CLEAR.optics.advance_px(line.speed_m_s) for line in lines])
    variances = np.array([irreducible_error.stepped(line, CLEAR.optics, 2, rng) for line in lines])
    assert np.sqrt(np.mean(advances**2 * variances)) == pytest.approx(math.sqrt(1 / 24), rel=0.1)
    more = np.array([irreducible_error.stepped(line, CLEAR.optics, 16, rng) for line in lines])
    assert np.sqrt(np.mean(advances**2 * more)) < math.sqrt(1 / 24) / 20


def test_what_the_steps_leave_unknown_adds_to_what_the_noise_does():
    still, moving = np.diag([4.0, 9.0]), np.array([[104.0, 10.0], [10.0, 12.0]])
    assert irreducible_error.following(still, moving, 1e-12) == pytest.approx(moving)
    # Where the power is known, from the texture alone: 1/100 of noise and 3/100 of steps.
    assert irreducible_error.following(still, moving, 0.03)[0, 0] == pytest.approx(4.0 + 25.0)
    # Where the speed that the texture has is of no use: what the texture tells of the power is no less.
    useless = irreducible_error.following(still, moving, 1e12)
    assert useless == pytest.approx(np.array([[4.0, 0.0], [0.0, 12.0 - 10.0**2 / 100]]), abs=1e-6)


def test_a_count_of_droplets_tells_what_a_poisson_number_does():
    line = replace(simulate.draw_lines(CLEAR, 1, 1, np.random.default_rng(0))[0], speed_m_s=0.8, power_w=250.0)
    scene = irreducible_error.Scene(CLEAR, line, np.zeros(16), np.zeros(16))
    count, step = np.arange(200), 1e-4

    def log_likelihood(speed_m_s, power_w):
        return poisson.logpmf(count, 16 * CLEAR.droplets_per_frame(speed_m_s, power_w))

    along = [
        log_likelihood(0.8 * math.exp(step * speed), 250.0 * math.exp(step * power)) - log_likelihood(0.8, 250.0)
        for speed, power in ((1, 0), (0, 1))
    ]
    scores = np.stack(along) / step
    expected = scores * np.exp(log_likelihood(0.8, 250.0)) @ scores.T
    np.testing.assert_allclose(irreducible_error.droplets_precision(scene), expected, rtol=1e-3)


def test_who_sees_nothing_errs_like_the_mean():
    line = simulate.draw_lines(CLEAR, 1, 400, np.random.default_rng(0))
    draws = np.random.default_rng(1).standard_normal((1, 2))
    errors = np.mean([irreducible_error.squared_errors(CLEAR, each, 1e-6 * np.eye(2), draws) for each in line], axis=0)
    expected = [1200 / 900 / math.sqrt(12), 230 / 215 / math.sqrt(12)]
    assert np.sqrt(errors[0]) == pytest.approx(expected, rel=0.06)


def likelihoods(simulation, speeds):
    rng = np.random.default_rng(3)
    studio = meltpool.studio(41, simulation.optics, simulation.diffusivity_m2_s, rng)
    line = replace(simulate.draw_lines(simulation, 1, 1, rng)[0], row_px=0.2, column_px=0.1, speed_m_s=0.8)
    scene = irreducible_error.Scene(simulation, line, np.zeros(4), np.zeros(4))
    return irreducible_error.likelihoods(scene, studio, 3.0, np.array(speeds), rng)


def test_of_all_speeds_the_texture_fits_the_true_one_best():
    speeds = [400.0, 600.0, 790.0, 800.0, 810.0, 1000.0, 1400.0]
    found = likelihoods(CLEAR, speeds)
    assert abs(speeds[found.argmax()] - 800) <= 10
    assert found.max() > 50 + found[[0, 1, 5, 6]].max()


def test_where_there_is_no_texture_all_speeds_fit_alike():
    # None at all, and one that is in the glow alone, where nothing glows.
    for dark in (replace(CLEAR, texture=0.0, grain=0.0), replace(CLEAR, texture=0.0, glow=0.0)):
        found = likelihoods(dark, [400.0, 800.0, 1200.0])
        assert found == pytest.approx(np.full(3, found[0]), abs=1e-6)


def test_a_likelihood_is_that_of_all_pixels_together():
    rng, frames, pixels, nodes = np.random.default_rng(0), 2, 6, 4
    half = rng.standard_normal((nodes, nodes))
    precision, weight = half @ half.T + np.eye(nodes), rng.uniform(0.5, 2, (frames, pixels))
    seen = rng.standard_normal((frames, pixels))
    told, expected = [], []
    for _ in range(3):
        readings = 3 * rng.standard_normal((frames, pixels, nodes))
        every = readings.reshape(-1, nodes)
        covariance = every @ np.linalg.inv(precision) @ every.T + np.diag(1 / weight.ravel())
        expected.append(multivariate_normal.logpdf(seen.ravel(), cov=covariance))
        told.append(irreducible_error.log_likelihood(list(map(sparse.csr_matrix, readings)), weight, precision, seen))
    assert np.diff(told) == pytest.approx(np.diff(expected))
