"""The edge over SSH, against a real sshd: it measures, and it trusts no stranger."""

import hashlib
import os
import socket
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from sample_models import make_model
from servers import make_key

import edge

pytestmark = pytest.mark.infra
QUICK = edge.Timing(min_runs=20, min_s=0.01, max_s=1.0, warmup_max_s=0.1, quiet_wait_s=0)


@pytest.fixture
def clips(tmp_path) -> Path:
    path = tmp_path / "clips.npy"
    np.save(path, np.random.default_rng(1).integers(0, 256, (3, 20, 41, 41), dtype=np.uint8))
    return path


def refused(device: edge.Device, error: type[edge.EdgeError]) -> str:
    """The message with which connecting to `device` is refused."""
    with pytest.raises(error) as caught, edge.connect(device):
        pass
    assert repr(device.name) in str(caught.value)
    return str(caught.value)


def test_a_device_is_enrolled_and_measures_over_one_connection(sshd, tmp_path, model, clips):
    logins = sshd.log().count("Accepted publickey")
    with edge.connect(sshd.device(tmp_path)) as session:
        enrolment = session.enrol()
        (record,) = session.measure([edge.Job(model, clips)], QUICK, enrolment=enrolment)
    assert enrolment["transport"] == "ssh"
    assert enrolment["fingerprint"]["onnxruntime"] == onnxruntime.__version__
    assert record["status"] == "ok"
    assert record["runs"] >= 20
    window = np.load(clips)[:, 2:18]  # the centre 16 of 20 frames
    here = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = np.concatenate([here.run(None, {"clip": clip[None]})[0] for clip in window])
    np.testing.assert_allclose(record["outputs"], expected, rtol=0, atol=1e-5)
    assert sshd.log().count("Accepted publickey") == logins + 1


def test_what_the_device_has_is_not_sent_again(sshd, tmp_path, model, clips):
    device = sshd.device(tmp_path)
    with edge.connect(device) as session:
        enrolment = session.enrol()
        session.measure([edge.Job(model, clips)], QUICK, enrolment=enrolment)
        assert hashlib.sha256(clips.read_bytes()).hexdigest() in session.traffic.sent_files
    other = make_model(tmp_path / "other.onnx", "another model")
    with edge.connect(device) as session:
        session.measure([edge.Job(model, clips), edge.Job(other, clips)], QUICK, enrolment=enrolment)
    assert session.traffic.sent_files == [hashlib.sha256(other.read_bytes()).hexdigest()]
    assert session.traffic.sent_bytes == other.stat().st_size


def test_nothing_but_the_cache_and_the_lock_is_left_on_the_device(sshd, tmp_path, model):
    home = tmp_path / "device"
    home.mkdir()
    with edge.connect(sshd.device(home)) as session:
        session.measure([edge.Job(model)], QUICK, enrolment=session.enrol())
    assert {entry.name for entry in home.iterdir()} == {"work", "lock"}
    for entry in (home / "work").iterdir():
        if entry.name != ".lock":
            assert hashlib.sha256(entry.read_bytes()).hexdigest() == entry.name
    assert_all_end(home)


def test_a_gateway_is_passed_through_with_its_host_key_checked(sshd, tmp_path, model):
    gateway = f"{sshd.user}@127.0.0.1:{sshd.port}"
    # The same sshd under another name, so that the hops have entries of their own.
    known = tmp_path / "known_hosts"
    device = sshd.device(tmp_path, host="localhost", gateways=[gateway], known_hosts=str(known))

    known.write_text(f"[localhost]:{sshd.port} {sshd.host_key}\n")
    assert f"gateway {gateway}" in refused(device, edge.HostKeyRejected)
    known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n")
    assert "gateway" not in refused(device, edge.HostKeyRejected).partition(": its")[0]

    known.write_text(f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n[localhost]:{sshd.port} {sshd.host_key}\n")
    with edge.connect(device) as session:
        (record,) = session.measure([edge.Job(model)], QUICK, enrolment=session.enrol())
    assert record["status"] == "ok"


def test_an_unknown_host_is_refused(sshd, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text("")
    message = refused(sshd.device(tmp_path, known_hosts=str(known)), edge.HostKeyRejected)
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in message
    assert known.read_text() == ""


def test_a_changed_host_key_is_refused(sshd, tmp_path):
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {make_key(tmp_path / 'imposter')}\n")
    assert "not the known" in refused(sshd.device(tmp_path, known_hosts=str(known)), edge.HostKeyRejected)


def test_a_missing_file_of_known_hosts_trusts_nobody(sshd, tmp_path):
    device = sshd.device(tmp_path, known_hosts=str(tmp_path / "absent"))
    assert str(tmp_path / "absent") in refused(device, edge.HostKeyRejected)


def test_a_client_key_that_the_device_does_not_know_is_an_authentication_error(sshd, tmp_path):
    message = refused(sshd.device(tmp_path, identity_file=str(sshd.other_key)), edge.AuthenticationFailed)
    assert "authorized_keys" in message


def test_a_missing_client_key_is_named(sshd, tmp_path):
    message = refused(sshd.device(tmp_path, identity_file=str(tmp_path / "absent")), edge.AuthenticationFailed)
    assert "absent" in message and "identity_file" in message


def test_a_refused_connection_says_what_to_check(sshd, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        message = refused(sshd.device(tmp_path, port=free.getsockname()[1]), edge.DeviceUnreachable)
    assert "Check `host`, `port`" in message


def test_a_port_that_never_greets_is_given_up(sshd, tmp_path):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        device = sshd.device(tmp_path, port=silent.getsockname()[1], connect_timeout_s=0.5)
        refused(device, edge.DeviceUnreachable)


def test_a_device_without_that_python_is_an_error_that_names_it(sshd, tmp_path):
    with (
        edge.connect(sshd.device(tmp_path, python="python-of-the-future")) as session,
        pytest.raises(edge.RuntimeMissing, match="python-of-the-future"),
    ):
        session.enrol()


def runners(folder: Path) -> list[int]:
    """The processes that have a file in `folder` open."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                links = [os.readlink(entry) for entry in (process / "fd").iterdir()]
            except OSError:  # it has ended, or is not ours
                continue
            if any(link.startswith(str(folder)) for link in links):
                found.append(int(process.name))
    return found


def assert_all_end(folder: Path) -> None:
    deadline = time.monotonic() + 20
    while runners(folder):
        assert time.monotonic() < deadline, f"still there: {runners(folder)}"
        time.sleep(0.05)
