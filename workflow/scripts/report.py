"""Make the report.

in:   the summary, the history of the search, its comparisons, and all that the finalists have come to
out:  one page that needs nothing else, and beside it its figures (PNG) and their data (CSV)
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from edgeloop import finalists, log
from edgeloop.records import read_json
from edgeloop.report import page, sections

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "report")
summary, history = read_json(snakemake.input.summary), read_json(snakemake.input.history)
states = [Path(file) for file in history["states"]]
screenings = [read_json(file) for state in states for file in sorted(state.parent.glob("screening.*.json"))]
measured = [read_json(file) for file in history["measured"]]
comparisons = {record["device"]: record for record in map(read_json, snakemake.input.comparisons)}
finals = finalists.by_seed(snakemake.input.finalists)
seeds = [records for each in finals.values() for records in each.values()]
works = {
    "screen": [record["work"] for record in screenings],
    "train": [read_json(file)["work"] for file in [*history["short"], *history["train"]]],
    "export": [read_json(file)["work"] for file in history["export"]],
    "measure": [record["work"] for record in [*measured, *comparisons.values()]],
    "finalists: train": [records["train"]["work"] for records in seeds],
    "finalists: export": [records["export"]["work"] for records in seeds],
    "finalists: measure": [record["work"] for records in seeds for record in records["measured"].values()],
    "finalists: test": [records["test"]["work"] for records in seeds],
}

predictions = examples = None
best = summary["best"]
chosen = best and best["finalist"] and best["finalist"]["chosen"]
if chosen:
    folder = Path("results/finalists") / best["candidate"] / str(chosen)
    predictions = pd.read_csv(folder / "predictions.csv")
    outputs = np.asarray(finals[best["candidate"]][chosen]["export"]["outputs"])
    clips, targets = (np.load(snakemake.input[name])[: len(outputs)] for name in ("parity", "parity_targets"))
    examples = clips, targets, outputs

state = read_json(states[-1])
run = sections.Run(summary, state, comparisons, works, [*measured, *screenings], predictions, examples)
page.write(
    snakemake.output.page,
    snakemake.output.figures,
    sections.sections(run),
    title=f"edgeloop: {summary['search']['strategy']} on {run.device}",
    facts=sections.facts(run),
    records=state["candidates"] | {entry["candidate"]: entry for entry in summary["baselines"].values()},
)
logger.info("%s, and its figures in %s", snakemake.output.page, snakemake.output.figures)
