"""What successive halving saves and what it misses: networks of a space trained in full, and who would have gone on.

Networks drawn from the space are trained for all epochs; the error after each epoch is what a short training shows.
Many generations are then drawn from them, and halved after the epochs of each row. Columns: the epochs that are
trained, as a share of all; Spearman's rank correlation of the error then with the final one; how often the network of
the lowest final error goes on; the hypervolume of what goes on as a share of that of the whole generation (final error
and multiply-accumulates, which stand for the latency; up to the worst of the generation). `at random`: the same share
for as many networks drawn blindly, which is what halving has to beat.

    python benchmarks/halving.py [--config config/config.yaml] [--networks 48] [--cores 2] [--json OUT]

Data are simulated as in the configuration; with `--run FOLDER`, those of a run are taken.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import spearmanr
from tabulate import tabulate

from edgeloop import config as configuration
from edgeloop.records import candidate_id, write_json
from edgeloop.search import halving, pareto

ROOT = Path(__file__).parents[1]
GENERATION, DRAWS = 8, 400


def prepared(folder: Path, config: Path, cores: int) -> Path:
    """The crop cache of the data that `config` describes, made in `folder` by the workflow's own rules."""
    command = [sys.executable, "-m", "snakemake", "results/data/cache.json", "--cores", str(cores), "--quiet", "all"]
    command += ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", config]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return folder / "results/data"


def train(genotype: dict[str, Any], data: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The training record of one network."""
    from edgeloop import training
    from edgeloop.data.cache import open_split

    splits = open_split(data, "train"), open_split(data, "validation")
    return training.train(genotype, *splits, training.Settings(**settings))


def curves(records: list[dict[str, Any]]) -> np.ndarray:
    """[networks, epochs]: the lowest error up to each epoch."""
    return np.minimum.accumulate([[epoch["val_rmse"] for epoch in record["history"]] for record in records], axis=1)


def row(errors: np.ndarray, macs: np.ndarray, rungs: list[int], factor: int) -> dict[str, Any]:
    """What halving after `rungs` epochs does to generations drawn from the networks."""
    rng, final, epochs = np.random.default_rng(0), errors[:, -1], errors.shape[1]
    shares, kept, best, blind = [], [], [], []
    for _ in range(DRAWS):
        drawn = rng.choice(len(errors), min(GENERATION, len(errors)), replace=False)
        alive, trained, before = list(drawn), 0, 0
        for rung in rungs:
            trained += len(alive) * (rung - before)
            names = halving.promote({str(each): (errors[each, rung - 1], macs[each]) for each in alive}, factor)
            alive, before = [int(name) for name in names], rung
        shares.append((trained + len(alive) * (epochs - before)) / (len(drawn) * epochs))
        points = np.column_stack([final, macs])
        reference = points[drawn].max(0) * 1.01
        whole = pareto.hypervolume(points[drawn], reference)
        kept.append(pareto.hypervolume(points[alive], reference) / whole)
        blind.append(pareto.hypervolume(points[rng.choice(drawn, len(alive), replace=False)], reference) / whole)
        best.append(min(drawn, key=lambda each: final[each]) in alive)
    return {
        "after_epochs": rungs,
        "factor": factor,
        "epochs_share": float(np.mean(shares)),
        "rank_correlation": [float(spearmanr(errors[:, rung - 1], final).statistic) for rung in rungs],
        "best_goes_on": float(np.mean(best)),
        "hypervolume_share": float(np.mean(kept)),
        "hypervolume_share_at_random": float(np.mean(blind)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "config/config.yaml")
    parser.add_argument("--run", type=Path, help="a folder of a run with prepared data")
    parser.add_argument("--networks", type=int, default=48)
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    space = configuration.load_space(configuration.find(config["space"], Path.cwd(), ROOT))
    rng = np.random.default_rng(0)
    drawn: dict[str, dict[str, Any]] = {}
    while len(drawn) < options.networks:
        genotype = space.sample(rng)
        drawn[candidate_id(genotype)] = genotype
    settings = {"epochs": 10, **config["training"]}
    with tempfile.TemporaryDirectory() as name:
        data = options.run / "results/data" if options.run else prepared(Path(name), options.config, options.cores)
        with ProcessPoolExecutor(options.cores, mp_context=multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(train, genotype, data, settings) for genotype in drawn.values()]
            records = [job.result() for job in jobs]
    good = [record for record in records if record["status"] == "ok"]
    errors, macs = curves(good), np.array([float(record["macs"]) for record in good])
    epochs = errors.shape[1]
    plans = [([rung], factor) for rung in sorted({1, epochs // 4, epochs // 2} - {0, epochs}) for factor in (2, 4)]
    if epochs >= 4:
        plans.append(([epochs // 4, epochs // 2], 2))
    rows = [row(errors, macs, rungs, factor) for rungs, factor in plans]
    print(f"{len(good)} networks of {space.name}, {epochs} epochs, {len(records) - len(good)} failed\n")
    heads = ["after epochs", "one in", "epochs trained", "rank correlation", "best goes on", "hypervolume", "at random"]
    cells = [
        [
            ", ".join(map(str, each["after_epochs"])),
            each["factor"],
            f"{each['epochs_share']:.0%}",
            ", ".join(f"{value:.2f}" for value in each["rank_correlation"]),
            f"{each['best_goes_on']:.0%}",
            f"{each['hypervolume_share']:.1%}",
            f"{each['hypervolume_share_at_random']:.1%}",
        ]
        for each in rows
    ]
    print(tabulate(cells, heads, disable_numparse=True, colalign=["right"] * len(heads)))
    if options.json:
        write_json(options.json, {"networks": len(good), "epochs": epochs, "space": space.name, "plans": rows})


if __name__ == "__main__":
    main()
