"""Enrolment: the whole chain to a device is checked once, link by link, and the device is measured at rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .device import Device
from .errors import (
    AuthenticationFailed,
    DeviceNotReady,
    DeviceUnreachable,
    EdgeError,
    HostKeyRejected,
    KnownHostsMissing,
    RuntimeMissing,
)
from .session import Session, connect, governor_advice, providers_advice

OK, NOTE, MISSING = "ok", "note", "missing"
OLDEST_PYTHON = (3, 8)
LEAST_FREE_MB = 100
INSTALL = "Run `python -m edge enroll --device {} --install`, or install it for the device's `python`."


@dataclass(frozen=True)
class Check:
    """A link of the chain: `status` is "ok", "note" (measuring works, but could be better) or "missing"; `found` says
    what is there, `mend` what to do."""

    name: str
    status: str
    found: str
    mend: str = ""


def enrol(device: Device) -> dict[str, Any]:
    """The enrolment record of `device`: see `Session.enrol`. DeviceNotReady names all that is missing; other EdgeErrors
    what keeps from finding out."""
    with connect(device) as session:
        checks = examine(session)
        refuse(device, checks)
        return session.enrol()


def refuse(device: Device, checks: Sequence[Check]) -> None:
    """DeviceNotReady when anything is missing."""
    missing = [f"{check.name}: {check.found}. {check.mend}" for check in checks if check.status == MISSING]
    if missing:
        raise DeviceNotReady(f"device {device.name!r} ({device.address}) is not ready. {' '.join(missing)}")


def check_way(error: EdgeError) -> list[Check]:
    """The checks of a device to which there is no way, because of `error`."""
    steps = {
        DeviceUnreachable: "reachable",
        HostKeyRejected: "host keys",
        AuthenticationFailed: "login",
        RuntimeMissing: "python",
    }
    names = list(steps.values())
    failed = next((number for number, kind in enumerate(steps) if isinstance(error, kind)), 0)
    cause, _, mend = str(error).partition(". ")
    passed = [] if isinstance(error, KnownHostsMissing) else names[:failed]
    return [Check(name, OK, "yes") for name in passed] + [Check(names[failed], MISSING, cause, mend)]


def examine(session: Session) -> list[Check]:
    """What the device has and lacks, over an open session."""
    device = session.device
    way = [Check(name, OK, "yes") for name in ("reachable", "host keys", "login")]
    try:
        found = session.probe()
    except RuntimeMissing as error:
        return check_way(error)
    return [*way, *checks(device, found)]


def checks(device: Device, found: Mapping[str, Any]) -> list[Check]:
    """The checks of what `edge/probe.py` has found."""
    return [
        _python(device, found),
        *(_package(device, name, found[name]) for name in ("numpy", "onnxruntime")),
        _providers(device, found),
        _storage(device, found["storage"]),
        _governor(found["governors"]),
        _lock(device, found["lock"]),
    ]


def _python(device: Device, found: Mapping[str, Any]) -> Check:
    text = f"{found['python']}, {found['executable']}"
    if tuple(int(part) for part in found["python"].split(".")[:2]) < OLDEST_PYTHON:
        return Check("python", MISSING, text, "Python 3.8 or later is needed: install one and set the key `python`.")
    return Check("python", OK, text)


def _package(device: Device, name: str, found: Mapping[str, str]) -> Check:
    if "error" in found:
        return Check(name, MISSING, found["error"], INSTALL.format(device.name))
    return Check(name, OK, found["version"])


def _providers(device: Device, found: Mapping[str, Any]) -> Check:
    has = found["providers"]
    if "error" in found["onnxruntime"]:
        return Check("providers", MISSING, "none without onnxruntime", "See onnxruntime.")
    advice = providers_advice(device, has)
    status = OK if advice is None else NOTE if set(device.providers) & set(has) else MISSING
    return Check("providers", status, ", ".join(has), advice or "")


def _storage(device: Device, found: Mapping[str, Any]) -> Check:
    text = f"{found['free_mb']} MB free in {found['folder']}"
    if not found["usable"]:
        mend = f"{device.user or 'You'} may not write there: set another `work_folder`."
        return Check("disk space", MISSING, text, mend)
    if found["free_mb"] < LEAST_FREE_MB:
        mend = f"At least {LEAST_FREE_MB} MB are needed: make room, or set another `work_folder`."
        return Check("disk space", MISSING, text, mend)
    if found["free_mb"] < device.cache_mb:
        return Check(
            "disk space", NOTE, text, f"The cache may take {device.cache_mb} MB: make room, or lower `cache_mb`."
        )
    return Check("disk space", OK, text)


def _governor(found: Sequence[str]) -> Check:
    others = [governor for governor in found if governor != "performance"]
    if others:
        return Check("governor", NOTE, ", ".join(found), governor_advice(others[0]) or "")
    return Check("governor", OK, ", ".join(found) or "none: the clock cannot be set here")


def _lock(device: Device, found: Mapping[str, Any]) -> Check:
    if not found["usable"]:
        mend = f"{device.user or 'You'} may not use {device.lock_file}: mend its rights, or set another `lock_file`."
        return Check("lock", MISSING, found.get("error", device.lock_file), mend)
    if found["held_by"]:
        mend = f"The enrolment waits for `lock_timeout_s`, {device.lock_timeout_s:g} s."
        return Check("lock", NOTE, f"held by {found['held_by']}", mend)
    return Check("lock", OK, f"{device.lock_file} is free")
