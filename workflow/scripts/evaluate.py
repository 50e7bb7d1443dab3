"""Evaluate one training of a finalist on the test clips, which nothing else reads.

in:   its genotype, its weights, and the test split of the crop cache
out:  its errors, and a table of true and predicted speed and power; a failed training is passed on (the table is empty)
"""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeloop import final_test, log
from edgeloop.records import failed, ok, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

logger = log.start(snakemake.log[0], "evaluate")
name, seed = snakemake.wildcards.candidate, int(snakemake.wildcards.seed)
train, table = read_json(snakemake.input.train), Path(snakemake.output.predictions)
begin = time.time()
if train["status"] == "failed":
    record = failed(train["reason"])
    table.touch()
else:
    from edgeloop import evaluation, training
    from edgeloop.compute import deterministic, pick_device
    from edgeloop.data.cache import open_split
    from edgeloop.models import registry

    genotype, settings = read_json(snakemake.input.genotype)["genotype"], snakemake.params.training
    architecture, recipe = genotype["architecture"], training.Recipe.from_genes(genotype["training"])
    split, device = open_split(Path(snakemake.input.clips[0]).parent, "test"), pick_device(settings["device"])
    model = training.load(architecture, snakemake.input.weights).to(device)
    with deterministic(settings["seed"], settings["threads"], device):
        # As many as in training: a network that has the memory to train has the memory to be tested.
        size = math.ceil(recipe.batch_size / train["processes"])
        predictions = evaluation.predict(model, split, frames=registry.input_frames(architecture), batch_size=size)
    targets = np.asarray(split.targets)
    final_test.write_predictions(table, snakemake.input.index, targets, predictions)
    record = ok(clips=len(split), **final_test.judge(predictions, targets))
write_json(snakemake.output.record, {**record, "candidate": name, "number": seed, "work": [begin, time.time()]})
if record["status"] == "failed":
    logger.info("%s, seed %d: failed: %s", name, seed, record["reason"])
elif record["test_rmse"] is None:
    logger.info("%s, seed %d: there are no test clips (dataset.split.test)", name, seed)
else:
    logger.info("%s, seed %d: test RMSE %.4f", name, seed, record["test_rmse"])
