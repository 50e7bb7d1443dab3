"""How much a strategy finds on the product's own space: the whole workflow, with a made-up loss in place of training.

The real Snakemake runs whole searches of config/spaces/meltpool.yaml on this machine: proposals, untrained exports,
their measurement, decisions, exports and measurements are what they always are. Only training is replaced, by
benchmarks/simulated_trainer.py, so that a search takes minutes. `nevergrad` runs without screening, as in the paper.

    python benchmarks/search_workflow.py [--strategies gp-ehvi,evolution,nevergrad] [--seeds 5] [--generations 6]
                                         [--size 6] [--pool 24] [--budget-ms 0.3] [--cores 2] [--folder DIR]
                                         [--json OUT]

Hypervolume in (RMSE / that of predicting the mean, latency / budget), as the workflow's own state has it, after each
generation; mean and standard error over the seeds. With --folder the runs stay there, and what was finished is not
run again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from scale import ROOT, copy_of_workflow, snakemake
from search import mean_and_error
from tabulate import tabulate

WITHOUT_SCREENING = ("nevergrad",)


def configuration(strategy: str, seed: int, asked: argparse.Namespace) -> dict[str, Any]:
    config = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())
    config["search"] = {
        "strategy": strategy,
        "seed": seed,
        "max_generations": asked.generations,
        "generation_size": asked.size,
        "patience": asked.generations,
    }
    config["training"]["pack"] = asked.size
    config["devices"]["this-machine"]["budget_ms"] = asked.budget_ms
    pool = 0 if strategy in WITHOUT_SCREENING else asked.pool
    rest = {"screening": {"pool": pool}, "baselines": {}, "finalists": {"count": 0}}
    return config | {"space": "space.yaml"} | rest


def space(source: Path) -> dict[str, Any]:
    """config/spaces/meltpool.yaml in fp32: what int8 loses is measured, on weights that mean nothing here."""
    return yaml.safe_load((source / "config/spaces/meltpool.yaml").read_text()) | {"precision": ["fp32"]}


def hypervolumes(folder: Path, generations: int) -> list[float]:
    """After each generation; a search that ended before stays where it was."""
    state = json.loads(sorted((folder / "results/generations").glob("*/state.json"))[-1].read_text())
    found = state["hypervolume"]
    return found + [found[-1]] * (generations - len(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="gp-ehvi,evolution,nevergrad")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--generations", type=int, default=6)
    parser.add_argument("--size", type=int, default=6)
    parser.add_argument("--pool", type=int, default=24)
    parser.add_argument("--budget-ms", type=float, default=0.3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", metavar="OUT")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = asked.folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        source = place / "workflow"
        if not source.exists():
            copy_of_workflow(source, ("train", "train_pack"), "simulated_trainer.py")
        results = []
        for seed in range(1, asked.seeds + 1):
            for strategy in asked.strategies.split(","):
                folder = place / f"{strategy}-{seed}"
                folder.mkdir(exist_ok=True)
                if (prepared := place / "prepared").exists():
                    shutil.copytree(prepared, folder, dirs_exist_ok=True)
                (folder / "space.yaml").write_text(yaml.safe_dump(space(source), sort_keys=False))
                (folder / "config.yaml").write_text(yaml.safe_dump(configuration(strategy, seed, asked)))
                if not prepared.exists():  # data and enrolment are the same for all
                    targets = [
                        "results/data/cache.json",
                        "results/predictors.json",
                        "results/devices/this-machine.json",
                    ]
                    snakemake(source, folder, *targets, "--cores", str(asked.cores))
                    shutil.copytree(folder, prepared)
                wall_s = snakemake(source, folder, "--cores", str(asked.cores))["wall_s"]
                found = hypervolumes(folder, asked.generations)
                results.append({"strategy": strategy, "seed": seed, "hypervolume": found, "wall_s": wall_s})
                print(f"{strategy} {seed}: {found[-1]:.4f}, {wall_s:.0f} s", file=sys.stderr, flush=True)
    report(results, asked)
    if asked.json:
        Path(asked.json).write_text(json.dumps(results, indent=1) + "\n")


def report(results: list[dict[str, Any]], asked: argparse.Namespace) -> None:
    rows = []
    for strategy in asked.strategies.split(","):
        found = [each["hypervolume"] for each in results if each["strategy"] == strategy]
        rows.append([strategy, *(f"{m:.4f} ± {e:.4f}" for m, e in zip(*mean_and_error(found, axis=0), strict=True))])
    heads = ["strategy", *(f"after {asked.size * number}" for number in range(1, asked.generations + 1))]
    print(
        f"Hypervolume after so many (simulated) trainings, {asked.seeds} seeds, "
        f"budget {asked.budget_ms} ms on this machine"
    )
    print(tabulate(rows, heads, disable_numparse=True))


if __name__ == "__main__":
    main()
