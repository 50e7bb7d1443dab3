"""A test double of training, for benchmarks/search_workflow.py and the tests only: in a copy of the workflow it is the
script of `train` and `train_pack`.

in:   genotypes; no data are read
out:  untrained weights, so that everything behind training is real, and a record with a made-up loss

The loss depends on the genes as one would expect of training: more computing helps ever less, each family and each
gene has its worth, the best learning rate depends on batch size and depth, some genes only help together, and two
trainings differ by chance, here by the candidate's id. What it says of real networks is nothing.
"""

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.records import Genotype, candidate_id, digest, read_json, write_json

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

FLOOR = 0.08
FAMILIES = {"conv2d": 0.0, "conv3d": -0.06, "conv2d_temporal": 0.02, "swin3d": 0.05, "moments": 0.0, "motion": -0.03}
CHANCE = 0.015  # standard deviation of the logarithm, as trainings with different seeds have


def loss(genotype: Genotype, macs: int) -> float:
    """A made-up validation RMSE of a network with so many multiplications for a clip."""
    genes, recipe = genotype["architecture"], genotype["training"]
    merit = FAMILIES[genes["family"]]
    merit += 1.2 * (macs / 1e5) ** -0.35
    merit += 0.10 * abs(math.log2(genes["pixels"] / 33)) + 0.08 * abs(math.log2(genes["frames"] / 12))
    merit -= 0.06 * (genes.get("activation") == "silu")
    merit -= 0.08 * (genes.get("pooling") == "flatten") * (genes["pixels"] >= 33)
    merit += 0.05 * (genes.get("convolution") == "separable") - 0.04 * (genes.get("kernel") == 5)
    merit -= 0.03 * len(genes.get("head", [])) + 0.05 * (genes.get("temporal") == "gru")
    merit += 0.25 * genes.get("dropout", 0.0)
    best_lr = 3e-3 * math.sqrt(recipe["batch_size"] / 32) / (1.5 if genes["family"] == "swin3d" else 1.0)
    merit += 0.12 * math.log(recipe["lr"] / best_lr) ** 2
    merit += 0.02 * abs(math.log(recipe["weight_decay"] / 1e-2)) - 0.05 * bool(recipe.get("augment"))
    chance = _normal(candidate_id(genotype))
    return FLOOR + 0.3 / (1 + math.exp(-2.0 * merit)) * math.exp(CHANCE * chance)


def _normal(name: str) -> float:
    """A number that seems drawn from the standard normal distribution, the same for the same name."""
    uniform = [(int(digest([name, k]), 16) + 0.5) / 16**12 for k in range(2)]
    return math.sqrt(-2 * math.log(uniform[0])) * math.cos(2 * math.pi * uniform[1])


def train(genotype: Genotype, weights: Path) -> dict[str, Any]:
    """The record of a training that did not take place."""
    from edgeloop import training

    begin = time.time()
    record = training.initialise(genotype, weights_path=weights)
    merit = loss(genotype, record["macs"])
    made_up = {"val_rmse": merit, "val_rmse_speed_mm_s": 900 * merit, "val_rmse_power_w": 215 * merit}
    return {**record, **made_up, "training_s": time.time() - begin, "work": [begin, time.time()]}


def main(rule: str, inputs: Any, outputs: Any) -> None:
    if rule == "train":
        write_json(outputs.record, train(read_json(inputs.genotype)["genotype"], Path(outputs.weights)))
        return
    folder = Path(outputs[0])
    folder.mkdir(parents=True)
    for entry in map(read_json, inputs.genotypes):
        name, genotype = entry["candidate"], entry["genotype"]
        write_json(folder / f"{name}.json", train(genotype, folder / f"{name}.pt"))


if "snakemake" in globals():
    main(snakemake.rule, snakemake.input, snakemake.output)
