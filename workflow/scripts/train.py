"""Train one candidate.

in:   its genotype, and the training and validation splits of the crop cache
out:  weights of the best epoch and the training record; both say so when the training failed (the weights are empty)
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import attempts, log
from edgeloop.progress import progress
from edgeloop.records import candidate_id, failed, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "train")
candidate = read_json(snakemake.input.genotype)
genotype, weights = candidate["genotype"], Path(snakemake.output.weights)
begin = time.time()
if reason := attempts.given_up(snakemake.resources.attempt):
    record = failed(f"training {reason}", candidate=candidate_id(genotype))
else:
    # Imported here: what gave up for want of memory must still fit to say so.
    from edgeloop import distributed, training
    from edgeloop.data.cache import open_split
    from edgeloop.data.node_local import local_copy

    settings = training.Settings(**snakemake.params.training)
    folder, nodes = Path(snakemake.input.train[0]).parent, snakemake.resources.get("nodes", 1)
    processes = snakemake.params.processes
    if not snakemake.params.trained:
        record = training.initialise(genotype, weights_path=weights)
    elif processes > 1:
        if nodes == 1:
            folder = local_copy(folder, snakemake.config["dataset"]["node_local"], say=logger.info)
        record = distributed.train(genotype, folder, settings, processes=processes, nodes=nodes, weights_path=weights)
    else:
        folder = local_copy(folder, snakemake.config["dataset"]["node_local"], say=logger.info)
        record = training.train(
            genotype,
            open_split(folder, "train"),
            open_split(folder, "validation"),
            settings,
            weights_path=weights,
            progress=progress,
        )
if record["status"] == "failed":
    weights.touch()
write_json(snakemake.output.record, {**record, "work": [begin, time.time()]})
log.trained(logger, f"{candidate['candidate']} {genotype['architecture']['family']}", record)
