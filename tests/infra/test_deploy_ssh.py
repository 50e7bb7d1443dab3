"""Deploying over SSH, against a real sshd."""

import subprocess
import sys
import time

import pytest
import yaml
from bundles import make_bundle

import edge
from edge.deploy import deploy
from edge.transport_ssh import SshTransport

pytestmark = pytest.mark.infra


def test_a_bundle_is_deployed_over_ssh_and_reported_by_the_command(sshd, tmp_path):
    bundle, _ = make_bundle(tmp_path)
    device = sshd.device(tmp_path)
    keys = ("transport", "host", "port", "user", "identity_file", "known_hosts", "python", "work_folder", "lock_file")
    (tmp_path / "devices.yaml").write_text(
        yaml.safe_dump({"devices": {"loopback": {k: getattr(device, k) for k in keys}}})
    )
    logins = sshd.log().count("Accepted publickey")
    command = [sys.executable, "-m", "edge", "deploy", "--device", "loopback", "--config", "devices.yaml"]
    run = subprocess.run(
        [*command, "--folder", str(tmp_path / "there"), str(bundle)],
        cwd=tmp_path, text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "self-test good: 4 clips" in run.stdout and f"deployed to {tmp_path / 'there'}" in run.stdout
    assert (tmp_path / "there/predict.py").is_file()
    assert sshd.log().count("Accepted publickey") == logins + 1


def test_a_device_without_onnxruntime_says_so_and_keeps_nothing(sshd, tmp_path):
    bundle, _ = make_bundle(tmp_path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    device = sshd.device(tmp_path, python=str(tmp_path / "bare/bin/python"))
    done = deploy(device, bundle, str(tmp_path / "there"))
    assert not done.passed and "No module named 'numpy'" in done.said
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("quick", [False, True])
def test_a_device_without_python_is_an_error_that_names_it(sshd, tmp_path, monkeypatch, quick):
    bundle, _ = make_bundle(tmp_path)
    start = SshTransport.start

    def ended(*args):
        process = start(*args)
        deadline = time.monotonic() + 10
        while not process.channel.closed:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return process

    if quick:  # it has ended before the first word to it
        monkeypatch.setattr(SshTransport, "start", ended)
    with pytest.raises(edge.RuntimeMissing, match="python-of-the-future"):
        deploy(sshd.device(tmp_path, python="python-of-the-future"), bundle)
