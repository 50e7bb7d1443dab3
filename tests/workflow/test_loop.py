"""What a user may rely on when a search runs, is run again, extended, edited, or broken off."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest
from searches import Run

from edgeloop import records

pytestmark = pytest.mark.workflow

TIMES = {"training_s", "samples_per_s", "loader_samples_per_s", "network_samples_per_s", "work", "decided_at"}


def read(run, name):
    return json.loads(run.path(name).read_text())


def populations(run):
    return [
        json.loads(file.read_text())["candidates"] for file in sorted(run.path("generations").glob("*/population.json"))
    ]


def test_a_search_ends_with_its_summary_as_file_and_as_table(finished):
    summary = read(finished, "summary.json")
    assert summary["search"]["trained"] == 4
    assert summary["search"]["generations"] == 2
    assert summary["search"]["stopped"] == "max_generations"
    assert summary["best"]["candidate"] in finished.output
    assert set(summary["predictors"]) == {"mean", "ridge"}
    untrained = summary["baselines"]["latency-only"]
    assert untrained["val_rmse"] is None and untrained["device"]["this-machine"]["latency_p50_ms"] > 0
    against = summary["best"]["against"]
    assert against["latency-only"]["quality_gain"] is None
    assert (
        against["by-hand"]["quality_gain"] == summary["baselines"]["by-hand"]["val_rmse"] / summary["best"]["val_rmse"]
    )
    assert all(against[name]["speedup"]["this-machine"] > 0 for name in against)


def test_the_device_computes_what_pytorch_computes(finished):
    for file in finished.path("candidates").glob("*/measure.*.json"):
        record = json.loads(file.read_text())
        assert record["status"] == "ok"
        assert record["parity_clips"] > 0
        assert record["parity_max_abs_difference"] <= 1e-4
        assert record["rmse"] == pytest.approx(record["rmse_pytorch"], abs=1e-4)
        assert len(record["samples_ms"]) >= record["runs"] > 0


def test_the_test_object_is_in_no_training_or_validation_clip(finished):
    splits = read(finished, "data/cache.json")["splits"]
    assert splits["test"]["objects"] == ["S003"]
    for split in ("train", "validation"):
        assert "S003" not in splits[split]["objects"]


def test_a_second_run_does_nothing_and_says_so(finished):
    assert "Nothing to be done" in finished.snakemake()


def test_a_longer_search_repeats_nothing(copy):
    before = copy.contents("candidates/*/*.json") | copy.contents("generations/*/p*.json")
    copy.config["search"]["max_generations"] = 3
    executed = copy.executed(copy.snakemake())
    assert executed["train"] == executed["export"] == executed["measure"] == 2
    assert executed["propose"] == executed["sample"] == executed["select"] == 1
    after = copy.contents("candidates/*/*.json") | copy.contents("generations/*/p*.json")
    assert before.items() <= after.items()
    assert len(populations(copy)) == 3
    assert "Nothing to be done" in copy.snakemake()


def test_a_search_that_patience_has_stopped_goes_on_when_patience_is_raised(copy):
    # Nothing is on the front within so small a budget, so that the hypervolume does not grow.
    copy.config["devices"]["this-machine"]["budget_ms"] = 1e-5
    copy.config["search"] |= {"patience": 1, "max_generations": 4}
    stopped = copy.executed(copy.snakemake())
    assert stopped["train"] == 0
    assert read(copy, "summary.json")["search"]["stopped"] == "patience"
    assert populations(copy)[2] == []
    before = copy.contents("candidates/*/*.json")
    copy.config["devices"]["this-machine"]["budget_ms"] = 1000
    copy.config["search"] |= {"patience": 5, "max_generations": 3}
    extended = copy.executed(copy.snakemake())
    assert extended["train"] == extended["measure"] == 2
    assert before.items() <= copy.contents("candidates/*/*.json").items()
    assert len(populations(copy)[2]) == 2
    assert "Nothing to be done" in copy.snakemake()


def test_editing_the_measuring_code_measures_again_and_trains_nothing(copy, edited):
    edited("edge/statistics.py")
    before, decided = copy.contents("candidates/*/train.json"), populations(copy)
    executed = copy.executed(copy.snakemake())
    assert executed["measure"] == 6 and executed["enrol"] == 1 and executed["screen"] == 2
    assert not {"train", "export", "propose", "sample"} & executed.keys()
    assert copy.contents("candidates/*/train.json") == before
    assert populations(copy) == decided
    assert "Nothing to be done" in copy.snakemake()


def test_editing_a_training_module_trains_again_and_simulates_nothing(copy, edited):
    edited("src/edgeloop/training.py")
    jobs = copy.jobs()
    assert jobs["train"] == jobs["export"] == jobs["measure"] == 6
    assert not {"simulate", "prepare", "propose", "sample"} & jobs.keys()


def test_the_same_candidate_trains_to_the_same_figures_to_the_last_bit(copy):
    candidate = populations(copy)[0][0]
    folder = copy.path(f"candidates/{candidate}")
    weights, before = (folder / "weights.pt").read_bytes(), read(copy, f"candidates/{candidate}/train.json")
    (folder / "weights.pt").unlink()
    copy.snakemake(f"results/candidates/{candidate}/train.json", "--force")
    after = read(copy, f"candidates/{candidate}/train.json")
    assert (folder / "weights.pt").read_bytes() == weights
    assert {key: value for key, value in after.items() if key not in TIMES} == {
        key: value for key, value in before.items() if key not in TIMES
    }


def test_an_earlier_run_teaches_a_new_one_and_undoes_no_decision_of_one_that_is_under_way(copy, finished):
    assert read(copy, "warm_start.json")["runs"] == []
    decided = copy.contents("generations/*/p*.json")
    copy.config["search"]["warm_start"] = [str(finished.folder)]
    executed = copy.executed(copy.snakemake())
    assert dict(executed) == {"warm_start": 1}
    (run,) = read(copy, "warm_start.json")["runs"]
    assert len(run["results"]) == 4
    assert str(finished.folder) not in json.dumps(run)
    assert copy.contents("generations/*/p*.json") == decided
    assert "Nothing to be done" in copy.snakemake()


def test_from_the_same_records_a_later_generation_is_decided_the_same_and_trains_nothing(copy):
    decided = populations(copy)
    screened = copy.contents("generations/001/screening.*.json")
    executed = copy.executed(copy.snakemake("all", "-R", "results/generations/001/population.json"))
    assert executed["sample"] == 1
    assert populations(copy) == decided
    assert copy.contents("generations/001/screening.*.json") == screened
    assert not {"train", "export", "measure"} & executed.keys()


def test_another_seed_is_another_search_and_needs_another_folder(copy, tmp_path):
    copy.config["search"]["seed"] = 2
    refusal = copy.snakemake(fails=True)
    assert "seed: 1 then, 2 now" in refusal and "--directory" in refusal
    other = Run(tmp_path / "other", copy.source, copy.config)
    other.folder.mkdir()
    other.snakemake("results/generations/000/proposals.json")
    first = records.read_json(other.path("generations/000/proposals.json"))["proposals"]
    assert not any(genotype in first for genotype in read(copy, "generations/000/proposals.json")["proposals"])


def test_the_same_seed_proposes_the_same_first_generation_in_another_folder(finished, tmp_path):
    other = Run(tmp_path, finished.source)
    other.snakemake("results/generations/000/proposals.json")
    name = "generations/000/proposals.json"
    assert read(other, name)["proposals"] == read(finished, name)["proposals"]


@pytest.mark.parametrize("stage", ["measure", "train"])
def test_one_stage_of_one_generation_runs_again_by_one_line(copy, stage):
    listed = subprocess.run(
        [os.sys.executable, "-m", "edgeloop", "files", stage, "1"],
        cwd=copy.folder, env=copy.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = listed.stdout.split()
    assert len(files) == 2
    jobs = copy.jobs("all", "-R", *files)
    assert jobs[stage] == 2
    assert not {"simulate", "propose", "sample"} & jobs.keys()


def test_the_rule_graph_is_drawn(finished):
    graph = finished.snakemake("--rulegraph")
    assert "digraph" in graph
    assert all(rule in graph for rule in ("propose", "screen", "sample", "compare"))


def test_a_wrong_configuration_starts_no_job(tmp_path, source):
    run = Run(tmp_path, source)
    run.config["search"]["generation_size"] = 40
    output = run.snakemake(fails=True)
    assert "'search.generation_size' is 40, more than 'screening.pool', 4" in output
    assert not run.path("").exists()


def test_candidates_that_diverge_are_failed_records_and_the_search_goes_on(copy):
    space = copy.folder / "space.yaml"
    space.write_text(
        "name: diverging\ntraining: {lr: [1.0e+37, 2.0e+37, 3.0e+37], optimizer: adam}\n"
        "families: {conv2d: {widths: [[4]], activation: relu}}\n"
    )
    shutil.rmtree(copy.path("generations"))
    copy.config["space"] = str(space)
    copy.config["search"]["max_generations"] = 1
    copy.config["screening"]["pool"] = 2
    output = copy.snakemake()
    search = read(copy, "summary.json")["search"]
    assert search["failed"] == search["trained"] == 2
    assert "No trained candidate meets the budgets" in output
    for candidate in populations(copy)[0]:
        for record in ("train", "export", "measure.this-machine"):
            record = read(copy, f"candidates/{candidate}/{record}.json")
            assert record["status"] == "failed" and "diverged" in record["reason"]


def test_a_device_that_cannot_be_reached_is_an_error_that_names_it_and_no_candidates_failure(copy):
    known_hosts = copy.folder / "known_hosts"
    known_hosts.touch()
    jetson = {"transport": "ssh", "host": "127.0.0.1", "port": 1, "known_hosts": str(known_hosts), "budget_ms": 1}
    copy.config["devices"]["jetson"] = jetson
    output = copy.snakemake(fails=True)
    assert re.search(r"DeviceUnreachable: device 'jetson' \(\S*127\.0\.0\.1:1\): no SSH connection", output)
    assert not list(copy.path("candidates").glob("*/measure.jetson.json"))


def test_a_device_that_is_added_is_measured_on_and_nothing_is_trained_or_decided_again(copy):
    trained, decided = copy.contents("candidates/*/train.json"), populations(copy)
    copy.config["devices"]["second"] = {"transport": "local", "budget_ms": 1000}
    executed = copy.executed(copy.snakemake())
    assert executed["measure"] == 6 and executed["enrol"] == 1
    assert not {"train", "export", "propose", "sample"} & executed.keys()
    assert copy.contents("candidates/*/train.json") == trained and populations(copy) == decided
    assert set(read(copy, "summary.json")["best"]["device"]) == {"this-machine", "second"}
    assert "Nothing to be done" in copy.snakemake()


def test_killed_and_started_again_a_run_repeats_nothing_that_was_finished(tmp_path, source):
    run = Run(tmp_path, source)
    process = subprocess.Popen(
        run.command(), env=run.environment, cwd=run.source, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while not list(run.path("candidates").glob("*/train.json")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    kept = run.contents("candidates/*/train.json") | run.contents("generations/000/*.json")
    run.snakemake("--unlock")
    run.snakemake("--rerun-incomplete")
    after = run.contents("candidates/*/train.json") | run.contents("generations/000/*.json")
    # A job that had written its record, but of which Snakemake had not heard yet, may run again: to the same figures.
    again = [name for name in kept if kept[name] != after[name]]
    for name in again:
        before, now = (
            {k: v for k, v in json.loads(text).items() if k not in TIMES} for text in (kept[name], after[name])
        )
        assert before == now
    assert read(run, "summary.json")["search"]["trained"] == 4
