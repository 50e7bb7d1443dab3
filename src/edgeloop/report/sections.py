"""What the report shows, in its order: each section's table, its chart, and what is to be said of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from edgeloop.data.cache import TARGET_SCALE
from edgeloop.report import charts, tables
from edgeloop.report.importance import FEWEST, importance
from edgeloop.report.page import Section, film
from edgeloop.summary import over_budget

CLIPS_SHOWN = 6


@dataclass(frozen=True)
class Run:
    """All that the report tells of. `works` has [begin, end] of every job by stage, `measurements` every measurement
    with telemetry, `predictions` the winner's on the test clips, `examples` clips uint8 [n, T, H, W] with true and
    predicted targets [n, 2] in [900 mm/s, 215 W]; both are None where no finalist was trained."""

    summary: Mapping[str, Any]
    state: Mapping[str, Any]
    comparisons: Mapping[str, Mapping[str, Any]]
    works: Mapping[str, Iterable[Sequence[float]]]
    measurements: Sequence[Mapping[str, Any]]
    predictions: pd.DataFrame | None
    examples: tuple[np.ndarray, np.ndarray, np.ndarray] | None

    @property
    def device(self) -> str:
        """The first device, whose latency is the objective."""
        return next(iter(self.summary["devices"]))


def facts(run: Run) -> list[tuple[str, str, str]]:
    """The figures on top of the page."""
    search, best = run.summary["search"], run.summary["best"]
    found = []
    if best is not None:
        figures = best["device"][run.device]
        found.append((f"{best['val_rmse']:.4f}", "validation RMSE of the best", best["candidate"]))
        if best["test_rmse"] is not None:
            tested = best["finalist"]["test_rmse"]
            spread = "" if tested["std"] is None else f" ± {tested['std']:.4f}"
            found.append((f"{tested['mean']:.4f}{spread}", "its test RMSE", f"{len(tested['values'])} seeds"))
        found.append((f"{figures['latency_p50_ms']:.3g} ms", "its median latency", f"on {run.device}"))
        for name, against in best["against"].items():
            if (speedup := against["speedup"][run.device]) is not None:
                found.append(
                    (
                        f"{speedup:,.0f}x" if speedup >= 100 else f"{speedup:.1f}x",
                        f"faster than {name}",
                        "in the same session",
                    )
                )
    found.append((f"{search['trained']}", "networks trained", f"{search['screened']} timed untrained"))
    found.append((f"{search['wall_s'] / 60:.1f} min", "from first to last job", f"{search['strategy']}"))
    return found


def sections(run: Run) -> list[Section]:
    """The parts of the report."""
    return [
        _front(run),
        _progress(run),
        _screening(run),
        _latencies(run),
        _predictions(run),
        _examples(run),
        _importance(run),
        _timeline(run),
        _telemetry(run),
        _failures(run),
    ]


def _front(run: Run) -> Section:
    networks = tables.networks(run.state, run.summary, run.device)
    references = tables.references(networks)
    budget_ms = run.summary["devices"][run.device]["budget_ms"]
    return Section(
        "front",
        "Quality against latency",
        "Every trained network, and the baselines. A baseline that was not trained is a line at its latency: its error "
        "is unknown. The crosses, and lines again, are where the factors that the paper reports, 8.8 times faster and "
        "1.35 times the quality (arXiv:2505.19995), would lead from each baseline. Point at a network for its genes, "
        "click for its record." + "".join(f" {line}." for line in over_budget(run.summary)),
        networks,
        "No network was trained.",
        lambda: charts.front(networks, references, budget_ms, run.device),
    )


def _progress(run: Run) -> Section:
    table = tables.progress(run.state)
    return Section(
        "hypervolume",
        "Progress",
        "The hypervolume after each generation: the share of the rectangle between nothing and (the error of "
        "predicting the mean, the budget) that the front dominates.",
        table,
        "There is no generation yet.",
        lambda: charts.progress(table),
    )


def _screening(run: Run) -> Section:
    table = tables.screening(run.state)
    dropped = int(table.loc[table["fate"].isin(["over a budget", "refused by a device"]), "architectures"].sum())
    times = [entry["training_s"] for entry in run.state["candidates"].values() if entry["training_s"] is not None]
    mean_s = float(np.mean(times)) if times else 0.0
    screened_s = sum(end - begin for begin, end in run.works["screen"])
    return Section(
        "screening",
        "What the screening saved",
        f"Latency needs no training: {int(table['architectures'].sum())} architectures were timed untrained, in "
        f"{screened_s:.0f} s on the devices. {dropped} of them exceeded a budget or were refused; to train "
        f"them, at {mean_s:.1f} s each on average, would have taken {dropped * mean_s:.0f} s.",
        table,
        "Nothing was screened (screening.pool is 0).",
        lambda: charts.screening(table),
    )


def _latencies(run: Run) -> Section:
    names = {entry["candidate"]: name for name, entry in run.summary["baselines"].items()}
    names |= {
        entry["candidate"]: entry["candidate"] for entry in run.summary["front"] if entry["candidate"] not in names
    }
    table = tables.latencies(run.comparisons, names)
    return Section(
        "latencies",
        "Distribution of latencies",
        "All raw samples of the session in which front and baselines were measured side by side. A steep line is a "
        "network that takes the same time whenever it runs.",
        table,
        "Nothing was compared.",
        lambda: charts.latencies(table),
    )


def _predictions(run: Run) -> Section:
    table = tables.predictions(run.predictions) if run.predictions is not None else pd.DataFrame()
    return Section(
        "predictions",
        "Predicted against true",
        "The best network, trained on the full budget, on the test clips, which nothing else has read: the seed of the "
        "lowest validation error. Below, the residuals.",
        table,
        "No finalist was trained (finalists.count), or its training failed.",
        lambda: charts.predictions(table),
    )


def _examples(run: Run) -> Section:
    rows, pictures = [], []
    if run.examples is not None:
        clips, true, predicted = run.examples
        errors = np.sqrt(np.mean((predicted - true) ** 2, axis=1))
        places = np.linspace(0, len(errors) - 1, min(CLIPS_SHOWN, len(errors))).round().astype(int)
        for place in np.argsort(errors, kind="stable")[places]:
            told = np.array([true[place], predicted[place]]) * TARGET_SCALE
            row = {
                "clip": int(place),
                "speed_mm_s": told[0, 0],
                "power_w": told[0, 1],
                "predicted_speed_mm_s": told[1, 0],
                "predicted_power_w": told[1, 1],
            }
            rows.append(row)
            text = (
                f"speed: {row['predicted_speed_mm_s']:.0f} mm/s predicted, {row['speed_mm_s']:.0f} true; "
                f"power: {row['predicted_power_w']:.0f} W predicted, {row['power_w']:.0f} true"
            )
            pictures.append((text, film(clips[place])))
    return Section(
        "clips",
        "Example clips",
        "Validation clips with the same network's predictions, from the one that it reads best to the one that it "
        "reads worst. Time goes from left to right; brightness is drawn as its square root, as the network sees it.",
        pd.DataFrame(rows),
        "No finalist was trained (finalists.count), or its training failed.",
        pictures=pictures,
    )


def _importance(run: Run) -> Section:
    table = importance(run.state, run.device)
    return Section(
        "importance",
        "Importance of genes",
        "By how much a forest of trees predicts worse when the values of one gene are shuffled among the networks; the "
        "black lines are the spread over shuffles. With few networks this is a hint, no more.",
        table,
        f"Fewer than {FEWEST} networks: nothing can be said of their genes.",
        lambda: charts.importance(table),
    )


def _timeline(run: Run) -> Section:
    table = tables.timeline(run.works)
    waited = float((table["end_min"] - table["begin_min"])[table["stage"] == "wait"].sum())
    return Section(
        "timeline",
        "Timeline",
        f"When jobs were at work. For {waited:.1f} minutes none was: decisions, starting jobs, and pauses of the run.",
        table,
        "Nothing has run.",
        lambda: charts.timeline(table),
    )


def _telemetry(run: Run) -> Section:
    table = tables.telemetry(run.measurements)
    return Section(
        "telemetry",
        "State of the devices",
        "What the devices told of themselves before and after each measurement: load, temperatures, clocks and power, "
        "as far as they have sensors.",
        table,
        "The devices told nothing.",
        lambda: charts.telemetry(table),
    )


def _failures(run: Run) -> Section:
    finals = {entry["candidate"]: entry["finalist"]["failed"] for entry in run.summary["front"] if entry["finalist"]}
    finals |= {
        name: entry["finalist"]["failed"] for name, entry in run.summary["baselines"].items() if entry["finalist"]
    }
    return Section(
        "failures",
        "Failures",
        "A network that diverges, does not fit or cannot run on a device is a result like any other.",
        tables.failures(run.state, finals),
        "Nothing failed.",
    )
