"""What a strategy knows of a search: the state's figures in a fixed order."""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.records import Genotype
from edgeloop.search.costs import Budgets, Costs, objective_costs, objective_limits, violation
from edgeloop.space import Space

FAILURES = 2
"""So many networks of a family have to fail, and none to succeed, before it counts as known."""


@dataclass(frozen=True)
class Result:
    """A trained candidate. `objectives` is (validation RMSE, latency in ms, ...), None where training, export or
    measurement failed; `violation` is by how much it exceeds its budgets, see `violation`."""

    candidate: str
    generation: int
    genotype: Genotype
    objectives: tuple[float, ...] | None
    violation: float

    @property
    def feasible(self) -> bool:
        return self.objectives is not None and self.violation <= 0


@dataclass(frozen=True)
class Screened:
    """An architecture that was measured, trained or not: its genes without those of training, and its costs."""

    genes: Genotype
    costs: Costs


@dataclass(frozen=True)
class Knowledge:
    """All that a decision may depend on.

    results: all candidates trained in full, oldest first. short: what halving has told of these and of those left out:
    for each number of epochs, the fewest first, (genotype, loss). tried: the ids of all that training was begun with.
    screened: all that was measured, trained or not, by architecture id.
    earlier: what each of the runs found that `search.warm_start` names, as (genotype, loss); their genotypes are of
    `space`. objectives: the figures that a result's costs are, such as ("latency_ms",). budgets: see Budgets. device:
    whose figures they are, or costs.WORST.
    """

    space: Space
    results: Sequence[Result]
    short: Sequence[Sequence[tuple[Genotype, float]]]
    tried: frozenset[str]
    screened: Mapping[str, Screened]
    earlier: Sequence[Sequence[tuple[Genotype, float]]]
    objectives: Sequence[str]
    budgets: Budgets
    device: str

    @property
    def limits(self) -> tuple[float, ...]:
        """The budget of each objective besides the loss."""
        return objective_limits(self.budgets, self.objectives, self.device)

    @property
    def trained(self) -> list[Result]:
        """The results that did not fail."""
        return [result for result in self.results if result.objectives is not None]

    def unknown_families(self, genotypes: Sequence[Genotype]) -> dict[str, list[int]]:
        """The positions of those of families of which no training has told anything yet, in this run or before."""
        known = self.known_families
        found: dict[str, list[int]] = defaultdict(list)
        for position, genotype in enumerate(genotypes):
            if (family := genotype["architecture"]["family"]) not in known:
                found[family].append(position)
        return found

    def near_misses(self, most: int) -> list[list[Genotype]]:
        """For each family of which no training has told anything yet, those of its screened networks that exceed the
        budgets least, without genes of training: up to `most`, the nearest first."""
        known = self.known_families
        found: dict[str, list[tuple[float, Genotype]]] = defaultdict(list)
        for entry in self.screened.values():
            excess = violation(entry.costs, self.budgets)
            if math.isfinite(excess) and (family := entry.genes["architecture"]["family"]) not in known:
                found[family].append((excess, entry.genes))
        nearest = (sorted(found[family], key=lambda each: each[0])[:most] for family in sorted(found))
        return [[genes for _, genes in family] for family in nearest]

    @property
    def known_families(self) -> frozenset[str]:
        """The families of which a training has told something, in this run or before. That a network failed may be its
        own fault: it takes two of a family."""
        told = [result.genotype for result in self.trained]
        told += [genotype for trainings in (*self.short, *self.earlier) for genotype, _ in trainings]
        failed = Counter(_family(result.genotype) for result in self.results if result.objectives is None)
        return frozenset(map(_family, told)) | {family for family, times in failed.items() if times >= FAILURES}

    def objective_costs(self, costs: Costs) -> tuple[float, ...] | None:
        """The costs that are objectives; None where a device did not give them all."""
        values = objective_costs(costs, self.budgets, self.objectives, self.device)
        return None if None in values else values


def _family(genotype: Genotype) -> str:
    return genotype["architecture"]["family"]


def knowledge(
    space: Space,
    state: Mapping[str, Any],
    *,
    budgets: Budgets,
    objectives: Sequence[str],
    device: str | None = None,
    earlier: Sequence[Sequence[tuple[Genotype, float]]] = (),
) -> Knowledge:
    """What `state` tells; the order in which its file lists things plays no part. `device` is the first one where none
    is named."""
    entries = sorted(state["candidates"].items(), key=lambda item: (item[1]["generation"], item[0]))
    results = [
        Result(
            candidate=candidate,
            generation=entry["generation"],
            genotype=entry["genotype"],
            objectives=tuple(entry["objectives"]) if entry["status"] == "ok" else None,
            violation=entry.get("violation", 0.0),
        )
        for candidate, entry in entries
        if entry["status"] != "dropped"
    ]
    short: dict[int, list[tuple[Genotype, float]]] = defaultdict(list)
    for _, entry in entries:
        for rung, loss in entry["rungs"].items():
            short[int(rung)].append((entry["genotype"], loss))
    measured = {
        entry["architecture_id"]: {
            "generation": entry["generation"],
            "genes": {key: entry["genotype"][key] for key in ("architecture", "precision")},
            "costs": entry["devices"],
        }
        for _, entry in entries
        if entry["status"] == "ok"
    }
    # Screened first: where a network was screened and trained, decisions rest on the same figure before and after.
    known = {**measured, **state["screened"]}
    screened = sorted(known.items(), key=lambda item: (item[1]["generation"], item[0]))
    return Knowledge(
        space=space,
        results=results,
        short=[short[rung] for rung in sorted(short)],
        tried=frozenset(state["candidates"]),
        screened={name: Screened({**entry["genes"], "training": {}}, entry["costs"]) for name, entry in screened},
        earlier=earlier,
        objectives=objectives,
        budgets=budgets,
        device=device or next(iter(budgets)),
    )
