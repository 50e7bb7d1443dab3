"""Write down which files the history of the search consists of.

in:   every state and every record, of candidates and baselines, up to the generation in which the search stopped
out:  their paths, by kind, for the rules that look at the search as a whole
"""

from typing import TYPE_CHECKING

from edgeloop import log
from edgeloop.records import ok, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "conclude")
records = {kind: [*snakemake.input.get(kind, []), *baselines] for kind, baselines in snakemake.params.baselines.items()}
write_json(
    snakemake.output[0],
    ok(states=list(snakemake.input.states), short=list(snakemake.input.get("short", [])), **records),
)
logger.debug("%d generations", len(snakemake.input.states))
