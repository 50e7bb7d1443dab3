"""Write the figures that a user is shown.

in:   the history of the search, and what its networks are compared with
out:  summary.json; the same as a table is printed when the run ends
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import finalists, log, summary
from edgeloop.records import read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

log.start(snakemake.log[0], "summarise")
history = read_json(snakemake.input.history)


def records(files):
    return {Path(file).parent.name: read_json(file) for file in files}


def by_device(files):
    return {Path(file).name.split(".")[-2]: read_json(file) for file in files}


devices = list(by_device(snakemake.input.comparisons))
write_json(
    snakemake.output[0],
    summary.build(
        state=read_json(history["states"][-1]),
        decisions=[
            {part: read_json(Path(state).with_name(f"{part}.json")) for part in ("proposals", "population")}
            for state in history["states"]
        ],
        screening=[
            read_json(Path(state).with_name(f"screening.{name}.json"))
            for state in history["states"]
            for name in devices
        ],
        short=[read_json(file) for file in history["short"]],
        train=records(history["train"]),
        export=records(history["export"]),
        measured={
            device: records(file for file in history["measured"] if file.endswith(f".{device}.json"))
            for device in devices
        },
        comparisons=by_device(snakemake.input.comparisons),
        enrolments=by_device(snakemake.input.enrolments),
        cache=read_json(snakemake.input.cache),
        predictors=read_json(snakemake.input.predictors)["predictors"],
        baselines=snakemake.params.baselines,
        genotypes={
            name: read_json(Path("results/candidates") / name / "genotype.json")["genotype"]
            for name in snakemake.params.baselines
        },
        search=snakemake.params.search,
        finals=finalists.by_seed(snakemake.input.finalists),
    ),
)
