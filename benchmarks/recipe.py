"""What parts of the training recipe are worth: moving averages of the weights, and random intensity.

Each row is a change to the recipe; columns are networks and budgets, a short training of a few hundred steps and a long
one. A cell is the lowest validation RMSE, mean and standard error over the seeds, and below the first row the change
that it makes. The same seed of another recipe draws other numbers, so rows differ by chance, too.

    python benchmarks/recipe.py [--preset realistic] [--lines 4000] [--epochs 3 20] [--seeds 3] [--json OUT]
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from simulated_clips import simulated
from tabulate import tabulate

from edgeloop import training
from edgeloop.data.cache import Split
from edgeloop.data.simulate import PRESETS
from edgeloop.records import write_json

NETWORKS = {
    "conv2d": {"family": "conv2d", "widths": [16, 32, 64]},
    "conv3d": {"family": "conv3d", "widths": [8, 16, 32], "frames": 8},
}
RECIPE = {"lr": 4e-3, "weight_decay": 0.02, "batch_size": 32}
CHANGES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "ema 0.02": {"ema": 0.02},
    "ema 0.1": {"ema": 0.1},
    "intensity 0.05": {"intensity": 0.05},
    "intensity 0.2": {"intensity": 0.2},
}


def errors(
    architecture: dict[str, Any], change: dict[str, Any], splits: tuple[Split, Split], epochs: int, seeds: int
) -> list[float]:
    """The lowest validation RMSE for each seed."""
    genotype = {"architecture": architecture, "precision": "fp32", "training": {**RECIPE, **change}}
    return [
        training.train(genotype, *splits, training.Settings(epochs=epochs, seed=seed, device="cpu"))["val_rmse"]
        for seed in range(1, seeds + 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="realistic")
    parser.add_argument("--lines", type=int, default=4000)
    parser.add_argument("--epochs", type=int, nargs="+", default=[3, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    columns = [(name, epochs) for name in NETWORKS for epochs in options.epochs]
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        splits = simulated(Path(name), PRESETS[options.preset], options.lines)
        clips = len(splits[0])
        for change, genes in CHANGES.items():
            found[change] = [
                errors(NETWORKS[network], genes, splits, epochs, options.seeds) for network, epochs in columns
            ]
    print(f"{clips} clips of preset {options.preset}, {options.seeds} seeds\n")

    def cell(values: list[float], before: list[float]) -> str:
        mean = statistics.fmean(values)
        spread = (
            f"{mean:.4f} ± {statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else f"{mean:.4f}"
        )
        return spread if values is before else f"{spread} ({mean / statistics.fmean(before) - 1:+.1%})"

    first = found["as it is"]
    table = [
        [change, *(cell(values, before) for values, before in zip(row, first, strict=True))]
        for change, row in found.items()
    ]
    steps = clips // RECIPE["batch_size"]
    print(tabulate(table, ["recipe", *(f"{network}, {epochs * steps} steps" for network, epochs in columns)]))
    if options.json:
        names = [f"{network} {epochs}" for network, epochs in columns]
        rows = {change: dict(zip(names, row, strict=True)) for change, row in found.items()}
        write_json(options.json, {"preset": options.preset, "clips": clips, "val_rmse": rows})


if __name__ == "__main__":
    main()
