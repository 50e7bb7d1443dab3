"""A search over precisions: the same networks in fp32 and in int8, each judged by what is deployed."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import test_record_schemas

from edgeloop import status
from edgeloop.archive import replay, unpack
from edgeloop.data.cache import window
from edgeloop.export import run as run_onnx
from edgeloop.models import registry
from edgeloop.precision import QUALITY
from edgeloop.records import architecture_id, read_json
from edgeloop.rmse import rmse

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def searched(finished, tmp_path_factory):
    """The data and the device of the finished search, and a search over precisions; both baselines are int8."""
    shutil.copytree(finished.folder, folder := tmp_path_factory.mktemp("precision"), dirs_exist_ok=True)
    run = type(finished)(folder, finished.source)
    for name in ("generations", "candidates", "finalists"):
        shutil.rmtree(run.path(name))
    run.config["space"] = "tests/configs/precision-space.yaml"
    run.config["search"]["generation_size"], run.config["screening"]["pool"] = 3, 6
    for baseline in run.config["baselines"].values():
        baseline["precision"] = "int8"
    # One epoch leaves nothing to tell apart.
    run.config["training"]["epochs"] = run.config["finalists"]["epochs"] = 3
    run.output = run.snakemake()
    return run


def last_state(run):
    return read_json(sorted(run.path("generations").glob("*/state.json"))[-1])


def by_precision(run):
    """Train and export records of the candidates, by precision."""
    found = {}
    for name, entry in last_state(run)["candidates"].items():
        records = [read_json(run.path(f"candidates/{name}/{part}.json")) for part in ("train", "export")]
        found.setdefault(entry["genotype"]["precision"], {})[name] = records
    return found


def test_both_precisions_are_proposed_screened_trained_and_measured(searched):
    assert by_precision(searched).keys() == {"fp32", "int8"}
    screened = last_state(searched)["screened"]
    assert {entry["genes"]["precision"] for entry in screened.values()} == {"fp32", "int8"}
    assert all(entry["costs"]["this-machine"]["latency_ms"] > 0 for entry in screened.values())
    assert all(architecture_id(entry["genes"]) == name for name, entry in screened.items())


def test_the_search_judges_int8_by_the_file_and_fp32_by_the_training(searched):
    state, records = last_state(searched), by_precision(searched)
    for _, export in records["fp32"].values():
        assert not {"precision", *QUALITY} & export.keys()
    for name, (train, export) in records["int8"].items():
        assert export["precision"] == "int8" and "DequantizeLinear" in export["operators"]
        assert train["val_rmse"] != export["val_rmse"]
        assert state["candidates"][name]["val_rmse"] == state["candidates"][name]["objectives"][0] == export["val_rmse"]
    for name, (train, _) in records["fp32"].items():
        assert state["candidates"][name]["val_rmse"] == train["val_rmse"]


def errors_of(run, folder, split):
    """What the network's file in `folder` comes to on a split of the cache."""
    clips, targets = (np.load(run.path(f"data/{split}.{part}.npy")) for part in ("clips", "targets"))
    genotype = read_json(run.path(f"candidates/{folder.split('/')[1]}/genotype.json"))["genotype"]
    frames = registry.input_frames(genotype["architecture"])
    return rmse(run_onnx(run.path(f"{folder}/model.onnx"), window(clips, frames)), targets)


def test_its_quality_is_that_of_the_file_on_the_whole_validation_split(searched):
    name, (_, export) = next(iter(by_precision(searched)["int8"].items()))
    found = errors_of(searched, f"candidates/{name}", "validation")
    assert {f"val_{figure}": value for figure, value in found.items()} == {key: export[key] for key in QUALITY}


def test_summary_and_status_tell_the_quality_of_what_is_deployed(searched):
    summary, state = read_json(searched.path("summary.json")), last_state(searched)
    assert [entry["val_rmse"] for entry in summary["front"]] == [
        state["candidates"][name]["val_rmse"] for name in state["front"]
    ]
    by_hand = summary["baselines"]["by-hand"]
    export = read_json(searched.path(f"candidates/{by_hand['candidate']}/export.json"))
    assert by_hand["val_rmse_speed_mm_s"] == export["val_rmse_speed_mm_s"]
    assert summary["baselines"]["latency-only"]["val_rmse"] is None
    assert summary["baselines"]["latency-only"]["device"]["this-machine"]["latency_ms"] > 0
    for candidate in status.gather(searched.folder).front:
        assert candidate["val_rmse"] == state["candidates"][candidate["name"]]["val_rmse"]


def test_the_test_of_a_finalist_is_that_of_its_file(searched):
    name = read_json(searched.path("summary.json"))["baselines"]["by-hand"]["candidate"]
    for seed in (1, 2):
        folder = f"finalists/{name}/{seed}"
        found, record = errors_of(searched, folder, "test"), read_json(searched.path(f"{folder}/test.json"))
        assert {f"test_{figure}": value for figure, value in found.items()} == {
            key: record[key] for key in record if key.startswith("test_")
        }
        measured = read_json(searched.path(f"{folder}/measure.this-machine.json"))
        # This machine has made the file, so it computes the same; PyTorch does not.
        assert measured["parity_max_abs_difference"] < 1e-5 < measured["pytorch_max_abs_difference"]


def test_its_records_keep_to_their_schemas_and_a_bundle_is_there(searched):
    for pattern, kind in test_record_schemas.KINDS.items():
        files = sorted(searched.path("").glob(pattern))
        assert files
        assert {f.name: p for f in files if (p := test_record_schemas.problems(kind, json.loads(f.read_text())))} == {}
    (bundle,) = searched.path("finalists").glob("*/bundle.zip")
    assert json.loads(zipfile.ZipFile(bundle).read("model-card.json"))["devices"]["this-machine"]


def test_nothing_is_left_to_do(searched):
    assert "Nothing to be done" in searched.snakemake()


def test_a_pack_exports_the_same_file(searched, tmp_path):
    shutil.copytree(searched.folder, tmp_path / "run")
    packed = type(searched)(tmp_path / "run", searched.source, json.loads(json.dumps(searched.config)))
    before = packed.contents("candidates/*/model.onnx")
    shutil.rmtree(packed.path("generations"))
    shutil.rmtree(packed.path("candidates"))
    packed.config["training"]["pack"] = 3
    packed.config["search"]["max_generations"] = 1
    packed.snakemake("results/generations/000/state.json")
    after = packed.contents("candidates/*/model.onnx")
    assert any(b"DequantizeLinear" in content for content in after.values())
    for file in after.keys() & before.keys():
        assert after[file] == before[file]
    assert after.keys() & before.keys()


def test_its_archive_is_replayed_and_goes_on_elsewhere(searched, tmp_path):
    shutil.copytree(searched.folder, tmp_path / "run")
    run = type(searched)(tmp_path / "run", searched.source, json.loads(json.dumps(searched.config)))
    run.snakemake("archive")
    (archive,) = run.path("archive").glob("*.zip")
    _, config = unpack.extract(archive, tmp_path / "opened")
    verdicts = list(replay.replay(tmp_path / "opened", config))
    assert verdicts and all(verdict.same for verdict in verdicts), verdicts
    # The untrained baseline in int8 is drawn anew, to the same file: there is nothing to say of it.
    assert unpack.unpack(archive, tmp_path / "unpacked") == []
