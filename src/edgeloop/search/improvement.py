"""Expected hypervolume improvement where one objective is uncertain and the others are known.

The loss of an untrained network is predicted, with a log-normal error; what it costs on the device has been measured.
Then the expectation of Emmerich, Giannakoglou and Naujoks (2006) has a closed form for any number of costs: with the
loss at t, a network adds V(t), the volume of costs that it alone dominates among what is known with a loss of at most
t; V is constant between two losses of the front, so that the expected improvement is a sum over these steps of V times
the integral of P(loss <= t).
"""

import numpy as np
from scipy.special import ndtr

from edgeloop.search import pareto


def expected_improvement(
    mean: np.ndarray, sd: np.ndarray, costs: np.ndarray, front: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """By how much each of m candidates is expected to enlarge the hypervolume: [m].

    mean, sd: of the logarithm of the loss, [m]. costs: [m, objectives - 1]. front: non-dominated points
    [k, objectives], the loss first. reference: [objectives], the worst that counts. All are minimised.
    """
    front = front[(front < reference).all(1)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    levels = np.append(front[:, 0], reference[0])
    integrals = _integral(levels[None, :], mean[:, None], sd[:, None])
    steps = np.diff(integrals, axis=1, prepend=0.0)
    volumes = np.stack([_exclusive(costs, front[:known, 1:], reference[1:]) for known in range(len(levels))], axis=1)
    return (steps * volumes).sum(1)


def _integral(level: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """The integral of P(loss <= t) from 0 to `level` > 0."""
    z = (np.log(level) - mean) / sd
    return level * ndtr(z) - np.exp(mean + 0.5 * sd**2) * ndtr(z - sd)


def _exclusive(costs: np.ndarray, known: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The volume up to `reference` that each of `costs` dominates and none of `known` does."""
    if costs.shape[1] == 1:
        best = min(known[:, 0].min(initial=reference[0]), reference[0])
        return np.maximum(best - costs[:, 0], 0.0)
    before = pareto.hypervolume(known, reference)
    return np.array([pareto.hypervolume(np.vstack([known, cost]), reference) - before for cost in costs])
