"""Successive halving inside a generation: all begin, some stop early, the rest is trained in full.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization". With costs beside
the loss, who goes on is decided as in a generation of NSGA-II (Deb et al. 2002; for halving: Schmucker et al. 2021,
"Multi-objective asynchronous successive halving"): by the rank of the front, then by crowding distance, so that of the
best front its ends go first. Who stops is not compared with anybody afterwards: only full trainings are results.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeloop.search import pareto


def decide(population: Mapping[str, Any], records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The candidates that go on, by the training records of all that came so far.

    population: the generation's, with its candidates' screened costs; where it was not screened, the loss decides.
    """
    costs = dict(zip(population["candidates"], population["costs"], strict=True))
    if None in costs.values():
        costs = dict.fromkeys(costs, ())
    objectives = {
        name: (record["val_rmse"], *costs[name]) if record["status"] == "ok" else None
        for name, record in records.items()
    }
    return promote(objectives, population["halving"]["factor"])


def promote(objectives: Mapping[str, Sequence[float] | None], factor: int) -> list[str]:
    """The candidates that go on, one in `factor` of all that came so far, in their order.

    objectives: (loss so far, cost, ...) of each candidate; None for one that failed, which does not go on.
    """
    alive = [name for name, values in objectives.items() if values is not None]
    count = -(-len(objectives) // factor)
    if len(alive) <= count:
        return alive
    points = [objectives[name] for name in alive]
    ranks = pareto.ranks(points)
    distance = [0.0] * len(alive)
    for rank in set(ranks):
        members = [position for position, each in enumerate(ranks) if each == rank]
        for position, crowding in zip(members, pareto.crowding([points[m] for m in members]), strict=True):
            distance[position] = float(crowding)
    order = sorted(range(len(alive)), key=lambda position: (ranks[position], -distance[position], points[position][0]))
    return [alive[position] for position in sorted(order[:count])]
