"""Draw up the state of the search after a generation.

in:   the previous state, and all records of the generation
out:  every figure known so far, Pareto front, hypervolume, and whether the search stops
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.records import read_json, write_json
from edgeloop.search import state

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "select")


def by_candidate(files):
    return {Path(file).parent.name: read_json(file) for file in files}


def by_device(files):
    return {
        device: by_candidate(file for file in files if Path(file).name == f"measure.{device}.json")
        for device in snakemake.params.budgets
    }


after = state.advance(
    read_json(snakemake.input.state) if snakemake.input.get("state") else state.empty(),
    population=read_json(snakemake.input.population),
    screening=[read_json(file) for file in snakemake.input.screening],
    genes=read_json(snakemake.input.proposals)["to_screen"],
    train=by_candidate(snakemake.input.train),
    export=by_candidate(snakemake.input.export),
    measured=by_device(snakemake.input.measured),
    budgets=snakemake.params.budgets,
    objectives=snakemake.params.objectives,
    reference_rmse=read_json(snakemake.input.predictors)["predictors"]["mean"]["val_rmse"],
    patience=snakemake.params.patience,
    device=snakemake.params.device,
)
write_json(snakemake.output[0], after)
best = after["candidates"][after["front"][0]]["val_rmse"] if after["front"] else float("nan")
logger.info(
    "generation %d: front of %d, best RMSE %.4f, hypervolume %.4f",
    after["generation"],
    len(after["front"]),
    best,
    after["hypervolume"][-1],
)
