"""A search in packs finds what one without finds, and what is in a pack is as resumable as what is not."""

import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.workflow

TIMES = {"training_s", "samples_per_s", "loader_samples_per_s", "network_samples_per_s", "export_s", "work"}


def populations(run):
    files = sorted(run.path("generations").glob("*/population.json"))
    return [json.loads(file.read_text())["candidates"] for file in files]


def figures(run, kind, candidates):
    """The records of one kind without what takes another time each time."""
    records = (json.loads(run.path(f"candidates/{candidate}/{kind}.json").read_text()) for candidate in candidates)
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


@pytest.fixture(scope="module")
def packed(finished, tmp_path_factory):
    """The finished search, its first generation decided and trained again in a pack: its folder must not be changed."""
    folder = tmp_path_factory.mktemp("packed")
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    run = type(finished)(folder, finished.source)
    (first, _) = populations(run)
    for candidate in first:
        shutil.rmtree(run.path(f"candidates/{candidate}"))
    shutil.rmtree(run.path("generations/001"))
    run.path("generations/000/population.json").unlink()
    run.config["training"]["pack"] = 2
    run.config["search"]["max_generations"] = 1
    run.output = run.snakemake()
    return run


def copy_of(run, folder):
    shutil.copytree(run.folder, folder, dirs_exist_ok=True)
    return type(run)(folder, run.source, json.loads(json.dumps(run.config)))


def test_in_packs_the_same_networks_are_trained_to_the_same_bytes(finished, packed):
    executed = packed.executed(packed.output)
    assert executed["train_pack"] == executed["export_pack"] == 1 and executed["unpack"] == 2
    assert not {"train", "export"} & executed.keys()  # the baselines are what they were
    (first,) = populations(packed)
    assert first == populations(finished)[0]
    for candidate in first:
        for name in ("weights.pt", "model.onnx"):
            file = f"candidates/{candidate}/{name}"
            assert packed.path(file).read_bytes() == finished.path(file).read_bytes()
    for kind in ("train", "export"):
        assert figures(packed, kind, first) == figures(finished, kind, first)
    assert not list(packed.path("packs").glob("*/.stash*"))


@pytest.mark.parametrize("pack", [2, 1, 4])
def test_a_second_run_does_nothing_whatever_the_packs_size_has_become(packed, tmp_path, pack):
    run = copy_of(packed, tmp_path)
    run.config["training"]["pack"] = pack
    assert "Nothing to be done" in run.snakemake("--dry-run")


def test_what_was_trained_without_packs_is_not_trained_again_when_there_are_some(copy):
    copy.config["training"]["pack"] = 2
    assert "Nothing to be done" in copy.snakemake("--dry-run")


def test_one_line_trains_the_packs_of_a_generation_again(packed, tmp_path):
    run = copy_of(packed, tmp_path)
    for stage, expected in (("train", {"train_pack": 1, "export_pack": 1}), ("export", {"export_pack": 1})):
        listed = subprocess.run(
            [sys.executable, "-m", "edgeloop", "files", stage, "0"],
            cwd=run.folder, env=run.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        (pack,) = listed.stdout.split()
        jobs = run.jobs("all", "-R", pack)
        assert {name: count for name, count in jobs.items() if name.endswith("_pack")} == expected
        assert jobs["unpack"] == jobs["measure"] == 2
        assert not {"train", "export", "sample", "prepare"} & jobs.keys()


def test_a_pack_that_broke_off_goes_on_with_what_is_missing(packed, tmp_path):
    run = copy_of(packed, tmp_path)
    (first,) = populations(run)
    (pack,) = run.path("packs").iterdir()
    broken = run.path(f"candidates/{first[1]}/genotype.json")
    good = broken.read_text()
    broken.write_text(good.replace('"lr"', '"learning"'))
    output = run.snakemake(f"results/packs/{pack.name}/train", "--force", fails=True)
    assert "1 of the 2 candidates" in output and first[1] in output and "no gene 'learning'" in output
    assert [file.name for file in (pack / ".stash-train").iterdir()] == [first[0]]
    kept = (pack / f".stash-train/{first[0]}/{first[0]}.json").read_bytes()
    broken.write_text(good)
    run.snakemake(f"results/packs/{pack.name}/train")
    assert (pack / f"train/{first[0]}.json").read_bytes() == kept
    assert (pack / f"train/{first[1]}.pt").read_bytes() == packed.path(f"candidates/{first[1]}/weights.pt").read_bytes()
    assert not (pack / ".stash-train").exists()
