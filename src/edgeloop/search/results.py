"""What a strategy sees of a search: the state's figures as a list of results in a fixed order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeloop.records import Genotype


@dataclass(frozen=True)
class Result:
    """A trained candidate. `objectives` is (validation RMSE, latency in ms), None where training, export or
    measurement failed; `violation` is by how much it exceeds its budgets, see `violation`."""

    candidate: str
    generation: int
    genotype: Genotype
    objectives: tuple[float, float] | None
    violation: float

    @property
    def feasible(self) -> bool:
        return self.objectives is not None and self.violation <= 0


def results(state: Mapping[str, Any]) -> list[Result]:
    """All trained candidates of `state`, oldest first; the order of the file plays no part."""
    found = [
        Result(
            candidate=candidate,
            generation=entry["generation"],
            genotype=entry["genotype"],
            objectives=tuple(entry["objectives"]) if entry["status"] == "ok" else None,
            violation=entry.get("violation", 0.0),
        )
        for candidate, entry in state["candidates"].items()
    ]
    return sorted(found, key=lambda result: (result.generation, result.candidate))


def violation(latencies_ms: Mapping[str, float | None], budgets_ms: Mapping[str, float]) -> float:
    """By how much latencies exceed their budgets: max(latency / budget - 1, 0) over the devices; infinite where a
    device gave no latency."""
    worst = 0.0
    for device, budget in budgets_ms.items():
        latency = latencies_ms.get(device)
        worst = max(worst, float("inf") if latency is None else latency / budget - 1)
    return worst
