"""The two decisions of a generation: which networks to consider, and which of them to train."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgeloop.records import Genotype, architecture_id, candidate_id
from edgeloop.search.registry import strategy
from edgeloop.search.results import results, violation
from edgeloop.space import Space

PROPOSE, CHOOSE = 0, 1
TRIES_PER_PROPOSAL = 200


class NothingFeasible(ValueError):
    """No network that meets the budgets was found, neither now nor before."""


def propose(
    space: Space,
    state: Mapping[str, Any],
    *,
    name: str,
    options: Mapping[str, Any],
    seed: int,
    generation: int,
    count: int,
) -> list[Genotype]:
    """Up to `count` different genotypes, none of them trained before; fewer where the space is nearly exhausted.

    Pure: the same state, seed and generation give the same proposals.
    """
    rng = _generator(seed, generation, PROPOSE)
    history = results(state)
    known = set(state["candidates"])
    found: list[Genotype] = []
    for _ in range(TRIES_PER_PROPOSAL * count):
        if len(found) == count:
            break
        genotype = strategy(name).propose(space, history, rng, options)
        if (identity := candidate_id(genotype)) not in known:
            known.add(identity)
            found.append(genotype)
    return found


def choose(
    state: Mapping[str, Any],
    proposals: Sequence[Genotype],
    screened: Mapping[str, Mapping[str, float | None]],
    *,
    name: str,
    options: Mapping[str, Any],
    seed: int,
    generation: int,
    count: int,
    budgets_ms: Mapping[str, float],
    screening: bool,
) -> list[Genotype]:
    """Up to `count` of `proposals` to train: those that meet every budget on its device.

    `screened` gives the latency in ms by architecture id and device (None where the device refused the network).
    Without screening nothing is known beforehand, and every proposal may be trained.
    Raises NothingFeasible when no proposal meets the budgets and no trained candidate does.
    """
    history = results(state)
    first = next(iter(budgets_ms))
    feasible: list[tuple[Genotype, float | None]] = []
    for genotype in proposals:
        latencies = screened.get(architecture_id(genotype), {})
        if not screening or violation(latencies, budgets_ms) <= 0:
            feasible.append((genotype, latencies.get(first)))
    if not feasible and proposals and not any(result.feasible for result in history):
        raise NothingFeasible(_closest(proposals, screened, budgets_ms))
    return strategy(name).choose(history, feasible, count, _generator(seed, generation, CHOOSE), options)


def _generator(seed: int, generation: int, phase: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, generation, phase]))


def _closest(
    proposals: Sequence[Genotype],
    screened: Mapping[str, Mapping[str, float | None]],
    budgets_ms: Mapping[str, float],
) -> str:
    latencies = [screened.get(architecture_id(genotype), {}) for genotype in proposals]
    closest = min(latencies, key=lambda latency: violation(latency, budgets_ms))
    taken = {name: "refused" if closest.get(name) is None else f"{closest[name]:.4g} ms" for name in budgets_ms}
    found = ", ".join(f"{taken[name]} on {name} (budget {budget:.4g} ms)" for name, budget in budgets_ms.items())
    return (
        f"none of the {len(proposals)} networks that were screened meets the latency budget; the closest one takes "
        f"{found}. Raise budget_ms of the device, add smaller networks to the space, or enlarge screening.pool."
    )
