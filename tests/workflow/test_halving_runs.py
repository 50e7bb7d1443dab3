"""Generations that are halved: some stop early, the rest comes to what a training in one go would have come to."""

import json
import shutil
import subprocess
import sys

import pytest
import test_record_schemas

from edgeloop import status
from edgeloop.archive import replay, unpack
from edgeloop.data.cache import open_split
from edgeloop.search import halving
from edgeloop.training import Settings, train

pytestmark = pytest.mark.workflow

EPOCHS, RUNGS = 3, [1, 2]
TIMES = {"training_s", "samples_per_s", "loader_samples_per_s", "network_samples_per_s", "work", "device"}


def read(run, name):
    return json.loads(run.path(name).read_text())


def halved_copy(finished, folder, **training):
    """The data and the device of the finished search, and a search that halves its generations."""
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    run = type(finished)(folder, finished.source)
    shutil.rmtree(run.path("generations"))
    shutil.rmtree(run.path("candidates"))
    run.config["training"] |= {"epochs": EPOCHS, **training}
    run.config["search"] |= {"generation_size": 4, "halving": {"epochs": RUNGS}}
    run.config["screening"]["pool"] = 6
    run.config["baselines"].pop("by-hand")
    return run


@pytest.fixture(scope="module")
def halved(finished, tmp_path_factory):
    run = halved_copy(finished, tmp_path_factory.mktemp("halved"))
    run.output = run.snakemake()
    return run


def test_of_four_two_go_on_and_then_one_and_only_that_is_a_result(halved):
    executed = halved.executed(halved.output)
    assert (executed["train_short"], executed["promote"]) == (2 * (4 + 2), 2 * 2)
    assert executed["train"] == 2 * 1 + 1  # and the baseline
    for generation in ("000", "001"):
        population = read(halved, f"generations/{generation}/population.json")
        first, second = (read(halved, f"generations/{generation}/promoted.{rung}.json") for rung in RUNGS)
        assert sorted([*first["candidates"], *first["left_out"]]) == sorted(population["candidates"])
        assert sorted([*second["candidates"], *second["left_out"]]) == sorted(first["candidates"])
        entries = read(halved, f"generations/{generation}/state.json")["candidates"]
        statuses = {name: entries[name]["status"] for name in population["candidates"]}
        assert [name for name, status in statuses.items() if status == "ok"] == second["candidates"]
        assert sorted(statuses.values()) == ["dropped", "dropped", "dropped", "ok"]
        assert list(entries[second["candidates"][0]]["rungs"]) == ["1", "2"]
    summary = read(halved, "summary.json")["search"]
    assert (summary["trained"], summary["dropped"], summary["failed"]) == (2, 6, 0)
    assert ", 6 left out early" in halved.output


def check_trained_in_one_go(run, tmp_path):
    """That who came through both rungs of the first generation is what a training in one go comes to."""
    (name,) = read(run, "generations/000/promoted.2.json")["candidates"]
    genotype = read(run, f"candidates/{name}/genotype.json")["genotype"]
    splits = (open_split(run.path("data"), split) for split in ("train", "validation"))
    record = train(genotype, *splits, Settings(epochs=EPOCHS, seed=1), weights_path=tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt").read_bytes() == run.path(f"candidates/{name}/weights.pt").read_bytes()
    assert without_times(read(run, f"candidates/{name}/train.json")) == without_times(record)


def without_times(record):
    return {key: value for key, value in record.items() if key not in TIMES}


def test_the_front_was_trained_to_the_weights_of_a_training_in_one_go(halved, tmp_path):
    check_trained_in_one_go(halved, tmp_path)


def test_records_keep_to_their_schema(halved):
    further = {"candidates/*/rung.*.json": "train", "generations/*/promoted.*.json": "promoted"}
    for pattern, kind in {**test_record_schemas.KINDS, **further}.items():
        files = sorted(halved.path("").glob(pattern))
        assert files
        assert {f.name: p for f in files if (p := test_record_schemas.problems(kind, json.loads(f.read_text())))} == {}


def test_nothing_is_left_to_do_and_a_longer_search_repeats_nothing(halved, tmp_path):
    assert halved.jobs() == {}
    shutil.copytree(halved.folder, tmp_path / "run")
    longer = type(halved)(tmp_path / "run", halved.source, json.loads(json.dumps(halved.config)))
    longer.config["search"] |= {"max_generations": 3, "halving": {"epochs": [1], "factor": 4}}
    executed = longer.executed(longer.snakemake())
    # The new generation is halved as the configuration says now, the old ones are what they were.
    assert (executed["train_short"], executed["promote"], executed["train"]) == (4, 1, 1)
    before, after = (read(run, "generations/001/state.json") for run in (halved, longer))
    assert before == after


def test_every_leg_is_listed_for_retraining(halved):
    listed = subprocess.run(
        [sys.executable, "-m", "edgeloop", "files", "train", "0"], cwd=halved.folder, capture_output=True, text=True
    ).stdout.split()
    assert sum("rung.1.json" in file for file in listed) == 4
    assert sum("rung.2.json" in file for file in listed) == 2
    assert sum("train.json" in file for file in listed) == 1


def test_a_leg_that_is_trained_again_is_followed_by_those_after_it(halved, tmp_path):
    shutil.copytree(halved.folder, tmp_path / "run")
    again = type(halved)(tmp_path / "run", halved.source, json.loads(json.dumps(halved.config)))
    name = read(halved, "generations/000/promoted.2.json")["candidates"][0]
    executed = again.executed(again.snakemake("--forcerun", f"results/candidates/{name}/rung.1.json"))
    assert (executed["train_short"], executed["train"], executed["promote"], executed["sample"]) == (2, 1, 0, 0)
    weights = f"candidates/{name}/weights.pt"
    assert again.path(weights).read_bytes() == halved.path(weights).read_bytes()


def test_packs_train_the_same_and_leave_out_by_the_same_rule(halved, finished, tmp_path):
    packed = halved_copy(finished, tmp_path / "run", pack=2)
    packed.config["search"]["max_generations"] = 1
    executed = packed.executed(packed.snakemake())
    # Packs of two: two for the first rung, one for the second, one for the full training.
    assert (executed["train_short_pack"], executed["train_pack"], executed["train_short"]) == (3, 1, 0)
    # Latencies are those of the run itself: who goes on may be another one than in the other run.
    population = read(packed, "generations/000/population.json")
    entrants = population["candidates"]
    for rung in RUNGS:
        records = {name: read(packed, f"candidates/{name}/rung.{rung}.json") for name in entrants}
        for name, record in records.items():
            if halved.path(other := f"candidates/{name}/rung.{rung}.json").exists():
                assert without_times(record) == without_times(read(halved, other))
        entrants = read(packed, f"generations/000/promoted.{rung}.json")["candidates"]
        assert entrants == halving.decide(population, records)
    check_trained_in_one_go(packed, tmp_path)


def test_its_archive_is_replayed_and_its_status_tells_who_was_left_out(halved, tmp_path):
    found = status.gather(halved.folder)
    assert (found.trained, found.dropped, found.failed, found.infeasible) == (2, 6, 0, 0)
    shutil.copytree(halved.folder, tmp_path / "run")
    run = type(halved)(tmp_path / "run", halved.source, json.loads(json.dumps(halved.config)))
    run.snakemake("archive")
    (archive,) = run.path("archive").glob("*.zip")
    opened = tmp_path / "opened"
    _, config = unpack.extract(archive, opened)
    verdicts = list(replay.replay(opened, config))
    assert [(verdict.generation, verdict.same) for verdict in verdicts] == [(0, True)] * 2 + [(1, True)] * 2
    # Had others gone on, it would be told.
    file = opened / "results/generations/001/promoted.1.json"
    promoted = json.loads(file.read_text())
    swapped = {**promoted, "candidates": promoted["left_out"], "left_out": promoted["candidates"]}
    for name in swapped["candidates"]:
        shutil.copy(next(opened.glob("results/candidates/*/rung.2.json")), opened / f"results/candidates/{name}")
    file.write_text(json.dumps(swapped))
    told = [verdict.said for verdict in replay.replay(opened, config) if not verdict.same]
    assert any("others go on after 1 epochs" in said for said in told)
