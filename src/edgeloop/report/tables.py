"""From the records of a run to the tables that its report shows: one data frame for each figure, units in the names."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from edgeloop.search.costs import violation

PAPER_SPEEDUP, PAPER_QUALITY_GAIN = 8.8, 1.35
"""By which Aach, Blanc, Lintermann and De Grave (2025, arXiv:2505.19995) report to have bettered their baseline."""
QUANTILES = np.linspace(0, 1, 201)
POINTS = 2000
"""At most so many clips are drawn of a scatter plot."""
Records = Mapping[str, Mapping[str, Any]]


def describe(genotype: Mapping[str, Any]) -> str:
    """A genotype in a line: family, precision unless it is fp32, the family's genes, the training genes."""
    genes = {**genotype["architecture"], **genotype["training"]}
    family, precision = genes.pop("family"), genotype["precision"]
    words = [family] if precision == "fp32" else [family, precision]
    return ", ".join([*words, *(f"{name} {json.dumps(value)}" for name, value in genes.items())])


def networks(state: Mapping[str, Any], summary: Mapping[str, Any], device: str) -> pd.DataFrame:
    """Every trained candidate, and every baseline: error, latency on `device`, and what kind of network it is."""
    rows = []
    for name, entry in state["candidates"].items():
        if entry["status"] != "ok":
            continue
        kind = "front" if name in state["front"] else "within the budgets" if entry["feasible"] else "over a budget"
        rows.append(_network(name, kind, name, entry, entry["devices"][device]["latency_ms"]) | _found(entry))
    for label, entry in summary["baselines"].items():
        latency_ms = entry["device"][device]["latency_ms"]
        rows.append(_network(label, "baseline", entry["candidate"], entry, latency_ms))
    columns = ["network", "kind", "candidate", "val_rmse", "latency_ms", "parameters", "macs", "genes", "generation"]
    return pd.DataFrame(rows, columns=columns)


def _network(label: str, kind: str, name: str, entry: Mapping[str, Any], latency_ms: float | None) -> dict[str, Any]:
    figures = {key: entry[key] for key in ("val_rmse", "parameters", "macs")}
    about = {"network": label, "kind": kind, "candidate": name, "latency_ms": latency_ms}
    return about | figures | {"genes": describe(entry["genotype"])}


def _found(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"generation": entry["generation"]}


def references(networks: pd.DataFrame) -> pd.DataFrame:
    """Where the paper's factors lead from each baseline; the error is missing for one that was not trained."""
    baselines = networks[networks["kind"] == "baseline"]
    return pd.DataFrame(
        {
            "network": [f"paper's factors from {name}" for name in baselines["network"]],
            "latency_ms": baselines["latency_ms"].to_numpy(float) / PAPER_SPEEDUP,
            "val_rmse": baselines["val_rmse"].to_numpy(float) / PAPER_QUALITY_GAIN,
        }
    )


def progress(state: Mapping[str, Any]) -> pd.DataFrame:
    """The hypervolume after each generation, and how many trainings it took until then."""
    in_full = [entry for entry in state["candidates"].values() if entry["status"] != "dropped"]
    generations = [entry["generation"] for entry in in_full]
    return pd.DataFrame(
        [
            {
                "generation": number,
                "trainings": sum(generation <= number for generation in generations),
                "hypervolume": value,
            }
            for number, value in enumerate(state["hypervolume"])
        ]
    )


def screening(state: Mapping[str, Any]) -> pd.DataFrame:
    """How many architectures of each generation were timed untrained, by what came of it."""
    trained = {entry["architecture_id"] for entry in state["candidates"].values()}
    rows = []
    for name, entry in state["screened"].items():
        refused = any(costs is None for costs in entry["costs"].values())
        over = violation(entry["costs"], {device: state["budgets"][device] for device in entry["costs"]}) > 0
        if refused:
            fate = "refused by a device"
        elif name in trained:
            fate = "trained"
        else:
            fate = "over a budget" if over else "not chosen"
        rows.append({"generation": entry["generation"], "fate": fate})
    counted = pd.DataFrame(rows, columns=["generation", "fate"]).value_counts().reset_index(name="architectures")
    return counted.sort_values(["generation", "fate"], ignore_index=True)


def latencies(comparisons: Records, names: Mapping[str, str]) -> pd.DataFrame:
    """The distribution of the raw samples of each compared network: what share of its runs took at most how long."""
    rows = [
        {"device": device, "network": names[name], "share": share, "latency_ms": latency_ms}
        for device, record in comparisons.items()
        for name, entry in record["candidates"].items()
        if entry["status"] == "ok"
        for share, latency_ms in zip(QUANTILES, np.quantile(entry["samples_ms"], QUANTILES), strict=True)
    ]
    return pd.DataFrame(rows, columns=["device", "network", "share", "latency_ms"])


def predictions(table: pd.DataFrame) -> pd.DataFrame:
    """predictions.csv of a finalist in long form: one row for each clip and target; residual is predicted - true."""
    step = max(1, -(-len(table) // POINTS))
    table = table.iloc[::step]
    parts = [
        pd.DataFrame(
            {
                "target": f"{target}, {unit}",
                "clip": table["object"] + " " + table["layer"] + " line " + table["line"].astype(str),
                "true": table[f"{target}_{key}"],
                "predicted": table[f"predicted_{target}_{key}"],
                "residual": table[f"predicted_{target}_{key}"] - table[f"{target}_{key}"],
            }
        )
        for target, key, unit in (("speed", "mm_s", "mm/s"), ("power", "w", "W"))
    ]
    return pd.concat(parts, ignore_index=True)


def timeline(works: Mapping[str, Iterable[Sequence[float]]]) -> pd.DataFrame:
    """When jobs were at work, by stage, in minutes since the first began; the stage `wait` is when none was.

    works: [begin, end] in s since 1970, by stage.
    """
    spans = [(stage, begin, end) for stage, found in works.items() for begin, end in found]
    if not spans:
        return pd.DataFrame(columns=["stage", "begin_min", "end_min"])
    upto = first = min(begin for _, begin, _ in spans)
    waits = []
    for _, begin, end in sorted(spans, key=lambda span: span[1:]):
        if begin > upto:
            waits.append(("wait", upto, begin))
        upto = max(upto, end)
    return pd.DataFrame(
        [
            {"stage": stage, "begin_min": (begin - first) / 60, "end_min": (end - first) / 60}
            for stage, begin, end in [*spans, *waits]
        ]
    )


UNITS = {"load_1min": "load", "thermal_c": "°C", "power_w": "W", "cpu_khz": "kHz", "gpu_hz": "Hz"}
"""The moments of telemetry that are drawn, and their units."""


def telemetry(measurements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """What the devices told of themselves before and after each measurement, in minutes since the first."""
    rows = [
        {"device": record["device"], "time_s": moment["time_s"], "sensor": sensor, "value": value}
        for record in measurements
        for moment in record.get("telemetry", {}).values()
        if moment.get("time_s") is not None
        for sensor, value in _sensors(moment)
    ]
    table = pd.DataFrame(rows, columns=["device", "time_s", "sensor", "value"])
    table["time_min"] = (table.pop("time_s") - min((row["time_s"] for row in rows), default=0)) / 60
    return table.sort_values(["sensor", "time_min"], ignore_index=True)


def _sensors(moment: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, unit in UNITS.items():
        found = moment.get(key)
        for name, value in found.items() if isinstance(found, dict) else [(None, found)]:
            if isinstance(value, int | float):
                yield (f"{name}, {unit}" if name else "load, 1 min mean" if key == "load_1min" else f"{key}"), value


def failures(state: Mapping[str, Any], finals: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    """What failed, and why: candidates of the search, and seeds of finalists (`finals`: reason by seed, by network)."""
    rows = [
        {"network": name, "stage": f"generation {entry['generation']}", "reason": entry["reason"]}
        for name, entry in state["candidates"].items()
        if entry["status"] == "failed"
    ]
    rows += [
        {"network": name, "stage": f"finalist, seed {seed}", "reason": reason}
        for name, failed in finals.items()
        for seed, reason in failed.items()
    ]
    return pd.DataFrame(rows, columns=["network", "stage", "reason"])
