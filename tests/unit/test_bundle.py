"""What is deployed: one zip, always the same bytes, that needs nothing but numpy and onnxruntime."""

import ast
import json
import os
import re
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from bundles import CANDIDATE, clips, make_bundle

from edgeloop import bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    path, outputs = make_bundle(folder)
    zipfile.ZipFile(path).extractall(folder / "on-the-device")
    return path, folder / "on-the-device", outputs


def predict(folder, *arguments):
    """As on a device: nothing of edgeloop can be imported."""
    code = (
        "import sys, runpy\n"
        "class Refuse:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0] in ('edgeloop', 'edge', 'torch', 'onnx'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    command = [sys.executable, "-c", code, str(folder / "predict.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd="/", env={"PATH": os.environ["PATH"]})


def test_the_same_finalist_gives_the_same_bytes_at_any_time(made, tmp_path, monkeypatch):
    files = {"model.onnx": b"a network", "predict.py": b"a program"}
    first = bundle.zipped(files)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert bundle.zipped(files) == first
    path, folder, _ = made
    again = {name: (folder / name).read_bytes() for name in zipfile.ZipFile(path).namelist()}
    assert bundle.zipped(again) == path.read_bytes()


def test_every_file_has_a_checksum_that_sha256sum_accepts(made):
    path, folder, _ = made
    names = set(zipfile.ZipFile(path).namelist())
    assert names == {"model.onnx", "model-card.json", "model-card.md", "predict.py", "self-test.npz", "SHA256SUMS"}
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(names) - 1


def test_a_raw_clip_gives_speed_and_power_in_physical_units(made, tmp_path):
    _, folder, outputs = made
    np.save(tmp_path / "one.npy", clips()[0])
    np.save(tmp_path / "all.npy", clips())
    done = predict(folder, tmp_path / "one.npy", tmp_path / "all.npy")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\w+)\.npy, clip (\d+): (-?[\d.]+) mm/s, (-?[\d.]+) W", done.stdout)
    assert [(name, int(number)) for name, number, *_ in found] == [("one", 0), *(("all", n) for n in range(6))]
    figures = np.array([figures for *_, speed, power in found for figures in [(float(speed), float(power))]])
    np.testing.assert_allclose(figures, np.vstack([outputs[:1], outputs]), atol=0.051)


def test_the_self_test_passes_as_delivered_and_fails_on_another_network(made, tmp_path):
    _, folder, _ = made
    done = predict(folder, "--self-test")
    assert done.returncode == 0 and "self-test good: 4 clips" in done.stdout
    path, _ = make_bundle(tmp_path, outputs_off_by=0.01)
    zipfile.ZipFile(path).extractall(tmp_path / "other")
    done = predict(tmp_path / "other", "--self-test")
    assert done.returncode == 1 and "self-test FAILED" in done.stdout


def test_a_bundle_in_int8_tests_and_tells_what_it_computes_itself(tmp_path):
    path, outputs = make_bundle(tmp_path, precision="int8")
    zipfile.ZipFile(path).extractall(tmp_path / "there")
    assert predict(tmp_path / "there", "--self-test").returncode == 0
    known = np.load(tmp_path / "there/self-test.npz")
    np.testing.assert_allclose(known["outputs"], outputs[:4])
    card = json.loads((tmp_path / "there/model-card.json").read_text())
    model = card["model"]
    # The records say 0.1 of the training; what was deployed has errors of its own.
    assert model["precision"] == "int8" and model["in_pytorch"]["val_rmse_speed_mm_s"] == pytest.approx(90)
    errors = np.sqrt(np.mean((outputs - [900, 215]) ** 2, axis=0))
    assert [card["training"][f"val_rmse_{key}"] for key in ("speed_mm_s", "power_w")] == pytest.approx(errors)
    text = (tmp_path / "there/model-card.md").read_text()
    assert "computes in int8" in text and "90.0 mm/s" in text and f"{errors[0]:.1f}" in text


@pytest.mark.parametrize(
    "wrong", [np.zeros((16, 41, 41)), np.zeros((4, 41, 41), np.uint8), np.zeros((16, 40, 41), "u1")]
)
def test_clips_that_do_not_fit_are_refused_with_what_was_expected(made, tmp_path, wrong):
    np.save(tmp_path / "clip.npy", wrong)
    done = predict(made[1], tmp_path / "clip.npy")
    assert done.returncode == 1 and "expected uint8 [n, 8 or more, 41, 41]" in done.stderr


def test_the_program_is_short_and_runs_on_python_3_8(made):
    text = bundle.PREDICT.read_text()
    ast.parse(text, feature_version=(3, 8))
    assert len(text.splitlines()) <= 52
    imported = {
        alias.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import) for alias in node.names
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_the_card_tells_data_units_test_and_devices(made):
    _, folder, _ = made
    card = json.loads((folder / "model-card.json").read_text())
    assert card["candidate"] == CANDIDATE
    assert card["output"]["unit"] == ["mm/s", "W"] and card["output"]["scale"] == [900, 215]
    assert card["training"]["objects"] == ["S001", "S002"] and card["test"]["objects"] == ["S003"]
    assert card["test"]["rmse_speed_mm_s"] == pytest.approx(360)
    assert card["test"]["of_all_seeds"]["rmse"] == {
        "mean": pytest.approx(0.35), "std": pytest.approx(0.0707, rel=1e-3), "values": [0.3, 0.4]
    }  # fmt: skip
    assert card["devices"]["bench"]["fingerprint"]["board"] == "a board"
    assert card["devices"]["bench"]["measurements"][0]["latency_p50_ms"] == 0.1
    assert any("25 x 25" in step for step in card["preprocessing"]["in_graph"])
    text = (folder / "model-card.md").read_text()
    for words in ("315.0 ± 63.6 (2 seeds)", "simulated video", "S003", "a board", "square root", "0.2"):
        assert words in text
