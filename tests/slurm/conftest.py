"""One cluster, one copy of the sources and one set of prepared data for all tests."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from cluster import Cluster, why_not
from disturbed import SlurmRun
from searches import ROOT, Run, copy_sources

STAGES = ("simulate", "prepare", "predict", "draft", "train", "export", "evaluate")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The sources with a profile in which a user has set the values of this cluster."""
    folder = copy_sources(tmp_path_factory.mktemp("site"))
    shutil.copy2(ROOT / "Makefile", folder)
    profile = folder / "slurm/profile.yaml"
    text = profile.read_text()
    for before, after in {
        "  # - slurm_partition=batch\n": "  - slurm_partition=cpu\n",
        "gpus_per_node: 0": "gpus_per_node: 4",
    }.items():
        assert before in text
        text = text.replace(before, after)
    profile.write_text(text)
    return folder


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, cluster, site):
    """A folder in which data are prepared and the device is enrolled, by a run on this machine."""
    folder = tmp_path_factory.mktemp("prepared")
    run = Run(folder, site, small_search())
    run.snakemake("results/predictors.json", "results/devices/this-machine.json")
    return folder


def small_search(**resources):
    """A search whose history does not depend on the device's mood: at random, everything meets the budget."""
    config = yaml.safe_load((ROOT / "tests/configs/tiny.yaml").read_text())
    config["search"] |= {"strategy": "random", "max_generations": 1}
    config["baselines"], config["finalists"] = {}, {"count": 0}
    config["resources"] = {stage: {"mem_mb": 900, "runtime_min": 5} for stage in STAGES}
    config["resources"]["draft"]["mem_mb"] = 1500
    config["resources"]["train"] |= {"partition": "gpu", **resources}
    return config


@pytest.fixture
def search(tmp_path, prepared, site, cluster):
    """Makes searches that begin where data are prepared. What a failed test leaves at work is ended."""
    runs = []

    def make(name="run", **resources):
        shutil.copytree(prepared, tmp_path / name)
        runs.append(SlurmRun(tmp_path / name, site, small_search(**resources), cluster=cluster))
        return runs[-1]

    yield make
    for run in runs:
        if run.process is not None and run.process.poll() is None:
            run.interrupt()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, prepared, site, cluster):
    """A search of two generations that nothing disturbs; its folder must not be changed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(prepared, folder, dirs_exist_ok=True)
    run = SlurmRun(folder, site, small_search(), cluster=cluster)
    run.config["search"]["max_generations"] = 2
    run.start()
    run.finish()
    return run


@pytest.fixture
def make(site, cluster):
    """Runs a target of the Makefile in the site's checkout, with this environment in place of one of its own."""

    def run(*arguments):
        command = ["make", "-o", ".venv/ready", f"BIN={os.path.dirname(sys.executable)}", *arguments]
        return subprocess.run(
            command, cwd=site, capture_output=True, text=True, timeout=1200,
            env={**os.environ, "PATH": cluster.environment["PATH"], "PYTHONPATH": f"{site}:{site}/src"},
        )  # fmt: skip

    return run
