"""What orchestration costs beyond the work itself.

Runs a whole search of small trainings with the real Snakemake, after its data have been prepared, and compares its wall
time with that of a perfect schedule: trainings and exports packed on all cores without a gap, and everything that has
the device to itself (screening, measuring, comparing) one after the other. What is left are interpreter starts,
imports, Snakemake, and cores that wait; per trained candidate, baselines not counted.

    python benchmarks/overhead.py [--cores 2] [--json OUT]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
PACKED, EXCLUSIVE = ("train", "export"), ("screen", "measure", "compare")
STAGES = ("propose", "draft", "screen", "sample", "train", "export", "measure", "select", "compare")


def run(folder: Path, cores: int, *targets: str) -> float:
    """Seconds of one run of the workflow in `folder`."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", str(cores), "--quiet", "all"]
    command += ["--snakefile", ROOT / "Snakefile", "--directory", folder, "--configfile", folder / "config.yaml"]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def job_seconds(folder: Path, stage: str) -> list[float]:
    """Wall seconds of each job of a stage, from Snakemake's own benchmark files."""
    files = (folder / "results/benchmarks" / stage).glob("*.tsv")
    return [float(row["s"]) for file in files for row in csv.DictReader(file.open(), delimiter="\t")]


def work_seconds(folder: Path, stage: str) -> list[float]:
    """Seconds of the work proper of each job of a stage, from the records that it wrote."""
    patterns = {
        "screen": "generations/*/screening.*.json",
        "train": "candidates/*/train.json",
        "export": "candidates/*/export.json",
        "measure": "candidates/*/measure.*.json",
        "compare": "comparison.*.json",
    }
    if stage not in patterns:
        return []
    records = (json.loads(file.read_text()) for file in (folder / "results").glob(patterns[stage]))
    return [end - begin for begin, end in (record["work"] for record in records)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    config = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())
    config["search"] |= {"max_generations": 3, "generation_size": 6}
    config["screening"]["pool"] = 8
    config["baselines"], config["finalists"] = {}, {"count": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        run(folder, options.cores, "results/predictors.json", "results/devices/this-machine.json")
        wall_s = run(folder, options.cores, "results/summary.json")
        trained = json.loads((folder / "results/summary.json").read_text())["search"]["trained"]
        jobs = {stage: job_seconds(folder, stage) for stage in STAGES}
        work = {stage: work_seconds(folder, stage) for stage in STAGES}
    work["draft"] = jobs["draft"]  # it does nothing but export, on all cores at once
    packed_s = sum(sum(work[stage]) for stage in PACKED) / options.cores
    exclusive_s = sum(sum(work[stage]) for stage in (*EXCLUSIVE, "draft"))
    overhead_s = wall_s - packed_s - exclusive_s
    rows = [
        [stage, len(jobs[stage]), sum(jobs[stage]), sum(work[stage]), sum(jobs[stage]) - sum(work[stage])]
        for stage in STAGES
    ]
    print(tabulate(rows, ["stage", "jobs", "job s", "work s", "start and import s"], floatfmt=".1f"))
    print(
        f"\n{trained} trained on {options.cores} cores: wall {wall_s:.1f} s, perfect schedule "
        f"{packed_s + exclusive_s:.1f} s, orchestration {overhead_s:.1f} s = {overhead_s / trained:.2f} s per candidate"
    )
    if options.json:
        figures = {
            "cores": options.cores,
            "trained": trained,
            "wall_s": wall_s,
            "perfect_s": packed_s + exclusive_s,
            "overhead_s_per_candidate": overhead_s / trained,
            "stages": {
                stage: {"jobs": len(jobs[stage]), "job_s": sum(jobs[stage]), "work_s": sum(work[stage])}
                for stage in STAGES
            },
        }
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
