"""A private virtual environment on a device that has no internet: its wheels are downloaded here, for the device's
Python and processor, and sent over the connection that there is."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from .device import Device
from .errors import InstallFailed
from .session import connect

FOLDER = "~/.cache/edgeloop-python"
PACKAGES = ("numpy", "onnxruntime")
BASE_PYTHON = "python3"
OLDEST_GLIBC = 17
"""manylinux2014's."""


def install(device: Device, packages: Sequence[str] = PACKAGES) -> Device:
    """Make the environment and give the device as it is to be used then: its `python` is the environment's.

    A `python` that ends in /bin/python names the environment to make; otherwise it is `FOLDER`, made with `python`.
    `packages` are what pip understands: names with versions, or wheel files for this device. InstallFailed where
    wheels are not to be had or pip refuses; other EdgeErrors as in a measuring session."""
    path = PurePosixPath(str(device.python))
    named = path.parent.name == "bin" and path.name.startswith("python") and len(path.parts) > 3
    named = named and not str(path).startswith(("/usr/", "/bin/", "/opt/"))
    folder = str(path.parent.parent) if named else FOLDER
    base = replace(device, python=BASE_PYTHON if named else device.python)
    with connect(base) as session, tempfile.TemporaryDirectory() as name:
        wheels = download(device, session.probe(), packages, Path(name))
        session.install(folder, wheels, packages)
    return replace(device, python=f"{folder}/bin/python")


def download(device: Device, found: Mapping[str, Any], packages: Sequence[str], folder: Path) -> list[Path]:
    """The wheels of `packages`, of all they need and of pip, for the device as `edge/probe.py` has found it."""
    version = ".".join(found["python"].split(".")[:2])
    platforms = [word for tag in platform_tags(device, found) for word in ("--platform", tag)]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--dest", str(folder)]
    command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", version, *platforms]
    done = subprocess.run([*command, *packages, "pip"], capture_output=True, text=True)
    if done.returncode:
        said = " ".join(line for line in done.stderr.splitlines() if line.startswith("ERROR"))
        what = f"there are no wheels for Python {version} on {found['machine']}: {said}"
        advice = "Name other versions, or wheel files of your own, with --packages."
        raise InstallFailed(f"device {device.name!r}: {what} {advice}")
    return sorted(folder.glob("*.whl"))


def platform_tags(device: Device, found: Mapping[str, Any]) -> list[str]:
    """The platforms whose wheels the device takes, the newest first (PEP 600). InstallFailed without glibc."""
    name, version = found["libc"]
    if name != "glibc" or found["implementation"] != "CPython":
        has = f"it has {name or 'no glibc'} and {found['implementation']}; wheels of onnxruntime need glibc and CPython"
        raise InstallFailed(f"device {device.name!r}: {has}. Install it there by hand.")
    minor = int(version.split(".")[1])
    machine = found["machine"]
    tags = [f"manylinux_2_{number}_{machine}" for number in range(minor, OLDEST_GLIBC - 1, -1)]
    return [*tags, f"manylinux2014_{machine}", f"linux_{machine}"]
