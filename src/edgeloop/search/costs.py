"""What networks cost on devices, and what they may cost. Imports nothing: every start of Snakemake reads it."""

from collections.abc import Mapping
from typing import Any

UNITS = {"latency_ms": "ms", "peak_memory_mb": "MB"}
"""What can be an objective or have a budget."""
Costs = Mapping[str, Mapping[str, float | None] | None]
"""What a network costs: {device: {"latency_ms": ..., "peak_memory_mb": ...}}; None where the device refused it."""
Budgets = Mapping[str, Mapping[str, float]]
"""What it may cost: {device: {"latency_ms": ...}}. The first device's costs are the objectives."""
BUDGET_KEYS = {"budget_ms": "latency_ms", "budget_memory_mb": "peak_memory_mb"}
"""The keys of a device's entry in the configuration, and the figure that each limits."""


def budgets(devices: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The budgets of the devices in a configuration."""
    return {
        name: {figure: entry[key] for key, figure in BUDGET_KEYS.items() if entry.get(key) is not None}
        for name, entry in devices.items()
    }


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
