"""`python -m edge deploy`: a bundle is on a device when it has passed its own test there, and not before."""

import fcntl
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bundles import CANDIDATE, make_bundle

from edge import Device, DeviceBusy, StorageFailed
from edge.deploy import deploy
from edgeloop.bundle import zipped


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle"))[0]


@pytest.fixture
def device(tmp_path) -> Device:
    return Device.from_config("bench", {"lock_file": str(tmp_path / "lock"), "lock_timeout_s": 0})


def changed(bundle: Path, target: Path, **files) -> Path:
    """A copy of the bundle with other bytes in some of its files."""
    with zipfile.ZipFile(bundle) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    target.write_bytes(zipped(content | files))
    return target


def edge(folder: Path, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, text=True, capture_output=True, timeout=120)


def test_a_bundle_is_sent_tested_there_and_put_into_its_place(bundle, tmp_path):
    target = tmp_path / "deployed"
    run = edge(tmp_path, "deploy", "--device", "local", "--folder", target, "--json", "out.json", bundle)
    assert run.returncode == 0, run.stderr
    sent, said, where = run.stdout.splitlines()
    assert sent == f"{CANDIDATE}: {bundle.stat().st_size:,} bytes sent to local (local), checksums good"
    assert said.startswith("self-test good: 4 clips, outputs differ by up to ")
    assert where == f"deployed to {target}"
    assert json.loads((tmp_path / "out.json").read_text())["passed"] is True
    assert {file.name for file in target.iterdir()} == set(zipfile.ZipFile(bundle).namelist())
    assert {entry.name for entry in tmp_path.iterdir()} == {"deployed", "out.json"}


def test_without_a_folder_it_comes_into_the_home_of_the_user_under_its_own_name(bundle, tmp_path, device, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert deploy(device, bundle).folder == str(tmp_path / f"edgeloop-{CANDIDATE}")


def test_a_new_bundle_takes_the_place_of_the_old_one_and_one_that_fails_does_not(bundle, tmp_path, device):
    target = tmp_path / "deployed"
    assert deploy(device, bundle, str(target)).passed
    (target / "of-the-old-one").touch()
    (tmp_path / "off").mkdir()
    wrong, _ = make_bundle(tmp_path / "off", outputs_off_by=0.01)
    failed = deploy(device, wrong, str(target))
    assert not failed.passed and failed.said.startswith("self-test FAILED")
    assert (target / "of-the-old-one").exists()
    assert edge(tmp_path, "deploy", "--folder", target, wrong).returncode == 1
    assert deploy(device, bundle, str(target)).passed
    assert not (target / "of-the-old-one").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"deployed", "lock", "off"}


def test_a_file_that_is_not_as_its_checksum_says_is_never_deployed(bundle, tmp_path, device):
    damaged = changed(bundle, tmp_path / "damaged.zip", **{"model.onnx": b"another network"})
    run = edge(tmp_path, "deploy", "--folder", tmp_path / "deployed", damaged)
    assert run.returncode == 2 and "the checksum of model.onnx" in run.stderr
    assert {entry.name for entry in tmp_path.iterdir()} == {"damaged.zip"}


def test_a_folder_that_is_no_bundle_is_left_alone(bundle, tmp_path, device):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    with pytest.raises(StorageFailed, match=r"mine is there, and is no bundle\. Remove it, or name another place"):
        deploy(device, bundle, str(tmp_path / "mine"))
    assert (tmp_path / "mine/letter.txt").read_text() == "dear"


def test_while_somebody_measures_nothing_is_tested(bundle, tmp_path, device):
    with open(device.lock_file, "w") as held:
        held.write("pid 1 of a measurement")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DeviceBusy, match="held by pid 1 of a measurement"):
            deploy(device, bundle, str(tmp_path / "deployed"))
    assert {entry.name for entry in tmp_path.iterdir()} == {"lock"}


def test_a_self_test_that_does_not_end_is_ended(bundle, tmp_path):
    sums = zipfile.ZipFile(bundle).read("SHA256SUMS").decode().splitlines(keepends=True)
    sleeping = b"import time\ntime.sleep(60)\n"
    sums = [line for line in sums if "predict.py" not in line]
    sums.append(f"{hashlib.sha256(sleeping).hexdigest()}  predict.py\n")
    files = {"predict.py": sleeping, "SHA256SUMS": "".join(sums).encode()}
    slow = changed(bundle, tmp_path / "slow.zip", **files)
    device = Device.from_config("bench", {"lock_file": str(tmp_path / "lock"), "deadline_s": 0.5})
    done = deploy(device, slow, str(tmp_path / "deployed"))
    assert not done.passed and done.said == "the self-test was not done after 0.5 s (deadline_s)"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "there is no file bundle.zip"),
        (b"", "bundle.zip is empty: every training of this finalist failed"),
        (b"something", "bundle.zip is no bundle (File is not a zip file)"),
        (zipped({"other": b""}), "bundle.zip is no bundle"),
    ],
)
def test_what_is_no_bundle_is_told_in_one_line(tmp_path, content, words):
    if content is not None:
        (tmp_path / "bundle.zip").write_bytes(content)
    run = edge(tmp_path, "deploy", "bundle.zip")
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("edge: ") and words in line


def test_a_place_that_cannot_be_written_is_an_error_of_the_device(bundle, tmp_path, device):
    (tmp_path / "file").touch()
    with pytest.raises(StorageFailed, match="Not a directory"):
        deploy(device, bundle, str(tmp_path / "file/deployed"))
