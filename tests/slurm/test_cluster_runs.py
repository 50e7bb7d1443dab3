"""`snakemake --profile slurm` on a real cluster: the same search, also when jobs die, daemons stop or Snakemake dies.

One file, because there is one cluster, and the tests of a file stay with one worker.
"""

import re
import shutil
import signal
import time
from itertools import pairwise

import pytest
from cluster import wait_for
from disturbed import SlurmRun
from searches import Run

from edgeloop.records import read_json

pytestmark = pytest.mark.slurm
HEAVY = {"draft", "train", "export"}
HERE = {"warm_start", "propose", "screen", "sample", "measure", "select", "conclude", "compare", "summarise"}


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
    run = search(partition="gpus", mem_mb=2500)  # three processes with PyTorch in them
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


def test_finalists_are_jobs_of_their_own_with_the_resources_of_a_training(undisturbed, tmp_path, site, cluster):
    shutil.copytree(undisturbed.folder, tmp_path / "run")
    config = {**undisturbed.config, "finalists": {"count": 1, "seeds": 2}}
    run = SlurmRun(tmp_path / "run", site, config, cluster=cluster)
    before = {rule: run.submitted(rule) for rule in ("train", "export")}
    run.start()
    run.finish()
    assert {rule: run.submitted(rule) for rule in before} == before
    assert [len(run.submitted(rule)) for rule in ("train_finalist", "export_finalist", "evaluate")] == [2, 2, 2]
    for job in run.submitted("train_finalist"):
        (line,) = cluster.command("sacct", "-X", "-n", "-P", "-j", job, "-o", "NodeList,AllocTRES,ReqMem").splitlines()
        node, granted, memory = line.split("|")
        assert node == "n2" and "gres/gpu=1" in granted and memory == "900M"
    best = read_json(run.path("summary.json"))["best"]
    assert len(best["finalist"]["test_rmse"]["values"]) == 2
    assert run.path(f"finalists/{best['candidate']}/bundle.zip").stat().st_size


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


# ---------------------------------------------------------------- what goes wrong


def first_generation(run):
    return {"000": run.history()["000"]}


def overlaps(cluster, jobs):
    """Pairs of `jobs` that ran at the same time."""
    lines = cluster.command("sacct", "-X", "-D", "-n", "-P", "-j", ",".join(jobs), "-o", "Start,End").splitlines()
    spans = sorted(tuple(line.split("|")) for line in lines if not line.startswith(("None", "Unknown")))
    return [(one, other) for one, other in pairwise(spans) if other[0] < one[1]]


def by_candidate(run, rule, more=""):
    """Numbers of a rule's Slurm jobs, by candidate; `more` is what another run of the same search printed."""
    found = {}
    for candidate, job in re.findall(rf"/rule_{rule}/([0-9a-f]{{12}})/(\d+)\.log", run.printed() + more):
        found.setdefault(candidate, set()).add(job)
    return found


def test_jobs_that_die_are_tried_again_and_the_search_ends_the_same(search, undisturbed, cluster):
    """Four searches at once, because each of them mostly waits."""
    starved = search("starved", mem_mb=150)
    stopped = search("stopped", runtime_min=1)
    uprooted = search("uprooted", partition="first")
    uprooted.config["training"]["gpus"] = 0
    hopeless = search("hopeless", mem_mb=150)
    hopeless.start("results/generations/000/population.json")
    hopeless.finish()
    hopeless.about_cluster = "{gpus_per_node: 4, node_mem_mb: 280}"  # Snakemake fits, PyTorch does not
    runs = (starved, stopped, uprooted, hopeless)
    for run in runs:
        run.start()

    on_node = uprooted.running("train", 2)
    cluster.command("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")
    hanging, cancelled = stopped.running("train", 2)[:2]
    wait_for(lambda: stopped.processes(hanging, "train.py"), "the training has begun")
    for process in stopped.processes(hanging, "train.py"):
        process.send_signal(signal.SIGSTOP)
    cluster.command("scancel", cancelled)
    wait_for(lambda: not any(cluster.jobs().get(job) == "RUNNING" for job in on_node), "the node's jobs are gone")
    cluster.command("scontrol", "update", "NodeName=n1", "State=RESUME")
    for run in runs:
        run.finish()

    for run in (starved, stopped, uprooted):
        assert first_generation(run) == first_generation(undisturbed), run.folder.name
    ends = {run.folder.name: cluster.command("sacct", "-n", "-P", "-D", "-j", ",".join(run.submitted("train")),
                                             "-o", "State") for run in runs}  # fmt: skip
    assert "OUT_OF_MEMORY" in ends["starved"]
    assert "TIMEOUT" in ends["stopped"] and "CANCELLED" in ends["stopped"]
    assert "NODE_FAIL" in ends["uprooted"]
    for run in runs:
        for candidate, jobs in by_candidate(run, "train").items():
            assert not overlaps(cluster, jobs), (run.folder.name, candidate)

    summary = read_json(hopeless.path("summary.json"))["search"]
    assert summary["failed"] == summary["trained"] == 2
    for candidate, *_ in hopeless.history()["000"]:
        record = read_json(hopeless.path(f"candidates/{candidate}/train.json"))
        assert record["status"] == "failed"
        assert re.fullmatch(
            r"training died in 3 attempts: (job \d+ \(\d+M, [\d:]+\) out of memory(; )?){3}", record["reason"]
        )


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmdbd"])
def test_a_daemon_that_stops_for_40_seconds_is_outlasted(search, undisturbed, cluster, daemon):
    run = search()
    run.start()
    run.running("train", 2)
    command = cluster.daemons[daemon].args
    cluster.stop_daemon(daemon)
    time.sleep(40)
    # What began as a new cluster goes on as an old one.
    cluster.run(*(part for part in command if part != "-i"))
    run.finish()
    assert first_generation(run) == first_generation(undisturbed)
    # A job that is just starting when the controller stops fails, and is tried again: but never two at once.
    for rule in ("train", "export"):
        for jobs in by_candidate(run, rule).values():
            assert not overlaps(cluster, jobs)


def test_a_run_that_was_killed_is_resumed_without_a_second_writer(search, undisturbed, cluster, make):
    run = search()
    run.start()
    trainings = run.running("train", 2)
    run.process.kill()
    run.process.wait()
    for job in trainings:
        run.hold(job, "train.py")
    foreign = cluster.command(
        "sbatch", "--parsable", "--output=/dev/null", "--job-name=edgeloop_of-another-folder", "--wrap=sleep 600"
    ).strip()
    assert all(cluster.jobs().get(job) == "RUNNING" for job in trainings)
    arguments = f"--directory {run.folder} --configfile {run.folder}/config.yaml"

    # Whoever only unlocks is told what is still at work.
    run.snakemake("--unlock")
    refusal = run.snakemake(fails=True)
    assert "2 jobs of an earlier run" in refusal and "make resume" in refusal

    done = make("resume", f"FOLDER={run.folder}", f"RUN=--profile slurm {arguments}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 jobs and processes ended" in done.stdout
    assert first_generation(run) == first_generation(undisturbed)
    assert cluster.jobs().pop(foreign) == "RUNNING"
    cluster.command("scancel", foreign)
    # What an orphan had finished is kept; what it had not is done again, and not before it was gone.
    for jobs in by_candidate(run, "train", done.stderr).values():
        assert not overlaps(cluster, jobs)


def test_a_run_that_is_alive_is_not_resumed(search, make):
    run = search()
    run.start()
    run.running("draft")
    done = make("resume", f"FOLDER={run.folder}", "RUN=--profile slurm")
    assert done.returncode != 0 and "is alive" in done.stderr
    run.interrupt()


def test_a_run_that_was_interrupted_leaves_nothing_at_work_and_goes_on(search, undisturbed, cluster):
    run = search()
    run.start()
    trainings = run.running("train", 2)
    for job in trainings:
        run.hold(job, "train.py")
    run.interrupt()
    wait_for(lambda: not cluster.jobs().keys() & set(trainings), "the cancelled jobs have left the queue", 60)

    def cancelled():
        states = cluster.states("-j", ",".join(trainings))
        return len(states) == 2 and all(state.startswith("CANCELLED") for state in states.values())

    # Accounting hears of it a moment later.
    wait_for(cancelled, "accounting knows both trainings as cancelled", 30)
    run.start()
    run.finish()
    assert first_generation(run) == first_generation(undisturbed)
    for jobs in by_candidate(run, "train").values():
        assert not overlaps(cluster, jobs)


def test_an_interrupt_while_slurm_is_asked_for_states_leaves_nothing_at_work(search, cluster, tmp_path):
    # Meanwhile the executor has its jobs in no list.
    run, asked = search(), tmp_path / "asked"
    run.programs = tmp_path / "bin"
    run.programs.mkdir()
    slow = run.programs / "sacct"
    real = shutil.which("sacct", path=cluster.environment["PATH"])
    slow.write_text(f'#!/bin/sh\ntouch {asked}\nsleep 8\nexec {real} "$@"\n')
    slow.chmod(0o755)
    run.start()
    trainings = run.running("train", 2)
    for job in trainings:
        run.hold(job, "train.py")
    asked.unlink(missing_ok=True)
    wait_for(asked.exists, "accounting is asked")
    run.interrupt()
    wait_for(lambda: not cluster.jobs().keys() & set(trainings), "the cancelled jobs have left the queue", 60)
    assert re.search(r"edgeloop: cancelled [12] Slurm jobs that were still at work", run.printed())
