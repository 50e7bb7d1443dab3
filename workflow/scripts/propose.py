"""Propose the networks that a generation considers.

in:   the state that the previous generation left; none for the first one
out:  genotypes that were never trained, and the architectures among them whose latency is not yet known

Settings come from the config, not from params: changing one must not undo a decision that was taken (see propose.smk).
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import config as configuration
from edgeloop import log
from edgeloop.records import SCHEMA_VERSION, architecture_id, read_json, write_json
from edgeloop.search import decide, identity, state

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "propose")
generation = int(snakemake.wildcards.gen)
search, pool = snakemake.config["search"], snakemake.config["screening"]["pool"]
previous = read_json(snakemake.input.state) if snakemake.input.get("state") else state.empty()
earlier = read_json(snakemake.input.warm_start)
space_file = configuration.find(snakemake.config["space"], Path.cwd(), Path(snakemake.scriptdir).resolve().parents[1])

proposals = []
if not previous["stop"]:
    space = configuration.load_space(space_file)
    proposals = decide.propose(
        decide.known(snakemake.config, space, previous, earlier),
        name=search["strategy"],
        options=search["options"],
        seed=search["seed"],
        generation=generation,
        count=pool or search["generation_size"],
    )
    logger.info("generation %d: %d networks proposed by %s", generation, len(proposals), search["strategy"])
else:
    logger.info("the search ends after %d generations: %s", generation, previous["reason"])

unknown = {architecture_id(genotype): genotype for genotype in proposals} if pool else {}
write_json(
    snakemake.output[0],
    {
        "schema_version": SCHEMA_VERSION,
        "generation": generation,
        "decided_at": time.time(),
        "search": identity.identity(snakemake.config, space_file),
        "settings": decide.settings(snakemake.config, earlier),
        "parent": previous["lineage"],
        "stop": previous["stop"],
        "reason": previous["reason"],
        "proposals": proposals,
        "to_screen": {
            name: {"architecture": genotype["architecture"], "precision": genotype["precision"]}
            for name, genotype in unknown.items()
            if name not in previous["screened"]
        },
    },
)
