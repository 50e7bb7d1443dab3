"""`snakemake --profile slurm`: the same search on a cluster."""

import shutil

import pytest
from disturbed import SlurmRun
from searches import Run

from edgeloop.records import read_json

pytestmark = pytest.mark.slurm
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


def test_the_data_are_prepared_on_compute_nodes(tmp_path, site, cluster, undisturbed):
    run = SlurmRun(tmp_path, site, undisturbed.config, cluster=cluster)
    run.start("results/predictors.json")
    run.finish()
    assert rules_of(run) == {"simulate": 3, "prepare": 1, "predict": 1}


@pytest.mark.parametrize("gpus_per_node", [2, 1], ids=["one-node", "two-nodes"])
def test_several_gpus_share_one_training(undisturbed, search, cluster, gpus_per_node):
    run = search(partition="gpus")
    run.config["training"]["gpus"] = 2
    run.about_cluster = f"{{gpus_per_node: {gpus_per_node}}}"
    candidate = read_json(undisturbed.path("generations/000/population.json"))["candidates"][0]
    train = f"candidates/{candidate}/train.json"
    run.start("results/generations/000/population.json")
    run.finish()
    run.start(f"results/{train}")
    run.finish()
    (job,) = run.submitted("train")
    fields = cluster.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "NNodes,AllocTRES").strip().split("|")
    assert int(fields[0]) == 2 // gpus_per_node and "gres/gpu=2" in fields[1]
    shared, alone = read_json(run.path(train)), read_json(undisturbed.path(train))
    assert shared["processes"] == 2 and alone["processes"] == 1
    assert shared["val_rmse"] == pytest.approx(alone["val_rmse"], rel=1e-3)


def test_trainings_get_their_gpu(undisturbed, cluster):
    for job in undisturbed.submitted("train"):
        (line,) = cluster.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "NodeList,AllocTRES,ReqMem").splitlines()
        node, granted, memory = line.split("|")
        assert node == "n2" and "gres/gpu=1" in granted and memory == "900M"
    for job in undisturbed.submitted("export"):
        assert "gpu" not in cluster.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "AllocTRES")


def test_a_pack_is_one_job_and_comes_to_the_same(search, undisturbed):
    run = search()
    run.config["training"]["pack"] = 2
    run.start()
    run.finish()
    assert [len(run.submitted(rule)) for rule in ("train_pack", "export_pack", "train", "export")] == [1, 1, 0, 0]
    assert run.history()["000"] == undisturbed.history()["000"]


def test_one_machine_finds_the_same_candidates_and_the_same_weights(undisturbed, tmp_path, site, prepared):
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
