"""Train one candidate, in full or up to a rung of successive halving.

in:   its genotype, the training and validation splits of the crop cache, and the checkpoint to go on from, if any
out:  the training record, and the weights of the best epoch or, at a rung, a checkpoint to go on from (empty when the
      training failed)
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
genotype, made = candidate["genotype"], Path(snakemake.output[1])
rung = snakemake.wildcards.get("rung")
before, start = snakemake.input.get("start") or (None, None)
begin = time.time()
if reason := attempts.given_up(snakemake.resources.attempt):
    record = failed(f"training {reason}", candidate=candidate_id(genotype))
elif before and read_json(before)["status"] == "failed":
    record = failed(read_json(before)["reason"], candidate=candidate_id(genotype))
else:
    # Imported here: what gave up for want of memory must still fit to say so.
    from edgeloop import distributed, training
    from edgeloop.data.cache import open_split
    from edgeloop.data.node_local import local_copy

    settings = training.Settings(**snakemake.params.training)
    folder, nodes = Path(snakemake.input.train[0]).parent, snakemake.resources.get("nodes", 1)
    processes = snakemake.params.processes
    leg = training.Leg(start, int(rung), made) if rung else training.Leg(start)
    weights = None if rung else made
    if not snakemake.params.trained:
        record = training.initialise(genotype, weights_path=made)
    elif processes > 1:
        if nodes == 1:
            folder = local_copy(folder, snakemake.config["dataset"]["node_local"], say=logger.info)
        record = distributed.train(
            genotype, folder, settings, leg=leg, processes=processes, nodes=nodes, weights_path=weights
        )
    else:
        folder = local_copy(folder, snakemake.config["dataset"]["node_local"], say=logger.info)
        record = training.train(
            genotype,
            open_split(folder, "train"),
            open_split(folder, "validation"),
            settings,
            leg=leg,
            weights_path=weights,
            progress=progress,
        )
if record["status"] == "failed":
    made.touch()
write_json(snakemake.output.record, {**record, "work": [begin, time.time()]})
log.trained(logger, f"{candidate['candidate']} {genotype['architecture']['family']}", record)
