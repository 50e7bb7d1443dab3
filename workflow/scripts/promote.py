"""Choose which candidates of a generation go on after a rung of successive halving.

in:   the generation's population, and the training records of all that came to this rung
out:  who goes on

Settings come from the population, which has them from the day it was decided (see sample.py).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.records import SCHEMA_VERSION, read_json, write_json
from edgeloop.search import halving

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "promote")
population, rung = read_json(snakemake.input.population), int(snakemake.wildcards.rung)
records = {Path(file).parent.name: read_json(file) for file in snakemake.input.records}
promoted = halving.decide(population, records)
write_json(
    snakemake.output[0],
    {
        "schema_version": SCHEMA_VERSION,
        "generation": population["generation"],
        "rung": rung,
        "candidates": promoted,
        "left_out": [name for name in records if name not in promoted],
    },
)
logger.info(
    "generation %d: %d of %d go on after %d epochs", population["generation"], len(promoted), len(records), rung
)
