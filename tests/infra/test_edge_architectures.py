"""The runner on another architecture and on the oldest Python that it promises: a functional test, nothing is timed."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import edge
from edgeloop.export import export_untrained, run

pytestmark = pytest.mark.infra

QUICK = edge.Timing(min_runs=10, min_s=0.01, max_s=0.5, warmup_max_s=0.05, quiet_wait_s=0)
PACKAGES = ("python3.11-minimal", "libpython3.11-stdlib", "libstdc++6")
ARM64_WHEELS = ("numpy==2.3.5", "onnxruntime==1.23.2")
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)] + ["manylinux2014_aarch64"]
# The last onnxruntime for Python 3.8, and all that its import takes.
WHEELS_38 = ("numpy==1.24.4", "onnxruntime==1.19.2")
NETWORKS = (
    {"family": "conv2d", "widths": [4, 8]},
    {"family": "conv2d_temporal", "widths": [4, 8], "temporal": "gru"},
    {"family": "conv3d", "widths": [4, 8]},
    {"family": "motion"},
    {"family": "swin3d", "embed": 12, "depths": [1], "heads": [3]},
)
PRECISIONS = ("fp32", "int8")


def cached(name, make):
    """The folder `name` of the user's cache, made by `make(folder)` once and by one test process alone."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeloop-tests" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            growing = folder.with_suffix(".growing")
            shutil.rmtree(growing, ignore_errors=True)
            growing.mkdir()
            make(growing)
            growing.rename(folder)
    return folder


def called(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done.stdout


def unpacked(folder, requirements, *options):
    """Wheels without what they depend on, which onnxruntime's session does without, in `folder`."""
    common = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    called(sys.executable, *common, "--only-binary=:all:", "--target", folder, *options, *requirements)


def arm64(folder):
    """An arm64 userland with a Python in `folder`/root, and its packages in `folder`/site."""
    apt, root = folder / "apt", folder / "root"
    for name in ("lists/partial", "cache/archives/partial"):
        (apt / name).mkdir(parents=True)
    (apt / "status").touch()
    places = {"State::Lists": apt / "lists", "Cache": apt / "cache", "State::status": apt / "status"}
    options = ["-oAPT::Architecture=arm64", "-oAPT::Architectures=arm64", "-oAPT::Sandbox::User=root", "-qq"]
    options += [f"-oDir::{key}={value}" for key, value in places.items()]
    called("apt-get", *options, "update")
    called("apt-get", *options, "-y", "--no-install-recommends", "--download-only", "install", *PACKAGES)
    for package in (apt / "cache/archives").glob("*.deb"):
        called("dpkg", "-x", package, root)
    shutil.rmtree(apt)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    unpacked(folder / "site", ARM64_WHEELS, "--python-version", "3.11", "--implementation", "cp", *platforms)


@pytest.fixture(scope="session")
def arm64_python(tmp_path_factory):
    """A program that is Python on aarch64, with numpy and onnxruntime."""
    qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if qemu is None:
        pytest.skip("qemu is not installed (Debian: apt-get install qemu-user-static)")
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("the arm64 userland is made of Debian packages, for which apt-get and dpkg are needed")
    folder = cached(f"arm64-{'-'.join(ARM64_WHEELS)}", arm64)
    program = tmp_path_factory.mktemp("arm64") / "python3"
    program.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={folder}/site PYTHONHOME=/usr\nexec {qemu} -L {folder}/root "
        f'{folder}/root/usr/bin/python3.11 "$@"\n'
    )
    program.chmod(0o755)
    return program


@pytest.fixture(scope="session")
def python_38(tmp_path_factory):
    """A program that is Python 3.8, with the numpy and the onnxruntime that there are for it."""
    versions = sorted((Path.home() / ".pyenv/versions").glob("3.8*/bin/python3.8"))
    found = [*versions, *filter(None, [shutil.which("python3.8")])]
    if not found:
        pytest.skip("there is no python3.8 on this machine")
    packages = ("--python-version", "3.8", "--implementation", "cp")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform.replace("aarch64", "x86_64"))]
    site = cached(f"python38-{'-'.join(WHEELS_38)}", lambda folder: unpacked(folder, WHEELS_38, *packages, *platforms))
    program = tmp_path_factory.mktemp("python38") / "python3"
    program.write_text(f'#!/bin/sh\nexport PYTHONPATH={site}\nexec {found[0]} "$@"\n')
    program.chmod(0o755)
    return program


@pytest.mark.parametrize(
    ("fixture", "arch", "version"), [("arm64_python", "aarch64", r"3\.11\."), ("python_38", "x86_64", r"3\.8\.")]
)
def test_the_runner_computes_there_what_onnxruntime_computes_here(fixture, arch, version, request, tmp_path):
    clips = np.random.default_rng(0).integers(0, 256, (4, 16, 41, 41), dtype=np.uint8)
    np.save(tmp_path / "clips.npy", clips)
    models = []
    for genes, precision in itertools.product(NETWORKS, PRECISIONS):
        models.append(tmp_path / f"{genes['family']}-{precision}.onnx")
        assert export_untrained(genes, models[-1], precision=precision)["status"] == "ok"
    device = edge.Device(
        "other",
        python=str(request.getfixturevalue(fixture)),
        work_folder=str(tmp_path / "work"),
        lock_file=str(tmp_path / "lock"),
        deadline_s=600,
        silence_timeout_s=120,
    )
    with edge.connect(device) as session:
        enrolment = session.enrol()
        records = session.measure(
            [edge.Job(model, tmp_path / "clips.npy") for model in models], QUICK, enrolment=enrolment
        )
    assert enrolment["fingerprint"]["arch"] == arch
    assert re.match(version, enrolment["fingerprint"]["python"])
    for model, record in zip(models, records, strict=True):
        assert record["status"] == "ok", record
        np.testing.assert_allclose(record["outputs"], run(model, clips), rtol=0, atol=1e-4)
        assert record["latency_ms"] > 0 and record["telemetry"]["during"]["readings"] >= 1
