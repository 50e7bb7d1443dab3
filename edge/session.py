"""A measuring session: one connection to a device, over which it is enrolled and models are measured."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from . import repetition, statistics, wire
from .device import Device
from .errors import DeviceLost, DeviceUnreachable, EdgeError, EnrolmentMismatch
from .reference import reference_model, reference_sha256
from .transports import Transport, open_transport

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
IDENTITY = ("arch", "cpu_model", "board", "cores", "onnxruntime")
"""What of the fingerprint must be as it was enrolled: latencies before and after would not be comparable."""


@dataclass(frozen=True)
class Job:
    """An ONNX file to measure. `clips`, a .npy of uint8 [n, T, H, W], is run through it on the device; `shapes` fixes
    input shapes by name (a symbolic dimension is otherwise 1, or the batch size where it comes first). `batch_size`: in
    place of the timing's. `batch_sizes`: further ones at which the record tells the latency (`by_batch_size`)."""

    model: Path
    clips: Path | None = None
    shapes: Mapping[str, Sequence[int]] | None = None
    batch_size: int | None = None
    batch_sizes: Sequence[int] = ()


@dataclass(frozen=True)
class Timing:
    """How long a model is timed: at least `min_runs` runs and `min_s` seconds, the reference's runs included; after
    `max_s` seconds `min_runs_slow` runs are enough. The warm-up ends when the times of two windows agree, at the latest
    after `warmup_max_s` seconds or the second window. What is doubtful is measured once more when the device is quiet,
    for which the doubtful models of a call wait at most `quiet_wait_s` seconds together."""

    min_runs: int = 200
    min_s: float = 0.2
    max_s: float = 5.0
    warmup_max_s: float = 1.0
    batch_size: int = 1
    min_runs_slow: int = 10
    quiet_wait_s: float = 10.0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if (
                isinstance(value, bool)
                or (not isinstance(value, entry.type) and not isinstance(value, int))
                or value < 0
            ):
                raise ValueError(f"timing: {entry.name} is {value!r}; expected a number of type {entry.type.__name__}")
        if min(self.min_runs, self.min_runs_slow, self.batch_size) < 1:
            raise ValueError(f"timing: min_runs, min_runs_slow and batch_size must be at least 1, got {self}")


Progress = Callable[..., Iterator[tuple[int, dict[str, Any]]]]
LONGEST_PAUSE_S = 30.0
LOSSES = 4
"""A session may be lost so many times without anything having been measured or sent in between."""

AT_REST = Timing(min_runs=1000, min_s=1.0, max_s=5.0)


class Session:
    """An open way to a device; made by `connect`. When the way is lost it is opened again: what has been measured is
    kept, and the rest is measured then. `reconnections` counts it."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.traffic = wire.Traffic()
        self.reconnections = 0
        self._stack = ExitStack()
        self._transport: Transport

    def open(self, *, patient: bool = False) -> None:
        """Open the way to the device; `patient`: try an unreachable one for `reconnect_s`."""
        started, pause_s = time.monotonic(), 1.0
        while True:
            try:
                self._transport = self._stack.enter_context(open_transport(self.device))
                return
            except DeviceUnreachable as error:
                if not patient:
                    raise
                waited_s = time.monotonic() - started
                if waited_s + pause_s > self.device.reconnect_s:
                    message = f"{error} It was tried again for {waited_s:.0f} s (`reconnect_s`)."
                    raise DeviceUnreachable(message) from error
                logger.warning("%s Trying again in %g s.", error, pause_s)
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def close(self) -> None:
        """Close the way."""
        self._stack.close()

    def probe(self) -> dict[str, Any]:
        """What is on the device, as `edge/probe.py` finds it. RuntimeMissing where its `python` does not start."""
        return wire.probe(self._transport, self.device)

    def install(self, folder: str, wheels: Sequence[Path], packages: Sequence[str]) -> None:
        """Make a virtual environment in `folder` on the device, with `packages` out of `wheels` (pip's among them).
        Wheels that the device has got before are not sent again. InstallFailed with what pip said."""
        digests = {wheel.name: wire.file_sha256(wheel) for wheel in wheels}
        request = wire.request_for(self.device, [])
        # A wheel file of one's own is installed by its path: here it is another than there.
        names = [f"./{Path(package).name}" if package.endswith(".whl") else package for package in packages]
        request["install"] = {"folder": folder, "wheels": digests, "packages": names}
        files = {digests[wheel.name]: wheel for wheel in wheels}
        losses = 0
        while True:
            sent = len(self.traffic.sent_files)
            try:
                for _ in wire.converse(self._transport, self.device, request, files, self.traffic):
                    pass
                return
            except DeviceLost as error:
                losses = 1 if len(self.traffic.sent_files) > sent else losses + 1
                self._reconnect(error, losses, "nothing was installed")

    def enrol(self) -> dict[str, Any]:
        """The device's enrolment: what it is, what it runs, how fast it runs the reference. Do it while it is at rest.

        `messages` says what is missing there and how to mend it. EdgeError where it cannot be used at all."""
        job = {"model": None, "clips": None, "shapes": None, "timing": asdict(AT_REST)}
        events = list(self._run([job], {}))
        fingerprint = next(e["fingerprint"] for e in events if e["event"] == "fingerprint")
        answer = next(e for e in events if e["event"] == "job")
        if "ok" not in answer:
            raise wire.PROBLEMS["runtime"][0](f"device {self.device.name!r}: the reference failed: {answer['reason']}")
        raw = answer["ok"]
        samples = statistics.to_ms(raw["samples_ns"] + raw["reference_samples_ns"])
        figures = statistics.percentiles(samples, "reference")
        return {
            "schema_version": SCHEMA_VERSION,
            "status": "ok",
            "device": self.device.name,
            "transport": self.device.transport,
            "fingerprint": fingerprint,
            "reference": {
                "sha256": reference_sha256(),
                **{f"{q}_ms": figures[f"reference_{q}_ms"] for q in ("p5", "p50", "p99")},
                "runs": len(samples),
            },
            "energy_source": raw["energy"] and raw["energy"]["source"],
            "telemetry": raw["telemetry"]["after"],
            "messages": _messages(self.device, fingerprint, figures),
            "runner_sha256": wire.file_sha256(wire.RUNNER),
            "enrolled_at": _now(),
        }

    def measure(
        self,
        jobs: Sequence[Job],
        timing: Timing,
        *,
        enrolment: Mapping[str, Any],
        progress: Progress | None = None,
    ) -> list[dict[str, Any]]:
        """One record for each job, in order. `latency_ms` is steady under load and comparable with that of every other
        session with the same `enrolment`; the other latencies are raw, of this session.

        A job that fails on the device gives a record with `status: failed` and its `reason`, and the others go on.
        What is doubtful is measured again once the device is quiet: see `flags` and `repeat` of a record.
        `progress(items, total=, label=, unit=)` passes on what is measured, and tells how far that is.
        EdgeError where the device itself fails; FileNotFoundError for a job's file that is not there."""

        def once(some: Sequence[Job], quiet: repetition.Quiet | None) -> list[Any]:
            return self._measure_once(some, timing, enrolment, quiet, progress)

        return repetition.measure(once, jobs, timing.quiet_wait_s)

    def _measure_once(
        self,
        jobs: Sequence[Job],
        timing: Timing,
        enrolment: Mapping[str, Any],
        quiet: repetition.Quiet | None,
        progress: Progress | None,
    ) -> list[Any]:
        """The record of each job; None for one that found no quiet device, for which they wait where `quiet` is
        given."""
        if not jobs:
            return []
        if enrolment["reference"]["sha256"] != reference_sha256():
            raise EnrolmentMismatch(f"{self._name}: it was enrolled with another reference model. Enrol it again.")
        files: dict[str, Path | bytes] = {}
        wired = []
        for job in jobs:
            timed = replace(timing, batch_size=job.batch_size or timing.batch_size)
            entry: dict[str, Any] = {"timing": asdict(timed), "shapes": dict(job.shapes or {}), "clips": None}
            for role, path in (("model", job.model), ("clips", job.clips)):
                if path is not None:
                    entry[role] = wire.file_sha256(Path(path))
                    files[entry[role]] = Path(path)
            wired.append(entry)
        measured = self._measured(jobs, wired, files, enrolment, quiet)
        if progress is not None:
            again = " again" if quiet else ""
            measured = progress(
                measured, total=len(jobs), label=f"measure on {self.device.name}{again}", unit="network"
            )
        records = dict(measured)
        return [records.get(index) for index in range(len(jobs))]

    def _measured(
        self,
        jobs: Sequence[Job],
        wired: Sequence[Mapping[str, Any]],
        files: Mapping[str, Path | bytes],
        enrolment: Mapping[str, Any],
        quiet: repetition.Quiet | None,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The records of the jobs, by their place, as they come."""
        runner_sha256 = wire.file_sha256(wire.RUNNER)
        fingerprint: dict[str, Any] = {}
        for event in self._run(wired, files, quiet):
            if event["event"] == "fingerprint":
                fingerprint = event["fingerprint"]
                self._check_identity(fingerprint, enrolment)
            if event["event"] == "quiet" and quiet is not None:
                quiet.events[event["index"]] = event
            if event["event"] != "job":
                continue
            index = event["index"]
            common = {
                "device": self.device.name,
                "model": Path(jobs[index].model).name,
                "model_sha256": wired[index]["model"],
                "bytes": Path(jobs[index].model).stat().st_size,
                "runtime": {key: fingerprint[key] for key in ("onnxruntime", "numpy", "python")},
                "device_s": round(event["device_s"], 6),
                "runner_sha256": runner_sha256,
                "measured_at": _now(),
            }
            yield index, self._record(event, fingerprint, enrolment, common)

    @property
    def _name(self) -> str:
        return f"device {self.device.name!r} ({self.device.address})"

    def _run(
        self,
        jobs: Sequence[Mapping[str, Any]],
        files: Mapping[str, Path | bytes],
        quiet: repetition.Quiet | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The events of `jobs`, over as many connections as it takes; `index` counts in `jobs`."""
        jobs = [{**job, "reference": reference_sha256()} for job in jobs]
        assert hashlib.sha256(reference_model()).hexdigest() == reference_sha256()
        files = {**files, reference_sha256(): reference_model()}
        left, losses = list(range(len(jobs))), 0
        while left:
            asked, sent = list(left), len(self.traffic.sent_files)
            needed = {jobs[index][role] for index in asked for role in ("model", "clips", "reference")}
            request = wire.request_for(self.device, [jobs[index] for index in asked])
            request["quiet_wait_s"] = quiet and quiet.wait_s
            wanted = {sha256: file for sha256, file in files.items() if sha256 in needed}
            try:
                for event in wire.converse(self._transport, self.device, request, wanted, self.traffic):
                    if "index" in event:
                        event["index"] = asked[event["index"]]
                    if event["event"] == "job" or event.get("reasons"):  # measured, or not to be measured now
                        left.remove(event["index"])
                    yield event
                return
            except DeviceLost as error:
                progress = len(left) < len(asked) or len(self.traffic.sent_files) > sent
                losses = 1 if progress else losses + 1
                if left:
                    self._reconnect(error, losses, f"{len(jobs) - len(left)} of {len(jobs)} models were measured")

    def _reconnect(self, error: DeviceLost, losses: int, done: str) -> None:
        if losses >= LOSSES:
            advice = "If the model brings the device down, leave it out; otherwise mend the link."
            raise DeviceLost(f"{error} {losses} sessions were lost in a row, and {done}. {advice}") from error
        if not self.device.reconnect_s:
            raise DeviceLost(f"{error} {done}.") from error
        logger.warning("%s %s. Connecting again.", error, done)
        self.close()
        try:
            self.open(patient=True)
        except EdgeError as again:
            raise type(again)(f"{error} It could not be reached again, and {done}: {again}") from error
        self.reconnections += 1

    def _check_identity(self, fingerprint: Mapping[str, Any], enrolment: Mapping[str, Any]) -> None:
        for key in IDENTITY:
            was, now = enrolment["fingerprint"].get(key), fingerprint[key]
            if was != now:
                advice = "Latencies before and after do not compare: enrol it again (remove its enrolment record)."
                raise EnrolmentMismatch(
                    f"{self._name}: {key} was {was!r} at its enrolment and is {now!r} now. {advice}"
                )

    def _record(
        self,
        event: Mapping[str, Any],
        fingerprint: Mapping[str, Any],
        enrolment: Mapping[str, Any],
        common: Mapping[str, Any],
    ) -> dict[str, Any]:
        if "ok" not in event:
            return _failed(event["reason"], common)
        raw = event["ok"]
        if raw["outputs"] is not None and any(value is None for row in raw["outputs"] for value in row):
            return _failed("its outputs on the device are not finite", common)
        figures = statistics.summarise(raw, enrolment["reference"]["p5_ms"], self.device.threads)
        return {
            "schema_version": SCHEMA_VERSION,
            "status": "ok",
            **common,
            "provider": raw["providers"][0],
            "providers": raw["providers"],
            "threads": self.device.threads,
            "batch_size": raw["batch_size"],
            **figures,
            "peak_memory_mb": raw["peak_memory_mb"],
            "process_peak_mb": raw["process_peak_mb"],
            "load_s": round(raw["load_s"], 6),
            "engine_build_s": raw["engine_build_s"],
            "energy_mj_per_inference": raw["energy"] and raw["energy"]["energy_mj_per_inference"],
            "energy": raw["energy"],
            "telemetry": raw["telemetry"],
            "flags": statistics.flags(figures, raw, self.device.providers[0], fingerprint, enrolment),
            "repeat": None,
            "outputs": raw["outputs"],
        }


@contextmanager
def connect(device: Device, *, patient: bool = False) -> Iterator[Session]:
    """A session with `device` over one connection, closed at the end of the block. EdgeError where there is no way to
    it; for a `patient` caller an unreachable device is tried again for `reconnect_s`."""
    session = Session(device)
    try:
        session.open(patient=patient)
        yield session
    finally:
        session.close()


def _failed(reason: str, common: Mapping[str, Any]) -> dict[str, Any]:
    return {"schema_version": SCHEMA_VERSION, "status": "failed", "reason": reason, **common}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def providers_advice(device: Device, available: Sequence[str]) -> str | None:
    """What to do about providers that are asked for and not `available`; None where there are none."""
    missing = [p for p in device.providers if p not in available]
    if not missing:
        return None
    return (
        f"onnxruntime there lacks {', '.join(missing)}; it has {', '.join(available)}. "
        "Install the build for this device, or remove them from `providers`."
    )


def governor_advice(governor: str | None) -> str | None:
    """What to do about a CPU governor that lets the clock vary."""
    if governor in (None, "performance"):
        return None
    return f"the CPU governor is {governor!r}: clocks vary. `sudo cpupower frequency-set -g performance` holds them."


def _messages(device: Device, fingerprint: Mapping[str, Any], figures: Mapping[str, float]) -> list[str]:
    advice = [providers_advice(device, fingerprint["providers"]), governor_advice(fingerprint["governor"])]
    messages = [text for text in advice if text]
    if figures["reference_p50_ms"] > statistics.UNSTEADY * figures["reference_p5_ms"]:
        messages.append(
            f"the reference took {figures['reference_p5_ms']:.3f} ms at best and {figures['reference_p50_ms']:.3f} ms "
            "in the middle: the device is not at rest. Stop what else runs there and enrol it again."
        )
    return messages
