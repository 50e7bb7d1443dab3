"""Choose which proposals to train.

in:   the previous state, the proposals and their screening on each device
out:  the generation's population, empty when the search has ended; and, beside it, genotype.json of each candidate

Settings come from the config, not from params: changing one must not undo a decision that was taken (see propose.smk).
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import config as configuration
from edgeloop import log
from edgeloop.models import registry
from edgeloop.records import SCHEMA_VERSION, architecture_id, candidate_id, read_json, write_json
from edgeloop.search import decide, state
from edgeloop.search.costs import violation

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "sample")
search = snakemake.config["search"]
previous = read_json(snakemake.input.state) if snakemake.input.get("state") else state.empty()
proposals, earlier = read_json(snakemake.input.proposals), read_json(snakemake.input.warm_start)
screening = snakemake.config["screening"]["pool"] > 0
space = configuration.load_space(
    configuration.find(snakemake.config["space"], Path.cwd(), Path(snakemake.scriptdir).resolve().parents[1])
)
records = [read_json(file) for file in snakemake.input.screening]
known = decide.known(
    snakemake.config,
    space,
    state.with_screening(previous, records, proposals["to_screen"]),
    earlier,
)
costs = {name: architecture.costs for name, architecture in known.screened.items()}

chosen = decide.choose(
    known,
    proposals["proposals"],
    name=search["strategy"],
    options=search["options"],
    seed=search["seed"],
    generation=proposals["generation"],
    count=search["generation_size"],
    screening=screening,
)
reason = proposals["reason"]
if not chosen and not proposals["stop"]:
    reason = "no proposal meets the budgets" if proposals["proposals"] else "the space is exhausted"
    logger.info("the search ends: %s", reason)
for genotype in chosen:
    name = candidate_id(genotype)
    write_json(
        Path("results/candidates") / name / "genotype.json",
        {
            "schema_version": SCHEMA_VERSION,
            "candidate": name,
            "genotype": genotype,
            "size": registry.size(genotype["architecture"]),
        },
    )
write_json(
    snakemake.output.population,
    {
        "schema_version": SCHEMA_VERSION,
        "generation": proposals["generation"],
        "decided_at": time.time(),
        "settings": decide.settings(snakemake.config, earlier),
        "parent": proposals["parent"],
        "candidates": [candidate_id(genotype) for genotype in chosen],
        "genotypes": chosen,
        "reason": reason,
        "devices": list(known.budgets),
        "costs": [known.objective_costs(costs.get(architecture_id(genotype), {})) for genotype in chosen],
        "halving": search["halving"],
        "pack": snakemake.config["training"]["pack"],
        "proposed": len(proposals["proposals"]),
        "feasible": sum(
            violation(costs.get(architecture_id(genotype), {}), known.budgets) <= 0
            for genotype in proposals["proposals"]
        )
        if screening
        else None,
    },
)
if chosen:
    logger.info("generation %d: %d to train", proposals["generation"], len(chosen))
