"""Dominance and hypervolume of trained candidates: both objectives are minimised, the budget is a constraint."""

from collections.abc import Sequence

import moocore
import numpy as np

Objectives = Sequence[Sequence[float]]


def front(points: Objectives) -> list[int]:
    """Positions of the non-dominated points, of equal ones the first, in ascending order."""
    if not len(points):
        return []
    kept = moocore.is_nondominated(np.asarray(points, float), keep_weakly=False)
    return [int(position) for position in np.flatnonzero(kept)]


def ranks(points: Objectives) -> np.ndarray:
    """The front to which each point belongs: 0 for the non-dominated, 1 for those behind them only, and so on."""
    if not len(points):
        return np.zeros(0, int)
    return moocore.pareto_rank(np.asarray(points, float))


def hypervolume(points: Objectives, reference: Sequence[float]) -> float:
    """Area dominated by `points` up to `reference`; points beyond it count nothing."""
    inside = [point for point in points if all(p < r for p, r in zip(point, reference, strict=True))]
    return float(moocore.hypervolume(np.asarray(inside, float), ref=np.asarray(reference, float))) if inside else 0.0


def crowding(points: Objectives) -> np.ndarray:
    """Crowding distance (Deb et al. 2002, NSGA-II) among points of one front: large where the front is sparse."""
    values = np.asarray(points, float)
    distance = np.zeros(len(values))
    for column in values.T:
        order = np.argsort(column, kind="stable")
        distance[order[[0, -1]]] = np.inf
        span = column[order[-1]] - column[order[0]]
        if len(values) > 2 and span > 0:
            distance[order[1:-1]] += (column[order[2:]] - column[order[:-2]]) / span
    return distance
