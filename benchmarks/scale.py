"""What Snakemake itself costs as a generation grows.

For each number of candidates: a search whose first generation has so many, taken up to the decision which to train;
then a dry run, which plans all trainings, exports and measurements; then, up to --run-up-to candidates, a run of the
whole search on this machine in which these three do nothing (benchmarks/empty_job.py in a copy of the workflow), and a
dry run that finds nothing to do. Data and enrolment are real, tiny, and made once. Memory is the peak of the main
process; CPU seconds are those of all processes.

    python benchmarks/scale.py [--candidates 10,100,1000,3000] [--run-up-to 1000] [--scheduler greedy] [--json OUT]

All of it takes about a quarter of an hour on 2 cores, most of it the run of 1,000.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
SOURCES = ("Snakefile", "config", "edge", "envs", "profiles", "slurm", "src", "workflow")
EMPTY = ("train", "export", "measure")
POLL_S = 0.05


def copy_of_workflow(folder: Path, stages: Sequence[str] = EMPTY, by: str = "empty_job.py") -> Path:
    """The workflow with the script `by` of this folder in place of those of `stages`: with empty jobs."""
    folder.mkdir()
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    for stage in stages:
        shutil.copy2(ROOT / "benchmarks" / by, folder / f"workflow/scripts/{stage}.py")
    return folder


def configuration(candidates: int) -> dict[str, Any]:
    """A search of one generation of that size, without screening: in a large space, on this machine."""
    config = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())
    config["search"] |= {"max_generations": 1, "generation_size": candidates, "strategy": "random"}
    rest = {"screening": {"pool": 0}, "baselines": {}, "finalists": {"count": 0}}
    return config | {"space": "config/spaces/meltpool.yaml"} | rest


def snakemake(source: Path, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run Snakemake in `folder`: wall_s, cpu_s of all processes, peak_mb of the main one, and its output."""
    command = [sys.executable, "-m", "snakemake", *arguments, "--snakefile", source / "Snakefile"]
    command += ["--directory", folder, "--configfile", folder / "config.yaml"]
    environment = {**os.environ, "PYTHONPATH": f"{source}:{source / 'src'}"}
    with tempfile.TemporaryFile("w+") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=environment, cwd=source, stdout=output, stderr=subprocess.STDOUT)
        peak_kb = 0
        # Not rusage's peak: that is the largest of the process and all that it has waited for.
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
            peak_kb = max(peak_kb, int(found[1]) if found else 0)  # none once the process is about to end
            time.sleep(POLL_S)
        wall_s = time.perf_counter() - begin
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode:
        raise RuntimeError(f"Snakemake failed:\n{text[-4000:]}")
    return {"wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mb": peak_kb / 1024, "output": text}


def measure(
    source: Path, prepared: Path, folder: Path, candidates: int, settings: list[str], run: bool
) -> dict[str, Any]:
    """The figures of one number of candidates."""
    shutil.copytree(prepared, folder)
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration(candidates)))
    snakemake(source, folder, "results/generations/000/population.json", *settings)
    found = len(json.loads((folder / "results/generations/000/population.json").read_text())["candidates"])
    if found != candidates:
        raise RuntimeError(f"the space gave {found} candidates instead of {candidates}")
    figures: dict[str, Any] = {"candidates": candidates}
    figures["dry_run"] = snakemake(source, folder, "--dry-run", *settings)
    figures["jobs"] = int(re.search(r"^total\s+(\d+)$", figures["dry_run"].pop("output"), re.MULTILINE)[1])
    if run:
        figures["run"] = snakemake(source, folder, *settings)
        figures["jobs_per_s"] = figures["jobs"] / figures["run"]["wall_s"]
        figures["nothing_to_do"] = snakemake(source, folder, "--dry-run", *settings)
        if "Nothing to be done" not in figures["nothing_to_do"].pop("output"):
            raise RuntimeError("the run is not finished")
        del figures["run"]["output"]
    return figures


def row(figures: dict[str, Any]) -> list[Any]:
    """The line of the table."""
    parts = [figures.get(part, {}) for part in ("dry_run", "run", "nothing_to_do")]
    cells = [[part.get(key) for key in ("wall_s", "cpu_s", "peak_mb")] for part in parts]
    per_candidate = figures["run"]["wall_s"] / figures["candidates"] if "run" in figures else None
    return [
        figures["candidates"],
        figures["jobs"],
        *cells[0],
        *cells[1],
        per_candidate,
        figures.get("jobs_per_s"),
        *cells[2],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", default="10,100,1000,3000", help="of one generation (default 10,100,1000,3000)")
    parser.add_argument("--run-up-to", type=int, default=1000, help="larger ones are planned only (default 1000)")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--scheduler", help="Snakemake's --scheduler (default: Snakemake's)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = ["--cores", str(options.cores), *(["--scheduler", options.scheduler] if options.scheduler else [])]
    numbers = [int(number) for number in options.candidates.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = copy_of_workflow(folder / "source")
        (folder / "prepared").mkdir()
        (folder / "prepared/config.yaml").write_text(yaml.safe_dump(configuration(numbers[0])))
        targets = ("results/predictors.json", "results/devices/this-machine.json")
        snakemake(source, folder / "prepared", *targets, *settings)
        rows = []
        for number in numbers:
            run = number <= options.run_up_to
            rows.append(measure(source, folder / "prepared", folder / str(number), number, settings, run))
            print(f"{number} candidates: done", file=sys.stderr)
    heads = ["candidates", "jobs", "plan s", "CPU s", "MB", "run s", "CPU s", "MB", "s/candidate", "jobs/s"]
    heads += ["no-op s", "CPU s", "MB"]
    formats = ("", "", ".1f", ".1f", ".0f", ".0f", ".0f", ".0f", ".2f", ".1f", ".1f", ".1f", ".0f")
    print(tabulate(map(row, rows), heads, floatfmt=formats, missingval="-"))
    if options.json:
        options.json.write_text(json.dumps({"cores": options.cores, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
