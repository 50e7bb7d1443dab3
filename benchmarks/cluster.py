"""What a cluster adds: a generation of empty trainings under Slurm, and the same on this machine.

Data, enrolment and the decision which candidates to train are made before. Then a run up to the trainings alone, and
one of the whole generation (trainings and exports, which are Slurm jobs, measurements and the selection), each with
--profile slurm as it is in the repository, and with the local executor. The jobs do nothing (benchmarks/empty_job.py).
What is left is the start of the jobs (Snakemake twice, and a Python for the script), and Snakemake's waiting for
Slurm's answers.

    python benchmarks/cluster.py [--candidates 8] [--rounds 3] [--cores 2] [--json OUT]

Where no Slurm answers, the tests' own is started, with two nodes of eight CPUs on this machine (needs root). Medians.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from scale import ROOT, configuration, copy_of_workflow, snakemake
from tabulate import tabulate


@contextmanager
def slurm(folder: Path) -> Iterator[str]:
    """A Slurm that answers, in words: the machine's own, or one that is started and stopped."""
    if shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True).returncode == 0:
        yield "the Slurm of this machine"
        return
    sys.path.insert(0, str(ROOT / "tests/slurm"))
    from cluster import NODE_CPUS, NODES, Cluster, why_not

    if reason := why_not():
        raise SystemExit(f"no Slurm answers, and none can be started: {reason}")
    folder.mkdir()
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield f"a Slurm with {len(NODES)} nodes of {NODE_CPUS} CPUs on this machine"
    finally:
        cluster.stop()


def targets(folder: Path) -> dict[str, list[str]]:
    """What is made, by what is measured."""
    population = json.loads((folder / "results/generations/000/population.json").read_text())
    return {
        "trainings": [f"results/candidates/{candidate}/train.json" for candidate in population["candidates"]],
        "whole generation": ["results/generations/000/state.json"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="of the local executor (default 2)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    local, on_slurm = ["--cores", str(options.cores)], ["--profile", "slurm"]
    with tempfile.TemporaryDirectory() as name, slurm(Path(name) / "slurm") as where:
        folder = Path(name)
        source, prepared = copy_of_workflow(folder / "source"), folder / "prepared"
        prepared.mkdir()
        config = configuration(options.candidates)
        # Eight jobs fit side by side, as on a cluster that is not full.
        config["resources"] = {stage: {"mem_mb": 500, "runtime_min": 10} for stage in ("train", "export")}
        (prepared / "config.yaml").write_text(yaml.safe_dump(config))
        first = (
            "results/predictors.json",
            "results/devices/this-machine.json",
            "results/generations/000/population.json",
        )
        snakemake(source, prepared, *first, *local)
        seconds: dict[str, dict[str, list[float]]] = {}
        for number in range(options.rounds):
            for part, files in targets(prepared).items():
                for executor, settings in (("local", local), ("slurm", on_slurm)):
                    run = folder / f"{number}-{part}-{executor}"
                    shutil.copytree(prepared, run)
                    wall_s = snakemake(source, run, *files, *settings)["wall_s"]
                    seconds.setdefault(part, {}).setdefault(executor, []).append(wall_s)
                    print(f"round {number + 1}, {part}, {executor}: {wall_s:.1f} s", file=sys.stderr)
    figures = {
        part: {executor: statistics.median(values) for executor, values in by.items()} for part, by in seconds.items()
    }
    rows = [[part, by["local"], by["slurm"], by["slurm"] - by["local"]] for part, by in figures.items()]
    print(f"{options.candidates} candidates, median of {options.rounds}, {where}")
    print(tabulate(rows, ["", f"local, {options.cores} cores, s", "Slurm, s", "added, s"], floatfmt=".1f"))
    if options.json:
        report = {"candidates": options.candidates, "cluster": where, "rounds_s": seconds, "median_s": figures}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
