"""Enrolment says what is missing on a device and how to mend it, and installs it where there is no internet."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edge
from edge import install

pytestmark = pytest.mark.infra


def command(folder: Path, entry: dict, *arguments: object) -> subprocess.CompletedProcess:
    """`python -m edge enroll` of the device `far` with this entry."""
    (folder / "devices.yaml").write_text(json.dumps({"devices": {"far": entry}}))
    words = ["-m", "edge", "enroll", "--device", "far", "--config", "devices.yaml", *map(str, arguments)]
    return subprocess.run([sys.executable, *words], cwd=folder, text=True, capture_output=True, timeout=300)


def lines(run: subprocess.CompletedProcess) -> dict[str, tuple[str, str]]:
    """The checks of its output: {name: (status, what was found and how to mend it)}."""
    found: dict[str, tuple[str, str]] = {}
    name = ""
    for line in run.stdout.splitlines():
        status, title, text = line[:8].strip(), line[9:21].strip(), line[22:]
        if status in ("ok", "note", "missing") and line[8:9] == " ":
            name = title
            found[name] = (status, text)
        elif text.startswith("-> "):
            found[name] = (found[name][0], f"{found[name][1]} {text}")
    return found


def bare_python(path: Path) -> Path:
    """A Python without any packages."""
    path.write_text(f'#!/bin/sh\nexec "{sys._base_executable}" -S "$@"\n')
    path.chmod(0o755)
    return path


def test_a_device_with_everything_is_enrolled(site, tmp_path):
    run = command(tmp_path, site.sshd.entry(site.folder), "--json", "far.json")
    assert run.returncode == 0, run.stdout + run.stderr
    found = lines(run)
    names = ["reachable", "host keys", "login", "python", "numpy", "onnxruntime", "providers", "disk space"]
    assert list(found) == [*names, "governor", "lock"]
    assert all(status != "missing" for status, _ in found.values())
    record = json.loads((tmp_path / "far.json").read_text())
    assert record["fingerprint"]["arch"] == os.uname().machine
    assert record["reference"]["p5_ms"] > 0


def test_each_thing_that_is_missing_is_told_with_its_mend_before_anything_is_measured(site, tmp_path):
    (site.folder / "file").write_text("")
    entry = site.sshd.entry(
        site.folder,
        python=str(bare_python(tmp_path / "python")),
        work_folder=str(site.folder / "file" / "work"),
        lock_file=str(site.folder / "nowhere" / "lock"),
    )
    run = command(tmp_path, entry)
    assert run.returncode == 2
    found = lines(run)
    assert found["login"][0] == found["python"][0] == "ok"
    for name, words in (
        ("numpy", "No module named 'numpy'.*--install"),
        ("onnxruntime", "No module named 'onnxruntime'.*--install"),
        ("disk space", "set another `work_folder`"),
        ("lock", "set another `lock_file`"),
    ):
        assert found[name][0] == "missing"
        assert re.search(words, found[name][1]), found[name]
    with pytest.raises(edge.DeviceNotReady, match=r"'far'.*is not ready.*numpy: .*onnxruntime: .*disk space: .*lock: "):
        edge.enrol(edge.Device.from_config("far", entry))


@pytest.mark.parametrize(
    ("changes", "name", "words"),
    [
        ({"port": 23}, "reachable", "refused"),
        ({"known_hosts": "/dev/null"}, "host keys", "Add the host keys"),
        ({"identity_file": "OTHER"}, "login", "authorized_keys"),
        ({"python": "/nowhere/python"}, "python", "Install Python 3.8"),
    ],
)
def test_the_first_broken_link_of_the_chain_is_named(site, tmp_path, changes, name, words):
    changes = {key: str(site.sshd.other_key) if value == "OTHER" else value for key, value in changes.items()}
    run = command(tmp_path, site.sshd.entry(site.folder, **changes))
    assert run.returncode == 2
    *before, (last, (status, text)) = lines(run).items()
    assert all(status == "ok" for _, (status, _) in before)
    assert (last, status) == (name, "missing") and words in text


def test_a_lock_that_is_held_and_a_provider_that_is_absent_are_notes(site, tmp_path):
    script = (
        "import fcntl, sys, time; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        site.link.inside([sys.executable, "-c", script, site.folder / "lock"]), stdout=subprocess.PIPE, text=True
    )
    holder.stdout.readline()
    device = site.device(providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    with edge.connect(device) as session:
        checks = {check.name: check for check in edge.enrolment.examine(session)}
    holder.kill()
    holder.wait()
    assert (checks["lock"].status, checks["providers"].status) == ("note", "note")
    assert "held by" in checks["lock"].found and "lacks CUDAExecutionProvider" in checks["providers"].mend


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> None:
    """Somewhere to get wheels from."""
    words = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest", tmp_path_factory.mktemp("wheel"), "flatbuffers"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index can be reached from here: {done.stderr.splitlines()[-1]}")


def test_a_device_without_internet_gets_its_environment_over_the_connection(site, tmp_path, index):
    site.link.set(rate_mbit=0, delay_ms=1)
    home = site.sshd.folder
    bare = bare_python(tmp_path / "python")
    outside = subprocess.run(
        site.link.inside([sys._base_executable, "-c", "import socket; socket.create_connection(('1.1.1.1', 443), 3)"]),
        capture_output=True,
        text=True,
    )
    assert "unreachable" in outside.stderr  # no way out of the device's network

    run = command(tmp_path, site.sshd.entry(site.folder, python=str(bare)), "--install", "--json", "far.json")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "`python: ~/.cache/edgeloop-python/bin/python`" in run.stdout
    environment = home / ".cache/edgeloop-python"
    assert (environment / "bin/python").exists()
    assert list(environment.glob("lib/python3*/site-packages/onnxruntime"))
    assert [entry.name for entry in environment.parent.iterdir()] == ["edgeloop-python"]
    assert json.loads((tmp_path / "far.json").read_text())["status"] == "ok"

    # What is on its way when a link breaks is not all that has to be sent again: wheels that arrived stay.
    with edge.connect(site.device(python=str(bare))) as session:
        wheels = install.download(session.device, session.probe(), install.PACKAGES, tmp_path)
        session.install("~/another", wheels, install.PACKAGES)
    assert session.traffic.sent_files == []
    assert (home / "another/bin/python").exists()


def test_wheels_that_the_device_cannot_take_are_an_error_that_says_so(site, index):
    with pytest.raises(edge.InstallFailed, match=r"'far': there are no wheels for Python 3\.\d+ on .*no-such-package"):
        install.install(site.device(), ["no-such-package-of-edgeloop"])
    odd = {"libc": ["", ""], "implementation": "CPython", "machine": "aarch64"}
    with pytest.raises(edge.InstallFailed, match=r"'far': it has no glibc.*by hand"):
        install.platform_tags(site.device(), odd)


def test_wheels_are_chosen_for_the_device_and_not_for_this_machine():
    found = {"libc": ["glibc", "2.31"], "implementation": "CPython", "machine": "aarch64"}
    tags = install.platform_tags(edge.Device("jetson"), found)
    assert tags[0] == "manylinux_2_31_aarch64" and tags[-1] == "linux_aarch64"
    assert "manylinux_2_35_aarch64" not in tags and "manylinux2014_aarch64" in tags
