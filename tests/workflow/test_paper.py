"""The paper's run is planned on a cluster, without its data, its device and its cluster."""

import re
import subprocess
import sys

import pytest
import yaml
from searches import ROOT, Run

from edgeloop.records import read_json

pytestmark = pytest.mark.workflow


def plan(source, folder):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--profile", "slurm", "--dry-run", "--configfile", "config/paper.yaml",
         "--directory", str(folder)],
        cwd=source, env=Run(folder, source).environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_64_swin3d_networks_on_four_gpus_each_for_a_jetson_behind_ssh(source, tmp_path):
    first = plan(source, tmp_path)
    assert "up to 64 candidates of config/spaces/swin3d.yaml" in first
    assert "trained on 4 GPUs each, " in first and "measured on jetson (ssh)" in first
    # One decision further, taken with this machine in the device's place, it is known what each training asks for.
    run = Run(tmp_path, source, yaml.safe_load((ROOT / "config/paper.yaml").read_text()))
    data = tmp_path / "data/raise-lpbf/C027.h5"
    data.parent.mkdir(parents=True)
    data.touch()  # nothing reads it before the trainings
    run.config["devices"]["jetson"] = {"transport": "local", "budget_ms": 1000}
    run.snakemake("results/generations/000/population.json")
    candidates = read_json(run.path("generations/000/population.json"))["candidates"]
    second = plan(source, tmp_path)
    trainings = re.findall(r"^rule train:.*?wildcards: candidate=(\w+).*?resources: (.*?)$", second, re.M | re.S)
    assert len(candidates) == 16 and {name for name, _ in trainings} > set(candidates)
    assert all("gres=gpu:4" in resources and "runtime=720" in resources for _, resources in trainings)


def test_without_the_data_a_run_stops_before_its_first_job(source, tmp_path):
    run = Run(tmp_path, source, yaml.safe_load((ROOT / "config/paper.yaml").read_text()))
    assert "there are no HDF5 files (*.h5, *.hdf5) in data/raise-lpbf" in run.snakemake(fails=True)
    assert not run.path("").exists()
