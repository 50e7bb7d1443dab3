"""What packing gains: how long small trainings and their exports take with the real Snakemake, by `training.pack`.

Data and one generation are prepared once and copied for each pack size, so that all train the same networks. Of the
wall time, what Snakemake needs to find that nothing is left to do is taken off: a search pays it once, however long.
Where there is CUDA, the trainings run on the CPU first and then on the GPU.

    python benchmarks/packing.py [--candidates 16] [--packs 1,2,4,8] [--rounds 1] [--cores 2] [--json OUT]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from tabulate import tabulate

from edgeloop.compute import describe, pick_device
from edgeloop.records import read_json, write_json

ROOT = Path(__file__).parents[1]


def run(folder: Path, cores: int, *targets: str) -> float:
    """Seconds of one run of the workflow in `folder`."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", str(cores), "--quiet", "all"]
    command += ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def packed_s(prepared: Path, config: dict, pack: int, cores: int) -> float:
    """Seconds that all trainings and exports of the prepared generation take in packs of `pack`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        shutil.copytree(prepared, folder)
        config["training"]["pack"] = pack
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        file = folder / "results/generations/000/population.json"
        population = read_json(file)
        write_json(file, population | {"pack": pack})
        records = [f"results/candidates/{candidate}/export.json" for candidate in population["candidates"]]
        wall_s = run(folder, cores, *records)
        made_at = {record: (folder / record).stat().st_mtime_ns for record in records}
        failed = [record for record in records if read_json(folder / record)["status"] != "ok"]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(records)} networks failed, first {failed[0]} with pack {pack}")
        idle_s = run(folder, cores, *records)
        if any((folder / record).stat().st_mtime_ns != at for record, at in made_at.items()):
            raise RuntimeError(
                "the second run made records again: were the sources edited meanwhile? Measure once more"
            )
        return wall_s - idle_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--packs", type=lambda text: [int(pack) for pack in text.split(",")], default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=1, help="the median counts")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())
    config |= {"baselines": {}, "finalists": {"count": 0}, "screening": {"pool": 0}}
    config["search"] |= {"max_generations": 1, "generation_size": options.candidates}
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        run(folder, options.cores, "results/generations/000/population.json", "results/predictors.json")
        for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
            config["training"]["device"] = device
            seconds: dict[int, list[float]] = {pack: [] for pack in options.packs}
            for _ in range(options.rounds):
                for pack in options.packs:  # in turns, so that what disturbs the machine disturbs all
                    seconds[pack].append(packed_s(folder, config, pack, options.cores))
            medians = {pack: statistics.median(rounds) for pack, rounds in seconds.items()}
            for pack, median in medians.items():
                results.append(
                    {
                        "device": describe(pick_device(device)),
                        "pack": pack,
                        "s": median,
                        "trainings_per_hour": 3600 * options.candidates / median,
                        "gain": medians[options.packs[0]] / median,
                        "rounds_s": seconds[pack],
                    }
                )
    rows = [
        [row["device"], row["pack"], row["s"], row["s"] / options.candidates, row["trainings_per_hour"], row["gain"]]
        for row in results
    ]
    headers = ["device", "pack", "s", "s each", "trainings/h", f"gain over pack {options.packs[0]}"]
    print(f"{options.candidates} trainings and exports on {options.cores} cores, {options.rounds} rounds:\n")
    print(tabulate(rows, headers, floatfmt=("", "", ".1f", ".2f", ".0f", ".2f")))
    if options.json:
        figures = {"candidates": options.candidates, "cores": options.cores, "results": results}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
