"""What would spoil a search of thousands: a main process with more in it than the graph, work done per candidate."""

import json
import re
import subprocess

import pytest

pytestmark = pytest.mark.workflow

COUNTING = """
import runpy, sys
opened = 0

def hook(event, arguments):
    global opened
    opened += event == "open" and str(arguments[0]).endswith("population.json")

sys.addaudithook(hook)
try:
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
finally:
    print("population.json was opened", opened, "times")
"""


def dry_run(run, *python):
    """All that a dry run in the folder of `run` says, by an interpreter that is called with `python`."""
    interpreter, _, _, *arguments = run.command("--dry-run")
    done = subprocess.run(
        [interpreter, *python, *arguments], env=run.environment, cwd=run.source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_main_process_imports_none_of_the_libraries_that_jobs_compute_with(finished):
    said = dry_run(finished, "-X", "importtime", "-m", "snakemake")
    imported = {name.partition(".")[0] for name in re.findall(r"^import time:.*\| +(\S+)$", said, re.MULTILINE)}
    assert {"snakemake", "edgeloop", "edge"} <= imported
    assert not {"torch", "scipy", "onnx", "onnxruntime", "h5py", "sklearn", "fabric"} & imported


def test_how_often_a_decision_is_read_does_not_grow_with_its_candidates(copy):
    def opened():
        said = dry_run(copy, "-c", COUNTING)
        return int(re.search(r"population\.json was opened (\d+) times", said)[1]), said

    few, _ = opened()
    file = copy.path("generations/001/population.json")
    population = json.loads(file.read_text())
    more = [f"{number:012x}" for number in range(100)]
    for name in more:
        (copy.path("candidates") / name).mkdir()
        (copy.path("candidates") / name / "genotype.json").write_text("{}")
    file.write_text(json.dumps(population | {"candidates": population["candidates"] + more}))
    many, said = opened()
    assert said.count("rule measure:") == len(more)
    assert 0 < many < few + 10
