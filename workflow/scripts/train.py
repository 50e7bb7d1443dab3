"""Train one candidate.

in:   its genotype, and the training and validation splits of the crop cache
out:  weights of the best epoch and the training record; both say so when the training failed (the weights are empty)
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop import log, training
from edgeloop.data.cache import open_split
from edgeloop.progress import progress
from edgeloop.records import read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "train")
candidate = read_json(snakemake.input.genotype)
genotype, weights = candidate["genotype"], Path(snakemake.output.weights)
settings = training.Settings(**snakemake.params.training)
folder = Path(snakemake.input.train[0]).parent
begin = time.time()
if snakemake.params.trained:
    record = training.train(
        genotype,
        open_split(folder, "train"),
        open_split(folder, "validation"),
        settings,
        weights_path=weights,
        progress=progress,
    )
else:
    record = training.initialise(genotype, weights_path=weights)
if record["status"] == "failed":
    weights.touch()
write_json(snakemake.output.record, {**record, "work": [begin, time.time()]})

name = f"{candidate['candidate']} {genotype['architecture']['family']}"
if record["status"] == "failed":
    logger.info("%s: failed: %s", name, record["reason"])
elif record["val_rmse"] is None:
    logger.info("%s: not trained, for latency only", name)
else:
    logger.info(
        "%s: RMSE %.4f (speed %.0f mm/s, power %.1f W), %.0f s",
        name,
        record["val_rmse"],
        record["val_rmse_speed_mm_s"],
        record["val_rmse_power_w"],
        record["training_s"],
    )
