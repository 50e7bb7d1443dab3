"""What client and device say to each other: the client's half of the conversation. The device's half is
`edge/runner.py`.

    client                                      device (bootstrap.py, then runner.py in the same process)
    hello: work folder, sha256 of runner.py  →
                                             ←  boot: is that runner in the cache?
    runner.py, if not                        →
    request: jobs, settings, files           →
                                             ←  need: the files that the cache lacks
    sending: their order, then their bytes   →
                                             ←  locked, fingerprint, job, job, …, done      or: problem

Lines of JSON both ways. While it waits or works the device says something every 5 seconds, and whatever arrives from
then on is answered with an empty line: silence tells either end that the other one is lost.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import errors
from .device import Device
from .transports import Process, Transport

RUNNER = Path(__file__).with_name("runner.py")
CHUNK_BYTES = 1 << 18

BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
PROBE = Path(__file__).with_name("probe.py")

RUNNER_GAVE_UP = 70
HEARTBEATS = ("receiving", "waiting", "working")

PROBLEMS = {
    "busy": (errors.DeviceBusy, "Wait for the other session, or raise `lock_timeout_s`."),
    "runtime": (errors.RuntimeMissing, "Install it for the device's `python`, or change the device's configuration."),
    "storage": (errors.StorageFailed, "Make room there, or set another `work_folder` or `lock_file`."),
    "install": (errors.InstallFailed, "Name other versions, or wheel files of your own, with --packages."),
    "protocol": (errors.RunnerFailed, "Run it again; if it comes again, report it."),
}


@dataclass
class Traffic:
    """How much went over the wire: bytes of files sent, and which."""

    sent_bytes: int = 0
    sent_files: list[str] = field(default_factory=list)


def file_sha256(path: Path) -> str:
    """The sha256 of the file's bytes, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Files = Mapping[str, Path | bytes]
"""The files that a request refers to, by sha256."""


def converse(
    transport: Transport,
    device: Device,
    request: Mapping[str, Any],
    files: Files,
    traffic: Traffic,
) -> Iterator[dict[str, Any]]:
    """Start the runner on `device`, hand it `request` and those of `files` (by sha256) that it lacks; its events, until
    "done".

    Raises the EdgeError that fits whatever keeps it from getting there. A caller that stops half-way ends the runner.
    """
    assert device.python is not None
    process = transport.start([device.python, "-u", "-c", BOOTSTRAP.read_text()])
    try:
        yield from _talk(process, device, request, files, traffic)
    finally:
        process.close()


def probe(transport: Transport, device: Device) -> dict[str, Any]:
    """What `edge/probe.py` finds on `device`, with any Python that starts there."""
    assert device.python is not None
    command = [device.python, "-c", PROBE.read_text(), device.work_folder, device.lock_file]
    process = transport.start(command)
    try:
        return _next_event(process, device, first=True)
    finally:
        process.close()


def _talk(
    process: Process, device: Device, request: Mapping[str, Any], files: Files, traffic: Traffic
) -> Iterator[dict[str, Any]]:
    runner = RUNNER.read_bytes()
    runner_sha256 = hashlib.sha256(runner).hexdigest()
    hello = {"work_folder": device.work_folder, "sha256": runner_sha256, "size": len(runner)}
    _greet(process, device, hello)
    if not _expect(process, device, "boot")["have"]:
        _send(process, runner, traffic, runner_sha256)
    sizes = {sha256: len(data) if isinstance(data, bytes) else data.stat().st_size for sha256, data in files.items()}
    process.write(_line({**request, "files": sizes}))
    needed = _expect(process, device, "need")["files"]
    # It may end in the middle because of a problem (no onnxruntime, disk full).
    with _its_word_first(process, device):
        process.write(_line({"sending": needed}))
        for sha256 in needed:
            _send(process, files[sha256], traffic, sha256)
    while True:
        event = _next_event(process, device, answer=b"\n")
        if event["event"] == "done":
            return
        if event["event"] not in HEARTBEATS:
            yield event


def _greet(process: Process, device: Device, hello: Mapping[str, Any]) -> None:
    """Write the first line, to a program that may have ended by then because it cannot be started."""
    with _its_word_first(process, device, first=True):
        process.write(_line(hello))


@contextmanager
def _its_word_first(process: Process, device: Device, first: bool = False) -> Iterator[None]:
    """Where there is nobody to write to any more, what the program told before it ended, or how it ended, says more."""
    try:
        yield
    except errors.DeviceLost:
        _next_event(process, device, first)
        raise


def _line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def _send(process: Process, data: Path | bytes, traffic: Traffic, sha256: str) -> None:
    if isinstance(data, Path):
        with open(data, "rb") as file:
            while piece := file.read(CHUNK_BYTES):
                process.write(piece)
                traffic.sent_bytes += len(piece)
    else:
        process.write(data)
        traffic.sent_bytes += len(data)
    traffic.sent_files.append(sha256)


def _expect(process: Process, device: Device, name: str) -> dict[str, Any]:
    event = _next_event(process, device, first=name == "boot")
    if event["event"] != name:
        raise errors.RunnerFailed(f"{_who(device)}: expected the event {name!r}, got {event!r}. Report it.")
    return event


def _next_event(process: Process, device: Device, first: bool = False, answer: bytes = b"") -> dict[str, Any]:
    """The next event; `first`: before the runner speaks, what the login shell prints is skipped."""
    deadline = time.monotonic() + device.silence_timeout_s
    while True:
        try:
            line = process.read_line(max(0.0, deadline - time.monotonic()), answer)
        except TimeoutError:
            message = f"no word for {device.silence_timeout_s:g} s. Check the link and the device."
            raise errors.DeviceLost(f"{_who(device)}: {message}") from None
        if not line:
            raise _ended(process, device, first)
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, dict) and "event" in event:
            break
        if not first:
            raise errors.RunnerFailed(f"{_who(device)}: unexpected output {line[:200]!r}. Report it.")
    if event["event"] == "problem":
        kind, advice = PROBLEMS[event["kind"]]
        raise kind(f"{_who(device)}: {event['message']}. {advice}")
    return event


def _ended(process: Process, device: Device, first: bool) -> errors.EdgeError:
    status, said = process.exit_status(), " ".join(process.stderr().split())[-600:]
    if first and status in (126, 127):
        advice = "Install Python 3.8 or later, or set the device's key `python`."
        return errors.RuntimeMissing(f"{_who(device)}: {device.python!r} cannot be started there ({said}). {advice}")
    if status == RUNNER_GAVE_UP:  # it tells a problem before it ends for one
        message = "the runner there heard nothing from here for too long and gave up. Check the link."
        return errors.DeviceLost(f"{_who(device)}: {message}")
    if status is None or status < 0:
        message = (
            f"the session ended before its work was done{': ' + said if said else ''}. Check the link and the device."
        )
        return errors.DeviceLost(f"{_who(device)}: {message}")
    return errors.RunnerFailed(f"{_who(device)}: the runner ended with exit status {status}: {said or 'no message'}.")


def _who(device: Device) -> str:
    return f"device {device.name!r} ({device.address})"


def request_for(device: Device, jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The request that makes the runner work on `jobs` with the settings of `device`."""
    return {
        "device": device.name,
        "jobs": list(jobs),
        "settings": {
            "work_folder": device.work_folder,
            "cache_mb": device.cache_mb,
            "threads": device.threads,
            "cpus": device.cpus,
            "providers": device.providers,
            "lock_file": device.lock_file,
            "lock_timeout_s": device.lock_timeout_s,
            "deadline_s": device.deadline_s,
            "silence_timeout_s": device.silence_timeout_s,
        },
    }
