"""The figures that a user is shown: summary.json, and the table that a run ends with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from edgeloop import finalists
from edgeloop.precision import deployed
from edgeloop.records import SCHEMA_VERSION, Genotype

QUALITY = ("val_rmse", "val_rmse_speed_mm_s", "val_rmse_power_w")
LATENCY = ("latency_ms", "latency_p50_ms", "latency_p99_ms")
DEVICE = (*LATENCY, "rmse", "rmse_pytorch", "peak_memory_mb", "energy_mj_per_inference")
Records = Mapping[str, Mapping[str, Any]]


def build(
    *,
    state: Mapping[str, Any],
    decisions: Sequence[Mapping[str, Mapping[str, Any]]],
    screening: Sequence[Mapping[str, Any]],
    short: Sequence[Mapping[str, Any]],
    train: Records,
    export: Records,
    measured: Mapping[str, Records],
    comparisons: Records,
    enrolments: Records,
    cache: Mapping[str, Any],
    predictors: Records,
    baselines: Mapping[str, str],
    genotypes: Mapping[str, Genotype],
    search: Mapping[str, Any],
    finals: Mapping[str, finalists.Seeds],
) -> dict[str, Any]:
    """Everything in summary.json.

    `baselines` gives the baselines' names by candidate id, `genotypes` their genotypes; `measured` and `comparisons`
    are by device; `short` has the records of trainings up to a rung, `finals` what finalists and baselines have come to
    on the full budget. The best candidate is the one of the lowest validation RMSE in the search that meets every
    budget; None where no candidate does. A figure that was not measured is None.
    """
    known = {name: entry["genotype"] for name, entry in state["candidates"].items()} | dict(genotypes)

    def side_by_side(device: str, name: str) -> dict[str, Any]:
        # Latencies of one session for all that is shown together: a machine has slower and faster hours.
        compared = comparisons.get(device, {"candidates": {}})["candidates"].get(name, {})
        return {**measured[device][name], **{figure: compared[figure] for figure in LATENCY if figure in compared}}

    def entry(name: str) -> dict[str, Any]:
        final = finalists.together(finals[name]) if name in finals else None
        figures = {device: side_by_side(device, name) for device in measured}
        return _entry(name, known[name], deployed(train[name], export[name]), figures, final)

    shown = {baselines[name]: entry(name) for name in baselines}
    front = [
        {**entry(name), "against": {label: _against(entry(name), other, comparisons) for label, other in shown.items()}}
        for name in state["front"]
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": {
            "source": cache["source"],
            **{f"{split}_clips": cache["splits"][split]["clips"] for split in ("train", "validation", "test")},
        },
        "devices": {
            device: {
                "fingerprint": enrolment["fingerprint"],
                "budget_ms": state["budgets"].get(device, {}).get("latency_ms"),
            }
            for device, enrolment in enrolments.items()
        },
        "predictors": {name: {figure: value[figure] for figure in QUALITY} for name, value in predictors.items()},
        "baselines": shown,
        "best": front[0] if front else None,
        "front": front,
        "search": _search(state, decisions, screening, short, train, export, measured, search),
    }


def _entry(
    name: str, genotype: Genotype, train: Mapping[str, Any], measured: Records, final: Mapping[str, Any] | None
) -> dict[str, Any]:
    tested = final and final["test_rmse"]
    return {
        "candidate": name,
        "family": genotype["architecture"]["family"],
        "genotype": genotype,
        "parameters": train.get("parameters"),
        "macs": train.get("macs"),
        **{figure: train.get(figure) for figure in QUALITY},
        "test_rmse": tested["mean"] if tested else None,
        "device": {device: {figure: record.get(figure) for figure in DEVICE} for device, record in measured.items()},
        "finalist": final,
    }


def _against(entry: Mapping[str, Any], other: Mapping[str, Any], comparisons: Records) -> dict[str, Any]:
    def gain(figure: str) -> float | None:
        both = entry[figure], other[figure]
        return None if None in both else other[figure] / entry[figure]

    return {
        "speedup": {
            device: _speedup(comparison["candidates"], entry["candidate"], other["candidate"])
            for device, comparison in comparisons.items()
        },
        "quality_gain": gain("val_rmse"),
        "test_quality_gain": gain("test_rmse"),
    }


def _speedup(records: Records, name: str, other: str) -> float | None:
    """How many times faster `name` is than `other`: both related to the reference model of the same session."""
    ratios = [records.get(key, {}).get("ratio") for key in (other, name)]
    return None if None in ratios else ratios[0] / ratios[1]


def _search(
    state: Mapping[str, Any],
    decisions: Sequence[Mapping[str, Mapping[str, Any]]],
    screening: Sequence[Mapping[str, Any]],
    short: Sequence[Mapping[str, Any]],
    train: Records,
    export: Records,
    measured: Mapping[str, Records],
    search: Mapping[str, Any],
) -> dict[str, Any]:
    candidates = state["candidates"]
    in_full = [name for name in candidates if name in train]
    stages = {
        "screen": screening,
        "train": [*short, *(train[name] for name in in_full)],
        "export": [export[name] for name in in_full],
        "measure": [records[name] for records in measured.values() for name in in_full],
    }
    spans = [record["work"] for records in stages.values() for record in records]
    spans = [span for span in spans if span[0] >= decisions[0]["proposals"]["decided_at"]]
    work_s, wall_s = _covered(spans), _extent([*spans, [decisions[0]["proposals"]["decided_at"]] * 2])
    dropped = sum(entry["status"] == "dropped" for entry in candidates.values())
    trained = [entry for entry in candidates.values() if entry["status"] == "ok"]
    if state["stop"]:
        stopped = "patience"
    else:
        stopped = "max_generations" if state["generation"] + 1 >= search["max_generations"] else "no_more_proposals"
    return {
        "strategy": search["strategy"],
        "seed": search["seed"],
        "generations": state["generation"] + 1,
        "stopped": stopped,
        "proposed": sum(decision["population"]["proposed"] for decision in decisions),
        "screened": sum(len(record["architectures"]) for record in screening),
        "trained": len(candidates) - dropped,
        "dropped": dropped,
        "failed": len(candidates) - dropped - len(trained),
        "trained_infeasible": sum(not entry["feasible"] for entry in trained),
        "hypervolume": state["hypervolume"],
        "device_s": _seconds(stages["screen"]) + _seconds(stages["measure"]),
        "training_s": _seconds(stages["train"]),
        "overhead_s": wall_s - work_s,
        "wall_s": wall_s,
    }


def _seconds(records: Iterable[Mapping[str, Any]]) -> float:
    return sum(end - begin for begin, end in (record["work"] for record in records))


def _extent(spans: Sequence[Sequence[float]]) -> float:
    return max(end for _, end in spans) - min(begin for begin, _ in spans)


def _covered(spans: Sequence[Sequence[float]]) -> float:
    """Seconds in which at least one of `spans` lasts."""
    covered, upto = 0.0, float("-inf")
    for begin, end in sorted(spans):
        covered += max(0.0, end - max(begin, upto))
        upto = max(upto, end)
    return covered


# ---------------------------------------------------------------- the table


def table(summary: Mapping[str, Any]) -> str:
    """The summary as text: predictors, baselines and the front side by side, then what the search did."""
    return "\n\n".join([_networks(summary), *_verdicts(summary), _account(summary)])


def over_budget(summary: Mapping[str, Any]) -> list[str]:
    """What to say of networks that met their budget in the search, and do not in the session of the comparison."""
    return [
        f"{entry['candidate']} met the budget of {budget_ms:g} ms on {device} in the search, but its latency_ms is "
        f"{latency_ms:.4g} in this last session: where that is a hard limit, search with a smaller budget"
        for device, about in summary["devices"].items()
        for entry in summary["front"]
        if (budget_ms := about["budget_ms"]) is not None
        and (latency_ms := entry["device"][device]["latency_ms"]) is not None
        and latency_ms > budget_ms
    ]


def _networks(summary: Mapping[str, Any]) -> str:
    device = next(iter(summary["devices"]))
    rows = [
        [f"predict by {name}", *[None] * 3, *map(value.get, QUALITY), None, None, None]
        for name, value in summary["predictors"].items()
    ]
    rows += [[name, *_cells(entry, device)] for name, entry in summary["baselines"].items()]
    for number, entry in enumerate(summary["front"]):
        rows.append([f"{entry['candidate']}{' (best)' if number == 0 else ''}", *_cells(entry, device)])
    heads = ["", "family", "parameters", "MMAC", "val RMSE", "speed mm/s", "power W", "test RMSE", "p50 ms", "p99 ms"]
    return f"On {device}:\n" + tabulate(
        rows,
        heads,
        intfmt=",",
        floatfmt=("", "", ",.0f", ",.1f", ".4f", ".0f", ".1f", "", ".4g", ".4g"),
        missingval="-",
        disable_numparse=[heads.index("test RMSE")],
        colalign=("left", "left", *["right"] * 8),
    )


def _cells(entry: Mapping[str, Any], device: str) -> list[Any]:
    macs = None if entry["macs"] is None else entry["macs"] / 1e6
    figures = entry["device"][device]
    return [
        entry["family"],
        entry["parameters"],
        macs,
        *map(entry.get, QUALITY),
        _with_spread(entry["finalist"] and entry["finalist"]["test_rmse"]),
        figures["latency_p50_ms"],
        figures["latency_p99_ms"],
    ]


def _with_spread(figure: Mapping[str, Any] | None) -> str | None:
    if figure is None:
        return None
    return f"{figure['mean']:.4f}" + ("" if figure["std"] is None else f" ± {figure['std']:.4f}")


def _verdicts(summary: Mapping[str, Any]) -> list[str]:
    best = summary["best"]
    if best is None:
        return ["No trained candidate meets the budgets."]
    lines = []
    for name, against in best["against"].items():
        found = [
            f"{_ratio(speedup, 'faster', 'slower')} on {device}"
            for device, speedup in against["speedup"].items()
            if speedup is not None
        ]
        gain = against["quality_gain"]
        unknown = "its quality is unknown, it was measured for latency only"
        found.append(unknown if gain is None else f"RMSE {_ratio(gain, 'lower', 'higher')}")
        if against["test_quality_gain"] is not None:
            found.append(f"test RMSE {_ratio(against['test_quality_gain'], 'lower', 'higher')}")
        lines.append(f"best against {name}: {'; '.join(found)}")
    for name, value in summary["predictors"].items():
        gain = value["val_rmse"] / best["val_rmse"]
        lines.append(f"best against predicting by {name}: RMSE {_ratio(gain, 'lower', 'higher')}")
    return ["\n".join([*lines, *over_budget(summary)])]


def _ratio(value: float, above: str, below: str) -> str:
    times, word = (value, above) if value >= 1 else (1 / value, below)
    return f"{times:,.0f}x {word}" if times >= 100 else f"{times:.2f}x {word}"


def _account(summary: Mapping[str, Any]) -> str:
    search = summary["search"]
    dropped = f", {search['dropped']} left out early" if search["dropped"] else ""
    return (
        f"{search['strategy']}, seed {search['seed']}: {search['generations']} generations, "
        f"ended by {search['stopped']}; "
        f"{search['proposed']} proposed, {search['screened']} screened, {search['trained']} trained, "
        f"{search['failed']} failed, {search['trained_infeasible']} trained over budget{dropped}\n"
        f"hypervolume by generation: {', '.join(f'{value:.4f}' for value in search['hypervolume'])}\n"
        f"training {search['training_s']:.0f} s, device {search['device_s']:.0f} s, "
        f"wall {search['wall_s']:.0f} s of which {search['overhead_s']:.0f} s without work under way"
    )
