"""The two decisions of a generation: which networks to consider, and which of them to train."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from edgeloop.records import Genotype, architecture_id, candidate_id
from edgeloop.search import warm_start
from edgeloop.search.costs import BUDGET_KEYS, UNITS, Budgets, Costs, budgets, objective_device, violation
from edgeloop.search.registry import strategy
from edgeloop.search.results import Knowledge, knowledge
from edgeloop.space import Space

PROPOSE, CHOOSE = 0, 1
TRIES_PER_PROPOSAL = 200


class NothingFeasible(ValueError):
    """No network that meets the budgets was found, neither now nor before."""


def known(config: Mapping[str, Any], space: Space, state: Mapping[str, Any], earlier: Mapping[str, Any]) -> Knowledge:
    """What a run with `config` may decide from; `earlier` is its results/warm_start.json."""
    return knowledge(
        space,
        state,
        budgets=budgets(config),
        objectives=config["search"]["objectives"][1:],
        device=objective_device(config),
        earlier=warm_start.of_space(earlier, space),
    )


def propose(
    knowledge: Knowledge, *, name: str, options: Mapping[str, Any], seed: int, generation: int, count: int
) -> list[Genotype]:
    """Up to `count` different genotypes, none of them trained before; fewer where the space is nearly exhausted.

    Pure: the same knowledge, seed and generation give the same proposals.
    """
    found: dict[str, Genotype] = {}
    trained = {result.candidate for result in knowledge.results}
    offers = strategy(name).propose(knowledge, count, _generator(seed, generation, PROPOSE), options)
    with threadpool_limits(1):  # see choose
        for genotype in islice(offers, TRIES_PER_PROPOSAL * count):
            if (identity := candidate_id(genotype)) not in trained:
                found.setdefault(identity, genotype)
            if len(found) == count:
                break
    return list(found.values())


def choose(
    knowledge: Knowledge,
    proposals: Sequence[Genotype],
    *,
    name: str,
    options: Mapping[str, Any],
    seed: int,
    generation: int,
    count: int,
    screening: bool,
) -> list[Genotype]:
    """Up to `count` of `proposals` to train: those that meet every budget on its device.

    `knowledge` has the costs of the proposals among what was screened. Without screening nothing is known beforehand,
    and every proposal may be trained.
    Raises NothingFeasible when no proposal meets the budgets and no trained candidate does.
    """
    feasible: list[tuple[Genotype, Costs]] = []
    for genotype in proposals:
        costs = _costs(knowledge, genotype)
        if not screening or violation(costs, knowledge.budgets) <= 0:
            feasible.append((genotype, costs))
    if not feasible and proposals and not any(result.feasible for result in knowledge.results):
        raise NothingFeasible(_closest(knowledge, proposals))
    module = strategy(name)
    # The same sums in the same order on every machine; and threads that wait for each other on a busy one take minutes.
    with threadpool_limits(1):
        return module.choose(knowledge, feasible, count, _generator(seed, generation, CHOOSE), options)


def _generator(seed: int, generation: int, phase: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, generation, phase]))


def _costs(knowledge: Knowledge, genotype: Genotype) -> Costs:
    known = knowledge.screened.get(architecture_id(genotype))
    return known.costs if known else {}


def _closest(knowledge: Knowledge, proposals: Sequence[Genotype]) -> str:
    costs = [_costs(knowledge, genotype) for genotype in proposals]
    closest = min(costs, key=lambda cost: violation(cost, knowledge.budgets))
    found = ", ".join(
        f"{_taken(closest.get(device), figure)} on {device} (budget {limit:.4g} {UNITS[figure]})"
        for device, limits in knowledge.budgets.items()
        for figure, limit in limits.items()
    )
    return (
        f"none of the {len(proposals)} networks that were screened meets the budgets; the closest one takes "
        f"{found}. Raise {_keys(knowledge.budgets)} of the device, add smaller networks to the space, or enlarge "
        "screening.pool."
    )


def _taken(costs: Mapping[str, float | None] | None, figure: str) -> str:
    if costs is None:
        return "refused"
    cost = costs.get(figure)
    return f"an unknown {figure}" if cost is None else f"{cost:.4g} {UNITS[figure]}"


def _keys(limits: Budgets) -> str:
    used = {figure for entry in limits.values() for figure in entry}
    return " or ".join(key for key, figure in BUDGET_KEYS.items() if figure in used)
