"""Evaluate one training of a finalist on the test clips, which nothing else reads.

in:   its genotype, its weights, its ONNX file, and the test split of the crop cache
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
genotype, begin = read_json(snakemake.input.genotype)["genotype"], time.time()
stages = [train] if genotype["precision"] == "fp32" else [train, read_json(snakemake.input.export)]
if reason := next((stage["reason"] for stage in stages if stage["status"] == "failed"), None):
    record = failed(reason)
    table.touch()
else:
    from edgeloop import evaluation, export, training
    from edgeloop.compute import deterministic, pick_device
    from edgeloop.data.cache import open_split, window
    from edgeloop.models import registry

    architecture, settings = genotype["architecture"], snakemake.params.training
    split, frames = open_split(Path(snakemake.input.clips[0]).parent, "test"), registry.input_frames(architecture)
    if genotype["precision"] == "fp32":
        device, recipe = pick_device(settings["device"]), training.Recipe.from_genes(genotype["training"])
        model = training.load(architecture, snakemake.input.weights).to(device)
        with deterministic(settings["seed"], settings["threads"], device):
            # As many as in training: a network that has the memory to train has the memory to be tested.
            size = math.ceil(recipe.batch_size / train["processes"])
            predictions = evaluation.predict(model, split, frames=frames, batch_size=size)
    else:
        # What is deployed is another network than the one that was trained.
        predictions = export.run(snakemake.input.model, window(split.clips, frames))
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
