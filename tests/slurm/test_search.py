"""`snakemake --profile slurm`: the same search on a cluster."""

import json

import pytest
from searches import ROOT, Run

from edgeloop.records import read_json

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]
HEAVY = {"draft", "train", "export"}
HERE = {"propose", "screen", "sample", "measure", "select", "conclude", "compare", "summarise"}


def rules_of(run):
    """How many Slurm jobs of each rule a run has submitted."""
    rules = HEAVY | HERE | {"simulate", "prepare", "predict", "enrol"}
    return {rule: len(run.submitted(rule)) for rule in rules if run.submitted(rule)}


def test_heavy_work_goes_to_compute_nodes_and_the_rest_stays_here(undisturbed):
    search = read_json(undisturbed.path("summary.json"))["search"]
    assert search["trained"] == 4 and search["failed"] == 0 and search["generations"] == 2
    submitted = rules_of(undisturbed)
    assert submitted == {"draft": 2, "train": 4, "export": 4}
    executed = undisturbed.executed(undisturbed.printed())
    assert all(executed[rule] > 0 for rule in HERE)


def test_the_data_are_prepared_on_compute_nodes(undisturbed, tmp_path):
    planned = Run.jobs(undisturbed, "-F", "results/data/cache.json")
    assert planned["simulate"] == 3 and planned["prepare"] == 1
    output = undisturbed.snakemake("--dry-run", "-F", "results/data/cache.json")
    assert "localrule simulate" not in output and "localrule prepare" not in output


def test_trainings_get_their_gpu(undisturbed, cluster):
    for job in undisturbed.submitted("train"):
        (line,) = cluster.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "NodeList,AllocTRES,ReqMem").splitlines()
        node, granted, memory = line.split("|")
        assert node == "n2" and "gres/gpu=1" in granted and memory == "900M"
    for job in undisturbed.submitted("export"):
        assert "gpu" not in cluster.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "AllocTRES")


def test_one_machine_finds_the_same_candidates_and_the_same_weights(undisturbed, tmp_path, site, prepared):
    import shutil

    shutil.copytree(prepared, tmp_path / "local")
    local = Run(tmp_path / "local", site, undisturbed.config)
    local.snakemake("results/generations/000/population.json")
    candidates = read_json(local.path("generations/000/population.json"))["candidates"]
    assert candidates == read_json(undisturbed.path("generations/000/population.json"))["candidates"]
    local.snakemake(f"results/candidates/{candidates[0]}/train.json")
    weights = f"candidates/{candidates[0]}/weights.pt"
    assert local.path(weights).read_bytes() == undisturbed.path(weights).read_bytes()


def test_a_second_run_does_nothing_on_the_cluster_and_here(undisturbed):
    assert "Nothing to be done" in undisturbed.snakemake()
    local = Run(undisturbed.folder, undisturbed.source, undisturbed.config)
    assert "Nothing to be done" in local.snakemake()
