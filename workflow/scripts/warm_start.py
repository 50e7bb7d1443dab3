"""Gather what earlier runs have found, for the strategy to learn from.

in:   folders, archives or state files of earlier runs (`search.warm_start`)
out:  their trained candidates with their losses
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import config as configuration
from edgeloop import log
from edgeloop.records import write_json
from edgeloop.search import warm_start

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "warm_start")
folders = Path.cwd(), Path(snakemake.scriptdir).resolve().parents[1]
runs = [warm_start.read(configuration.find(path, *folders) or Path(path)) for path in snakemake.params.runs]
write_json(snakemake.output[0], warm_start.record(runs))
for path, run in zip(snakemake.params.runs, runs, strict=True):
    logger.info("%s: %d results to learn from", path, len(run["results"]))
