"""Finalists: which networks of the front are trained on the full budget, and what their seeds come to together."""

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgeloop.precision import deployed
from edgeloop.records import read_json

FIGURES = (
    "val_rmse",
    "val_rmse_speed_mm_s",
    "val_rmse_power_w",
    "test_rmse",
    "test_rmse_speed_mm_s",
    "test_rmse_power_w",
)
LATENCIES = ("latency_ms", "latency_p50_ms", "latency_p99_ms")
Seeds = Mapping[int, Mapping[str, Any]]
"""What a finalist's trainings have come to, by seed: {"train": record, "export": record, "test": record, "measured":
{device: record}}."""


def nominate(state: Mapping[str, Any], count: int, rule: str) -> list[str]:
    """Up to `count` candidates of the front of `state`, the one of the lowest validation RMSE first.

    rule: `best` takes those of the lowest RMSE; `spread` the one of the lowest, and then again and again the one that
    adds most to the hypervolume of those taken.
    """
    front = list(state["front"])
    if rule == "best":
        return front[:count]
    if rule != "spread":
        raise ValueError(f"there is no rule {rule!r} for finalists; expected best or spread")
    from edgeloop.search import pareto

    chosen = front[:1]
    while chosen and len(chosen) < min(count, len(front)):

        def dominated(name: str) -> float:
            points = [state["candidates"][each]["objectives"] for each in [*chosen, name]]
            return pareto.hypervolume(points, state["reference"])

        chosen.append(max((name for name in front if name not in chosen), key=dominated))
    return sorted(chosen, key=front.index)


def by_seed(files: Iterable[str | Path]) -> dict[str, dict[int, dict[str, Any]]]:
    """The records `files`, results/finalists/{candidate}/{seed}/{record}.json, as Seeds by candidate."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for file in map(Path, files):
        seeds = found.setdefault(file.parents[1].name, {})
        records = seeds.setdefault(int(file.parent.name), {"measured": {}})
        kind, *device = file.name.split(".")[:-1]
        if device:
            records["measured"][device[0]] = read_json(file)
        else:
            records[kind] = read_json(file)
    return found


def failure(records: Mapping[str, Any]) -> str | None:
    """Why one of a finalist's trainings came to nothing, at the first stage that failed; None when all went well."""
    stages = [records["train"], records["export"], *records["measured"].values(), records["test"]]
    return next((record["reason"] for record in stages if record["status"] == "failed"), None)


def together(seeds: Seeds) -> dict[str, Any]:
    """What a finalist's trainings come to: mean and spread of each figure over the seeds that have it.

    A spread is {"mean", "std", "values"}: std is the sample standard deviation, None of a single value; None for a
    figure that no seed has. `failed` gives the reason of each seed that failed.
    """

    def spread(values: Iterable[float | None]) -> dict[str, Any] | None:
        known = [value for value in values if value is not None]
        if not known:
            return None
        std = statistics.stdev(known) if len(known) > 1 else None
        return {"mean": statistics.fmean(known), "std": std, "values": known}

    def of(records: Mapping[str, Any], figure: str) -> float | None:
        record = records["test"] if figure.startswith("test_") else deployed(records["train"], records["export"])
        return record.get(figure) if record["status"] == "ok" else None

    def timed(device: str) -> dict[int, list[Mapping[str, Any]]]:
        found: dict[int, list[Mapping[str, Any]]] = {}
        for seed in sorted(seeds):
            for size, figures in by_batch_size(seeds[seed]["measured"][device]).items():
                found.setdefault(size, []).append(figures)
        return found

    devices = sorted({device for records in seeds.values() for device in records["measured"]})
    return {
        "epochs": next(
            (records["train"]["epochs"] for records in seeds.values() if "epochs" in records["train"]), None
        ),
        "seeds": sorted(seeds),
        "failed": {str(seed): reason for seed in sorted(seeds) if (reason := failure(seeds[seed]))},
        "chosen": choose(seeds),
        **{figure: spread(of(seeds[seed], figure) for seed in sorted(seeds)) for figure in FIGURES},
        "device": {
            device: {
                str(size): {figure: spread(figures[figure] for figures in each) for figure in LATENCIES}
                for size, each in sorted(timed(device).items())
            }
            for device in devices
        },
    }


def by_batch_size(record: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """A measurement's figures by batch size: its own, and those of further sizes if it has any; none of a failure."""
    found = [record, *record.get("by_batch_size", ())]
    return {entry["batch_size"]: entry for entry in found if entry["status"] == "ok"}


def choose(seeds: Seeds) -> int | None:
    """The seed whose weights are deployed: that of the lowest validation RMSE, never chosen by the test; None when all
    failed."""
    good = [seed for seed in sorted(seeds) if failure(seeds[seed]) is None]
    return min(good, key=lambda seed: deployed(seeds[seed]["train"], seeds[seed]["export"])["val_rmse"], default=None)
