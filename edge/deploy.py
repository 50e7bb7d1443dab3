"""Deploying a bundle: it goes to the device, tests itself there, and takes its place if it passes."""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import wire
from .device import Device
from .errors import StorageFailed
from .transports import open_transport

INSTALLER = Path(__file__).with_name("installer.py")
CARD = "model-card.json"


@dataclass(frozen=True)
class Deployment:
    """What has come of it. `said` are the words of the bundle's self-test on the device; only when it has `passed` is
    the bundle in `folder`, and what was there before is gone."""

    device: str
    candidate: str
    sent_bytes: int
    folder: str
    passed: bool
    said: str


def read_card(bundle: Path) -> Mapping[str, Any]:
    """The model's card in a bundle; ValueError for a file that is none."""
    if not bundle.is_file():
        raise ValueError(f"there is no file {bundle}")
    if not bundle.stat().st_size:
        raise ValueError(
            f"{bundle} is empty: every training of this finalist failed, see its records beside the bundle"
        )
    try:
        with zipfile.ZipFile(bundle) as archive:
            return json.loads(archive.read(CARD))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(
            f"{bundle} is no bundle ({error}). Expected a results/finalists/CANDIDATE/bundle.zip of a finished run."
        ) from None


def deploy(device: Device, bundle: Path, folder: str | None = None) -> Deployment:
    """Send `bundle` to `device`; it comes into `folder` there (~/edgeloop-CANDIDATE) if its self-test there passes.

    The self-test runs with the device's providers, under the lock of all of its users. EdgeError where the device
    fails; ValueError for a file that is no bundle.
    """
    candidate, data = read_card(bundle)["candidate"], bundle.read_bytes()
    hello = {
        "folder": folder or f"~/edgeloop-{candidate}",
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "lock_file": device.lock_file,
        "lock_timeout_s": device.lock_timeout_s,
        "providers": device.providers,
        "deadline_s": device.deadline_s,
    }
    with open_transport(device) as transport:
        assert device.python is not None
        process = transport.start([device.python, "-u", "-c", INSTALLER.read_text()])
        try:
            wire._greet(process, device, hello)
            if (event := wire._next_event(process, device, first=True))["event"] == "occupied":
                advice = "Remove it, or name another place with --folder."
                message = f"{event['folder']} is there, and is no bundle. {advice}"
                raise StorageFailed(f"device {device.name!r} ({device.address}): {message}")
            wire._send(process, data, wire.Traffic(), hello["sha256"])
            while (event := wire._next_event(process, device))["event"] != "done":
                pass  # it waits for the lock, or is at work
        finally:
            process.close()
    return Deployment(device.name, candidate, len(data), event["folder"], event["passed"], event["said"])
