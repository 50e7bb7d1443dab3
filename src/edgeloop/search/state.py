"""The state of a search after a generation: everything known so far, and whether to go on."""

from collections.abc import Mapping, Sequence
from typing import Any

from edgeloop.precision import deployed
from edgeloop.records import SCHEMA_VERSION, Genotype, architecture_id, candidate_id, digest
from edgeloop.search import pareto
from edgeloop.search.costs import (
    UNITS,
    WORST,
    WORST_NAMES,
    Budgets,
    Costs,
    objective_costs,
    objective_limits,
    violation,
)

TRAIN_FIGURES = ("val_rmse", "val_rmse_speed_mm_s", "val_rmse_power_w", "parameters", "macs", "training_s")
DEVICE_FIGURES = (
    "latency_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "ratio",
    "peak_memory_mb",
    "energy_mj_per_inference",
    "device_s",
    "rmse",
    "rmse_pytorch",
)
GROWTH = 1e-9  # of the hypervolume: less than this is rounding


class HistoryError(ValueError):
    """The files of a search do not belong to one history."""


def empty() -> dict[str, Any]:
    """The state before the first generation."""
    return {
        "schema_version": SCHEMA_VERSION,
        "generation": -1,
        "lineage": "",
        "candidates": {},
        "screened": {},
        "front": [],
        "hypervolume": [],
        "stop": False,
        "reason": None,
    }


def advance(
    previous: Mapping[str, Any],
    *,
    population: Mapping[str, Any],
    screening: Sequence[Mapping[str, Any]],
    genes: Mapping[str, Mapping[str, Any]],
    train: Mapping[str, Mapping[str, Any]],
    export: Mapping[str, Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, Mapping[str, Any]]],
    budgets: Budgets,
    objectives: Sequence[str],
    reference_rmse: float,
    patience: int,
    short: Mapping[int, Mapping[str, Mapping[str, Any]]] | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """The state after one more generation.

    `population` is the generation's decision, `screening` its screening records, `genes` the genes of what was
    screened (architecture and precision, by architecture id), and `train`, `export` and `measured` (by device) give the
    records of each of its candidates that was trained in full. `short` gives, for each rung of a generation that was
    halved, the training records of all that came so far.
    `objectives` names the figures that are objectives besides the validation RMSE, `device` whose they are (the first
    one with a budget, or see costs.WORST). All of `budgets` are constraints. The hypervolume is that of the feasible
    candidates in (RMSE / `reference_rmse`, cost / budget, ...) up to (1, 1, ...). `reference_rmse` is what predicting
    the mean reaches, so that what counts as progress is known before the search begins.
    The search stops when the hypervolume has not grown for `patience` generations.
    Raises HistoryError when the generation was decided from another history than `previous`.
    """
    generation = population["generation"]
    if generation != previous["generation"] + 1 or population["parent"] != previous["lineage"]:
        raise HistoryError(
            f"generation {generation:03d} was decided from another history than its predecessor holds now. "
            f"Remove results/generations/{generation:03d}, those after it and results/generations/history.*.json, and "
            "run again: what was trained is kept."
        )
    device = device or next(iter(budgets))

    def judge(entry: Mapping[str, Any]) -> dict[str, Any]:
        return _judge(dict(entry), budgets, objectives, device)

    candidates = {name: judge(entry) for name, entry in previous["candidates"].items()}
    for genotype in population["genotypes"]:
        name = candidate_id(genotype)
        legs = {rung: records[name] for rung, records in (short or {}).items() if name in records}
        if name in train:
            devices = {measuring: records[name] for measuring, records in measured.items()}
            entry = _entry(genotype, generation, legs, train[name], export[name], devices)
        else:
            entry = _left_out(genotype, generation, legs)
        candidates[name] = judge(entry)
    reference = (reference_rmse, *objective_limits(budgets, objectives, device))
    history = [_hypervolume(candidates, upto, reference) for upto in range(generation + 1)]
    stop = len(history) > patience and history[-1] <= history[-1 - patience] + GROWTH
    return {
        "schema_version": SCHEMA_VERSION,
        "generation": generation,
        "lineage": lineage(previous["lineage"], population["candidates"], list(train)),
        "budgets": {name: dict(limits) for name, limits in budgets.items()},
        "objectives": ["val_rmse", *(WORST_NAMES[figure] if device == WORST else figure for figure in objectives)],
        "reference": list(reference),
        "candidates": candidates,
        "screened": {**previous["screened"], **screened(generation, screening, genes)},
        "front": front(candidates),
        "hypervolume": history,
        "stop": stop,
        "reason": f"the hypervolume has not grown for {patience} generations" if stop else None,
    }


def lineage(parent: str, candidates: Sequence[str], trained: Sequence[str]) -> str:
    """The identity of a history: that of its predecessor, and whom this generation trains, a little and in full."""
    return digest([parent, sorted(candidates), sorted(trained)])


def with_screening(
    state: Mapping[str, Any], screening: Sequence[Mapping[str, Any]], genes: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """`state`, and what was screened since: see `advance`."""
    return {**state, "screened": {**state["screened"], **screened(state["generation"] + 1, screening, genes)}}


def front(candidates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The non-dominated feasible candidates, best RMSE first."""
    feasible = sorted(name for name, entry in candidates.items() if entry["feasible"])
    kept = pareto.front([candidates[name]["objectives"] for name in feasible])
    return sorted((feasible[position] for position in kept), key=lambda name: candidates[name]["objectives"])


def screened(
    generation: int, screening: Sequence[Mapping[str, Any]], genes: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What screening records tell of each architecture: its costs by device, None where the device refused it."""
    found: dict[str, dict[str, Any]] = {}
    for record in screening:
        for name, figures in record["architectures"].items():
            entry = found.setdefault(name, {"generation": generation, "genes": genes[name], "costs": {}})
            entry["costs"][record["device"]] = _costs(figures) if figures["status"] == "ok" else None
    return found


def _costs(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {name: figures.get(name) for name in UNITS}


def _entry(
    genotype: Genotype,
    generation: int,
    legs: Mapping[int, Mapping[str, Any]],
    train: Mapping[str, Any],
    export: Mapping[str, Any],
    measured: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    broken = next((record for record in (train, export, *measured.values()) if record["status"] == "failed"), None)
    return {
        "generation": generation,
        "genotype": genotype,
        "architecture_id": architecture_id(genotype),
        "status": "failed" if broken else "ok",
        "reason": broken["reason"] if broken else None,
        **{figure: deployed(train, export).get(figure) for figure in TRAIN_FIGURES},
        "rungs": _losses(legs),
        "export_s": export.get("export_s"),
        "devices": {
            device: {figure: record.get(figure) for figure in DEVICE_FIGURES} for device, record in measured.items()
        },
    }


def _left_out(genotype: Genotype, generation: int, legs: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """A candidate that was not trained in full: its quality is unknown, not bad."""
    last = max(legs)
    broken = legs[last]["status"] == "failed"
    return {
        "generation": generation,
        "genotype": genotype,
        "architecture_id": architecture_id(genotype),
        "status": "failed" if broken else "dropped",
        "reason": legs[last]["reason"] if broken else f"left out after {last} epochs: others were better by then",
        **{figure: legs[last].get(figure) for figure in TRAIN_FIGURES if not figure.startswith("val_")},
        **{figure: None for figure in TRAIN_FIGURES if figure.startswith("val_")},
        "rungs": _losses(legs),
        "export_s": None,
        "devices": {},
    }


def _losses(legs: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    return {str(rung): record["val_rmse"] for rung, record in legs.items() if record["status"] == "ok"}


def _judge(entry: dict[str, Any], budgets: Budgets, objectives: Sequence[str], device: str) -> dict[str, Any]:
    """Set what depends on the budgets: objectives, violation, feasible."""
    if entry["status"] != "ok":
        return {**entry, "objectives": None, "violation": 0.0, "feasible": False}
    costs: Costs = {name: _costs(figures) for name, figures in entry["devices"].items()}
    for name, limits in budgets.items():
        # What is an objective has a budget, too.
        if missing := [figure for figure in limits if costs[name][figure] is None]:
            raise ValueError(f"{name} gives no {missing[0]}, which has a budget there: remove that budget")
    excess = violation(costs, budgets)
    return {
        **entry,
        "objectives": [entry["val_rmse"], *objective_costs(costs, budgets, objectives, device)],
        "violation": excess,
        "feasible": excess <= 0,
    }


def _hypervolume(candidates: Mapping[str, Mapping[str, Any]], upto: int, reference: tuple[float, ...]) -> float:
    points = [
        [value / limit for value, limit in zip(entry["objectives"], reference, strict=True)]
        for entry in candidates.values()
        if entry["feasible"] and entry["generation"] <= upto
    ]
    return pareto.hypervolume(points, (1.0,) * len(reference))
