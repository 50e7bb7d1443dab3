"""Write the genotype of a human-designed network: it is a candidate like any other.

in:   the baseline's entry in the config
out:  genotype.json
"""

from typing import TYPE_CHECKING

from edgeloop import config as configuration
from edgeloop import log
from edgeloop.models import registry
from edgeloop.records import SCHEMA_VERSION, candidate_id, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "baseline")
genotype = configuration.baseline_genotype(snakemake.params.baseline)
write_json(
    snakemake.output[0],
    {
        "schema_version": SCHEMA_VERSION,
        "candidate": candidate_id(genotype),
        "genotype": genotype,
        "size": registry.size(genotype["architecture"]),
    },
)
