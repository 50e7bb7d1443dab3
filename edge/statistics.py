"""From raw samples to the figures of a measurement."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UNSTEADY = 1.2
PREEMPTED = 1.05
PRESSURE = 0.1
SHIFTED = 0.15
FREQUENCY = 0.1
DOUBTS = ("unsteady", "preempted", "pressure", "throttled", "hot", "frequency", "not-warm", "reference-shifted")
"""The flags that a measurement on a quiet device may be free of: it is repeated for their sake. The others stay."""
OF_OTHER = ("status", "reason", "latency_ms", "ratio", "flags", "measured_at")
"""What a record tells of that attempt which does not count."""


def to_ms(samples_ns: Sequence[int]) -> list[float]:
    """Nanoseconds to milliseconds, to the nanosecond."""
    return [round(sample / 1e6, 6) for sample in samples_ns]


def percentiles(samples_ms: Sequence[float], prefix: str = "latency") -> dict[str, float]:
    """p5, p50, p90, p99, mean and minimum of `samples_ms`, linearly interpolated, as `{prefix}_p5_ms` and so on."""
    p5, p50, p90, p99 = np.percentile(samples_ms, [5, 50, 90, 99])
    figures = {"p5": p5, "p50": p50, "p90": p90, "p99": p99, "mean": np.mean(samples_ms), "min": np.min(samples_ms)}
    return {f"{prefix}_{name}_ms": round(float(value), 6) for name, value in figures.items()}


def summarise(raw: Mapping[str, Any], reference_at_rest_p5_ms: float, threads: int) -> dict[str, Any]:
    """The figures of one model from the samples of one session.

    `raw` is the runner's result: `samples_ns`, `cpu_ns` (the thread's CPU time of the same runs) and
    `reference_samples_ns`. `latency_ms` is the paired figure: the ratio of the 5th percentiles of model and reference,
    times the reference's 5th percentile at rest. Where nearly every run was interrupted by other processes (a model
    that outlasts the scheduler's slice on a loaded machine), the wall clock tells about them and not about the model.
    The ratio is then that of the model's CPU time, which for one thread on the CPU is the time that it takes when left
    alone; `ratio_basis` says "cpu" instead of "wall".
    """
    samples, cpu, references = (to_ms(raw[key]) for key in ("samples_ns", "cpu_ns", "reference_samples_ns"))
    figures: dict[str, Any] = percentiles(samples)
    reference_p5, reference_p50 = (float(v) for v in np.percentile(references, [5, 50]))
    cpu_p5 = float(np.percentile(cpu, 5))
    alone_on_cpu = threads == 1 and raw["providers"] == ["CPUExecutionProvider"]
    by_cpu = alone_on_cpu and figures["latency_p5_ms"] > PREEMPTED * cpu_p5
    ratio = (cpu_p5 if by_cpu else figures["latency_p5_ms"]) / reference_p5
    return {
        "latency_ms": round(ratio * reference_at_rest_p5_ms, 6),
        **figures,
        "latency_cpu_p5_ms": round(cpu_p5, 6) if alone_on_cpu else None,
        "reference_p5_ms": round(reference_p5, 6),
        "reference_p50_ms": round(reference_p50, 6),
        "ratio": ratio,
        "ratio_p50": figures["latency_p50_ms"] / reference_p50,
        "ratio_basis": "cpu" if by_cpu else "wall",
        "runs": len(samples),
        "warmup_runs": raw["warmup_runs"],
        "discarded_runs": raw["discarded_runs"],
        "samples_ms": samples,
        "cpu_samples_ms": cpu if alone_on_cpu else None,
        "reference_samples_ms": references,
    }


def flags(
    figures: Mapping[str, Any],
    raw: Mapping[str, Any],
    preferred_provider: str,
    fingerprint: Mapping[str, Any],
    enrolment: Mapping[str, Any],
) -> list[str]:
    """What makes a measurement doubtful, in words that docs/edge-devices.md explains; empty when all is well."""
    before, during, after = (raw["telemetry"][moment] for moment in ("before", "during", "after"))
    elapsed_us = 1e6 * max(after["time_s"] - before["time_s"], 1e-6)
    pressure = _grown(before, after, "cpu_pressure_us")
    shift = figures["reference_p5_ms"] / enrolment["reference"]["p5_ms"] - 1
    clocks = [(during[f"{unit}_min_khz"], during[f"{unit}_max_khz"]) for unit in ("cpu", "gpu")]
    doubts = {
        "unsteady": figures["latency_p50_ms"] > UNSTEADY * figures["latency_p5_ms"],
        "preempted": figures["ratio_basis"] == "cpu",
        "pressure": pressure is not None and pressure > PRESSURE * elapsed_us,
        "throttled": bool(_grown(before, after, "throttle_count")) or during["throttled"],
        "hot": bool(during["too_hot"]),
        "frequency": any(highest and lowest < (1 - FREQUENCY) * highest for lowest, highest in clocks),
        "not-warm": not raw["stable"],
        "reference-shifted": abs(shift) > SHIFTED,
        "provider-fallback": raw["providers"][0] != preferred_provider,
        "kernel-changed": fingerprint["kernel"] != enrolment["fingerprint"]["kernel"],
        "governor-changed": fingerprint["governor"] != enrolment["fingerprint"]["governor"],
    }
    return [name for name, doubtful in doubts.items() if doubtful]


def doubts(record: Mapping[str, Any]) -> list[str]:
    """Those flags of a record for which it is measured again."""
    return [flag for flag in record.get("flags", ()) if flag in DOUBTS]


def repeated(first: dict[str, Any], again: dict[str, Any] | None, quiet: Mapping[str, Any]) -> dict[str, Any]:
    """The record that counts of a doubtful measurement and its repetition; the other one is told in short.

    `quiet` is the runner's event: how long it waited, and what kept the device from being quiet until the end; then
    `again` is None. The repetition counts unless it is more doubtful than the first, or has failed.
    """
    taken, other = first, again
    if again is not None and again["status"] == "ok" and len(doubts(again)) <= len(doubts(first)):
        taken, other = again, first
    repeat = {
        "waited_s": round(quiet["waited_s"], 3),
        "not_quiet": quiet["reasons"],
        "other": None if other is None else {key: other[key] for key in OF_OTHER if key in other},
    }
    held_s = first["device_s"] + (0.0 if again is None else again["device_s"])
    return {**taken, "device_s": round(held_s, 6), "repeat": repeat}


def _grown(before: Mapping[str, Any], after: Mapping[str, Any], key: str) -> int | None:
    return None if None in (before[key], after[key]) else after[key] - before[key]
