"""Choose the networks of the front that are trained on the full budget.

in:   the history of the search
out:  their ids; none when no candidate meets the budgets
"""

from typing import TYPE_CHECKING

from edgeloop import finalists, log
from edgeloop.records import ok, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "nominate")
last = read_json(read_json(snakemake.input[0])["states"][-1])
settings = snakemake.params.finalists
candidates = finalists.nominate(last, settings["count"], settings["rule"])
write_json(snakemake.output[0], ok(**settings, candidates=candidates))
logger.info("%d of %d networks of the front: %s", len(candidates), len(last["front"]), ", ".join(candidates) or "none")
