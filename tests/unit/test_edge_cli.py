"""`python -m edge`, as a person runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edge.reference import reference_model


@pytest.fixture
def model(tmp_path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(reference_model())
    return path


def edge(folder: Path, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120)


def test_without_any_configuration_this_machine_measures(tmp_path, model):
    (tmp_path / "broken.onnx").write_text("not a model")
    run = edge(tmp_path, "measure", "--device", "local", "--runs", 50, "--json", "out.json", model, "broken.onnx")
    title, good, bad = run.stdout.splitlines()
    assert title.split()[0] == "model" and "p99 ms" in title
    assert title.index("p5 ms") + len("p5 ms") == good.index(good.split()[1]) + len(good.split()[1])
    assert good.split()[0] == "model.onnx" and float(good.split()[1]) > 0
    assert bad.startswith("broken.onnx") and "failed: InvalidProtobuf" in bad
    assert run.returncode == 1
    records = json.loads((tmp_path / "out.json").read_text())["records"]
    assert [r["status"] for r in records] == ["ok", "failed"]


def test_an_enrolment_is_written_and_used(tmp_path, model):
    (tmp_path / "config").mkdir()
    entry = {"work_folder": str(tmp_path / "work"), "lock_file": str(tmp_path / "lock")}
    (tmp_path / "config" / "config.yaml").write_text(json.dumps({"devices": {"here": entry}}))
    run = edge(tmp_path, "enroll", "--device", "here", "--json", "here.json")
    assert run.returncode == 0, run.stderr
    assert "onnxruntime" in run.stdout
    assert (tmp_path / "work").is_dir()
    run = edge(tmp_path, "measure", "--device", "here", "--enrolment", "here.json", model)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        (None, ["--device", "jetson", "m.onnx"], "there is no configuration"),
        ("devices: {a: {}}", ["--device", "jetson", "m.onnx"], "has no device 'jetson'. It has 'a'."),
        ("devices: [", ["--device", "a", "m.onnx"], "is not valid YAML"),
        ("other: 1", ["--device", "a", "m.onnx"], "has no mapping `devices`"),
        ("devices: {a: {port: x}}", ["--device", "a", "m.onnx"], "device 'a': port is 'x'"),
        (
            "devices: {a: {transport: ssh, host: h, known_hosts: /none}}",
            ["--device", "a", "m.onnx"],
            "/none is missing",
        ),
        (None, ["absent.onnx"], "there is no file absent.onnx"),
        (None, ["--shape", "clip=1,x", "m.onnx"], "--shape 'clip=1,x'"),
        (None, ["--runs", "0", "m.onnx"], "min_runs"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, model, config, arguments, words):
    model.rename(tmp_path / "m.onnx")
    if config:
        (tmp_path / "config").mkdir()
        (tmp_path / "config" / "config.yaml").write_text(config)
    run = edge(tmp_path, "measure", *arguments)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("edge: ") and words in line


@pytest.mark.parametrize("known_hosts", [True, False])
def test_a_device_without_a_key_of_its_own_that_is_off_is_told_as_far_as_it_was_tried(tmp_path, known_hosts):
    file = tmp_path / "known_hosts"
    if known_hosts:
        file.touch()
    (tmp_path / "config.yaml").write_text(
        f"devices: {{far: {{transport: ssh, host: 127.0.0.1, port: 1, budget_ms: 1, known_hosts: {file}}}}}"
    )
    run = edge(tmp_path, "enroll", "--device", "far", "--config", "config.yaml")
    assert run.returncode != 0 and "Traceback" not in run.stderr
    (check, advice) = run.stdout.splitlines()
    if known_hosts:
        assert check.startswith("missing  reachable") and "connection refused" in check
    else:
        assert check.startswith("missing  host keys") and "is missing" in check
    assert advice.strip().startswith("->")
