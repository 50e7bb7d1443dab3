"""What networks cost on devices, and what they may cost. Imports nothing: every start of Snakemake reads it."""

from collections.abc import Mapping, Sequence
from typing import Any

UNITS = {"latency_ms": "ms", "peak_memory_mb": "MB", "energy_mj_per_inference": "mJ"}
"""What can be an objective or have a budget."""
Costs = Mapping[str, Mapping[str, float | None] | None]
"""What a network costs: {device: {"latency_ms": ..., "peak_memory_mb": ...}}; None where the device refused it."""
Budgets = Mapping[str, Mapping[str, float]]
"""What it may cost: {device: {"latency_ms": ...}}, for the devices whose budgets count."""
BUDGET_KEYS = {
    "budget_ms": "latency_ms",
    "budget_memory_mb": "peak_memory_mb",
    "budget_energy_mj": "energy_mj_per_inference",
}
"""The keys of a device's entry in the configuration, and the figure that each limits."""
WORST = "worst"
"""Stands for a device where objectives are the largest share of its budget that a network takes on any device."""
WORST_NAMES = {
    "latency_ms": "worst_latency_share",
    "peak_memory_mb": "worst_memory_share",
    "energy_mj_per_inference": "worst_energy_share",
}


def budgets(config: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The budgets that count in a configuration: those of `search.feasible_on`, or of all devices."""
    return {
        name: {figure: entry[key] for key, figure in BUDGET_KEYS.items() if entry.get(key) is not None}
        for name, entry in config["devices"].items()
        if name in (config["search"]["feasible_on"] or config["devices"])
    }


def objective_device(config: Mapping[str, Any]) -> str:
    """The device whose costs are the objectives, or WORST."""
    return config["search"]["objective_device"] or next(iter(budgets(config)))


def objective_limits(budgets: Budgets, objectives: Sequence[str], device: str) -> tuple[float, ...]:
    """The budget of each of `objectives` (figures) on `device`; 1 for WORST."""
    return tuple(1.0 if device == WORST else budgets[device][figure] for figure in objectives)


def objective_costs(costs: Costs, budgets: Budgets, objectives: Sequence[str], device: str) -> tuple[float | None, ...]:
    """What a network costs in each of `objectives` on `device`, or at WORST; None where a device did not tell."""
    if device != WORST:
        found = costs.get(device) or {}
        return tuple(found.get(figure) for figure in objectives)
    return tuple(_worst_share(costs, budgets, figure) for figure in objectives)


def _worst_share(costs: Costs, budgets: Budgets, figure: str) -> float | None:
    found = [
        ((costs.get(name) or {}).get(figure), limits[figure]) for name, limits in budgets.items() if figure in limits
    ]
    return None if None in (cost for cost, _ in found) else max(cost / limit for cost, limit in found)


def violation(costs: Costs, budgets: Budgets) -> float:
    """By how much costs exceed their budgets: max(cost / budget - 1, 0) over devices and figures; infinite where a
    device did not give a figure."""
    worst = 0.0
    for device, limits in budgets.items():
        found = costs.get(device) or {}
        for figure, limit in limits.items():
            cost = found.get(figure)
            worst = max(worst, float("inf") if cost is None else cost / limit - 1)
    return worst
