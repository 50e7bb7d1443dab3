"""Finalists: several seeds on the full budget, the test clips for them alone, and a bundle of each."""

import json
import re
import shutil
import statistics
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from edgeloop.records import read_json

pytestmark = pytest.mark.workflow
STAGES = ("train_finalist", "export_finalist", "measure_finalist", "evaluate")


def of_finalists(executed):
    return {rule: executed[rule] for rule in STAGES}


def hand_made(finished):
    """The id of the baseline that is trained."""
    return read_json(finished.path("summary.json"))["baselines"]["by-hand"]["candidate"]


def test_the_best_and_the_trained_baselines_are_tested_with_every_seed(finished):
    summary = read_json(finished.path("summary.json"))
    best = summary["best"]
    assert read_json(finished.path("finalists.json"))["candidates"] == [best["candidate"]]
    for entry in (best, summary["baselines"]["by-hand"]):
        records = [read_json(finished.path(f"finalists/{entry['candidate']}/{seed}/test.json")) for seed in (1, 2)]
        values = [record["test_rmse"] for record in records]
        assert entry["finalist"]["test_rmse"] == {
            "mean": statistics.fmean(values), "std": statistics.stdev(values), "values": values
        }  # fmt: skip
        assert entry["test_rmse"] == statistics.fmean(values) and values[0] != values[1]
        assert entry["finalist"]["device"]["this-machine"]["1"]["latency_ms"]["mean"] > 0
        assert all(record["clips"] == summary["dataset"]["test_clips"] for record in records)
    gain = summary["baselines"]["by-hand"]["test_rmse"] / best["test_rmse"]
    assert best["against"]["by-hand"]["test_quality_gain"] == pytest.approx(gain)
    assert f"{best['test_rmse']:.4f} ± {best['finalist']['test_rmse']['std']:.4f}" in finished.output


def test_what_was_not_trained_has_no_test_figure(finished):
    summary = read_json(finished.path("summary.json"))
    untrained = summary["baselines"]["latency-only"]
    assert untrained["finalist"] is None and untrained["test_rmse"] is None
    assert summary["best"]["against"]["latency-only"]["test_quality_gain"] is None
    assert all(entry["finalist"] is None for entry in summary["front"][1:])


def test_no_finalist_has_a_seed_that_the_search_used(finished):
    best = read_json(finished.path("summary.json"))["best"]["candidate"]
    seeds = [read_json(finished.path(f"finalists/{best}/{number}/train.json"))["seed"] for number in (1, 2)]
    assert len({read_json(finished.path(f"candidates/{best}/train.json"))["seed"], *seeds}) == 3


def test_only_the_finalists_evaluation_reads_the_test_clips(copy):
    """The whole search, from its first decision to its baselines and comparisons, without a byte of them."""
    before = copy.contents("generations/*/state.json")
    for folder in ("generations", "finalists"):
        shutil.rmtree(copy.path(folder))
    for file in (*copy.path("").glob("*.json"), *copy.path("candidates").glob("*/*")):
        if file.name != "genotype.json":
            file.unlink()
    for name in ("test.clips.npy", "test.targets.npy", "test.index.csv"):
        copy.path(f"data/{name}").write_bytes(b"poison")
    output = copy.snakemake("--keep-going", fails=True)
    executed = copy.executed(output)
    assert executed["summarise"] == executed["evaluate"] == 0 and "Error in rule evaluate" in output
    assert executed["train"] == executed["measure"] == 6 and executed["compare"] == executed["nominate"] == 1
    assert executed["train_finalist"] == executed["export_finalist"] == executed["measure_finalist"] == 4
    assert (
        copy.path("generations/history.2.json").exists()
        and copy.contents("generations/*/state.json").keys() == before.keys()
    )
    failed = {line.split()[-1].rstrip(":") for line in output.splitlines() if line.startswith("Error in rule")}
    assert failed == {"evaluate"}


def test_the_test_is_seen_by_nobody_before_the_search_has_ended(copy):
    """Not even a baseline's evaluation, which needs nothing of the search, may come earlier."""
    copy.path("finalists.json").unlink()
    shutil.rmtree(copy.path(f"finalists/{hand_made(copy)}"))
    for file in copy.path("generations").glob("history.*.json"):
        file.unlink()
    output = copy.snakemake()
    finished_at = {
        rule: output.index(f"(Rule: {rule})") for rule in ("conclude", "nominate", "train_finalist", "evaluate")
    }
    assert finished_at["conclude"] < finished_at["nominate"] < finished_at["evaluate"]


def test_more_seeds_train_only_those_that_are_new(copy):
    before = copy.contents("finalists/*/[12]/*.json")
    copy.config["finalists"]["seeds"] = 3
    executed = copy.executed(copy.snakemake())
    assert of_finalists(executed) == dict.fromkeys(STAGES, 2)
    assert executed["bundle"] == executed["summarise"] == 1 and not {"train", "select", "sample"} & executed.keys()
    assert copy.contents("finalists/*/[12]/*.json") == before
    assert len(read_json(copy.path("summary.json"))["best"]["finalist"]["test_rmse"]["values"]) == 3
    assert "Nothing to be done" in copy.snakemake()


def test_more_finalists_and_another_budget_touch_nothing_of_the_search(copy):
    searched = copy.contents("candidates/*/*") | copy.contents("generations/*/*")
    before = read_json(copy.path("summary.json"))
    copy.config["finalists"] |= {"count": 2, "seeds": 1, "epochs": 2, "clips": 40}
    executed = copy.executed(copy.snakemake())
    assert of_finalists(executed) == dict.fromkeys(STAGES, 3)
    assert copy.contents("candidates/*/*") | copy.contents("generations/*/*") == searched
    summary = read_json(copy.path("summary.json"))
    names = read_json(copy.path("finalists.json"))["candidates"]
    assert names[0] == summary["best"]["candidate"] and len(names) == 2
    record = read_json(copy.path(f"finalists/{names[1]}/1/train.json"))
    assert record["epochs"] == 2 and record["training_clips"] == 40
    assert summary["best"]["finalist"]["test_rmse"]["std"] is None
    assert summary["search"] == before["search"]
    assert all(copy.path(f"finalists/{name}/bundle.zip").stat().st_size for name in names)


def test_a_longer_search_trains_a_finalist_only_when_it_is_another_one(copy):
    before = read_json(copy.path("finalists.json"))["candidates"]
    copy.config["search"]["max_generations"] = 3
    executed = copy.executed(copy.snakemake())
    after = read_json(copy.path("finalists.json"))["candidates"]
    assert executed["nominate"] == 1
    assert of_finalists(executed) == dict.fromkeys(STAGES, 0 if after == before else 2)
    assert after == [read_json(copy.path("summary.json"))["best"]["candidate"]]


def test_when_the_front_changes_the_run_that_changes_it_ends_with_the_new_finalists(copy):
    """The history is there and is made anew, so that a run begins with a list of finalists that will not stand."""
    before = read_json(copy.path("summary.json"))["front"]
    known = read_json(sorted(copy.path("generations").glob("*/state.json"))[-1])["candidates"]
    latencies = [known[entry["candidate"]]["devices"]["this-machine"]["latency_ms"] for entry in before[:2]]
    copy.config["devices"]["this-machine"]["budget_ms"] = (latencies[0] + latencies[1]) / 2
    copy.snakemake()
    best = read_json(copy.path("summary.json"))["best"]
    assert best["candidate"] != before[0]["candidate"]
    assert read_json(copy.path("finalists.json"))["candidates"] == [best["candidate"]]
    assert len(best["finalist"]["test_rmse"]["values"]) == 2
    assert copy.path(f"finalists/{best['candidate']}/bundle.zip").stat().st_size
    assert "Nothing to be done" in copy.snakemake()


def test_without_finalists_nothing_is_trained_twice_or_tested(copy):
    shutil.rmtree(copy.path("finalists"))
    copy.path("finalists.json").unlink()
    copy.config["finalists"]["count"] = 0
    executed = copy.executed(copy.snakemake())
    assert set(executed) <= {"summarise", "report", "all"}
    assert not copy.path("finalists").exists()
    assert read_json(copy.path("summary.json"))["best"]["test_rmse"] is None


def test_an_empty_front_has_no_finalists_and_the_run_ends_well(copy):
    copy.config["devices"]["this-machine"]["budget_ms"] = 1e-5
    copy.config["search"]["max_generations"] = 2
    output = copy.snakemake()
    assert "No trained candidate meets the budgets" in output
    assert read_json(copy.path("finalists.json"))["candidates"] == []
    assert read_json(copy.path("summary.json"))["baselines"]["by-hand"]["test_rmse"] is not None


@pytest.mark.parametrize("broken", [(1,), (1, 2)], ids=["one-seed", "every-seed"])
def test_a_finalist_that_fails_is_data_and_the_others_count(copy, broken):
    best = read_json(copy.path("summary.json"))["best"]["candidate"]
    for seed in broken:
        folder = copy.path(f"finalists/{best}/{seed}")
        record = read_json(folder / "train.json")
        failed = {key: record[key] for key in ("schema_version", "candidate", "work")}
        failed |= {"status": "failed", "reason": "training diverged: the loss is not finite"}
        (folder / "train.json").write_text(json.dumps(failed))
        (folder / "weights.pt").write_bytes(b"")
    executed = copy.executed(copy.snakemake())
    assert of_finalists(executed) == {"train_finalist": 0} | dict.fromkeys(STAGES[1:], len(broken))
    found = read_json(copy.path("summary.json"))["best"]["finalist"]
    assert found["failed"] == {str(seed): "training diverged: the loss is not finite" for seed in broken}
    bundle = copy.path(f"finalists/{best}/bundle.zip")
    if len(broken) == 2:
        assert found["test_rmse"] is None and bundle.stat().st_size == 0
    else:
        assert len(found["test_rmse"]["values"]) == 1 and found["chosen"] == 2
        assert (
            json.loads(zipfile.ZipFile(bundle).read("model-card.json"))["test"]["of_all_seeds"]["rmse"]["std"] is None
        )
    assert "Nothing to be done" in copy.snakemake()


def test_the_same_records_give_the_same_bundle_to_the_last_byte(copy):
    before = copy.contents("finalists/*/bundle.zip")
    assert len(before) == 1
    for file in before:
        (copy.folder / file).unlink()
    executed = copy.executed(copy.snakemake())
    assert dict(executed) == {"bundle": 1, "all": 1}
    assert copy.contents("finalists/*/bundle.zip") == before


def test_a_bundle_computes_on_this_machine_what_the_summary_says_of_it(finished, tmp_path):
    (bundle,) = finished.path("finalists").glob("*/bundle.zip")
    card = json.loads(zipfile.ZipFile(bundle).read("model-card.json"))
    done = subprocess.run(
        [sys.executable, "-m", "edge", "deploy", "--folder", str(tmp_path / "there"), str(bundle)],
        env=finished.environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [sys.executable, str(tmp_path / "there/predict.py"), str(finished.path("data/test.clips.npy"))],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    words = [line.rpartition(": ")[2].replace(" mm/s,", "").split()[:2] for line in done.stdout.splitlines()]
    targets = np.load(finished.path("data/test.targets.npy")) * [900, 215]
    error = np.sqrt(np.mean((np.array(words, float) - targets) ** 2, axis=0))
    assert error == pytest.approx([card["test"]["rmse_speed_mm_s"], card["test"]["rmse_power_w"]], abs=0.1)


def test_on_a_cluster_finalists_ask_for_what_their_own_budget_needs(copy):
    best = read_json(copy.path("finalists.json"))["candidates"][0]
    copy.config["training"]["gpus"] = 2
    copy.config["finalists"]["epochs"] = 10**10
    copy.config["cluster"] = {"gpus_per_node": 4, "max_runtime_min": 10**9}
    plan = copy.snakemake(
        "--dry-run", "--executor", "slurm", "--jobs", "1", "--forceall", f"results/finalists/{best}/1/test.json"
    )
    asked = {
        rule: re.search(rf"^rule {rule}:.*?^    resources: (.*?)$", plan, re.MULTILINE | re.DOTALL)[1]
        for rule in ("train_finalist", "evaluate")
    }
    assert "gres=gpu:2" in asked["train_finalist"] and "gres=gpu:1" in asked["evaluate"]
    # The search's own trainings, of one epoch, ask for half an hour.
    assert int(re.search(r"runtime=(\d+)", asked["train_finalist"])[1]) > 60
