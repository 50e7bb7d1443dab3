"""Figures from raw samples."""

import pytest

from edge import statistics

AT_REST_MS = 0.5


def raw(samples_ms, cpu_ms=None, reference_ms=(1.0,), providers=("CPUExecutionProvider",)):
    def ns(values):
        return [round(value * 1e6) for value in values]

    quiet = {"time_s": 0.0, "cpu_pressure_us": 0, "throttle_count": 0, "rpi_throttled": None}
    return {
        "samples_ns": ns(samples_ms),
        "cpu_ns": ns(cpu_ms or samples_ms),
        "reference_samples_ns": ns(reference_ms),
        "providers": list(providers),
        "warmup_runs": 3,
        "discarded_runs": 1,
        "stable": True,
        "telemetry": {"before": quiet, "after": quiet | {"time_s": 1.0}},
    }


def flags(sample, **changes):
    fingerprint = {"kernel": "6.1", "governor": None}
    enrolment = {"fingerprint": {"kernel": "6.1", "governor": None}, "reference": {"p5_ms": 1.0}}
    figures = statistics.summarise(sample, 1.0, threads=1)
    provider = changes.pop("provider", "CPUExecutionProvider")
    return statistics.flags(figures, sample, provider, fingerprint | changes, enrolment)


def test_latency_is_the_ratio_to_the_reference_times_the_reference_at_rest():
    figures = statistics.summarise(raw([4.0] * 20, reference_ms=[2.0] * 20), AT_REST_MS, threads=1)
    assert figures["ratio"] == pytest.approx(2)
    assert figures["latency_ms"] == pytest.approx(1.0)
    assert figures["latency_p50_ms"] == pytest.approx(4.0)
    assert figures["ratio_basis"] == "wall"


def test_a_machine_half_as_fast_gives_the_same_latency():
    fast = statistics.summarise(raw([3.0, 3.1, 3.2], reference_ms=[1.0, 1.1]), AT_REST_MS, threads=1)
    slow = statistics.summarise(raw([6.0, 6.2, 6.4], reference_ms=[2.0, 2.2]), AT_REST_MS, threads=1)
    assert slow["latency_ms"] == pytest.approx(fast["latency_ms"])


def test_where_every_run_was_interrupted_the_cpu_time_counts():
    sample = raw([8.0] * 20, cpu_ms=[4.0] * 20)
    figures = statistics.summarise(sample, AT_REST_MS, threads=1)
    assert figures["ratio_basis"] == "cpu"
    assert figures["latency_ms"] == pytest.approx(4 * AT_REST_MS)
    assert figures["latency_p5_ms"] == pytest.approx(8.0)
    assert flags(sample) == ["preempted"]


@pytest.mark.parametrize(
    ("threads", "providers"), [(2, ["CPUExecutionProvider"]), (1, ["CUDAExecutionProvider", "CPUExecutionProvider"])]
)
def test_cpu_time_counts_for_one_thread_on_the_cpu_only(threads, providers):
    figures = statistics.summarise(raw([8.0], cpu_ms=[4.0], providers=providers), AT_REST_MS, threads)
    assert figures["ratio_basis"] == "wall"
    assert figures["latency_cpu_p5_ms"] is None


def test_a_quiet_measurement_has_no_flags():
    assert flags(raw([1.0] * 20)) == []


def test_doubts_are_flagged():
    assert flags(raw([1.0] * 5 + [2.0] * 15)) == ["unsteady"]
    assert flags(raw([1.0] * 20, reference_ms=[1.5])) == ["reference-shifted"]
    assert flags(raw([1.0] * 20), kernel="6.2") == ["kernel-changed"]
    assert flags(raw([1.0] * 20), governor="powersave") == ["governor-changed"]
    assert flags(raw([1.0] * 20), provider="CUDAExecutionProvider") == ["provider-fallback"]
    assert flags(raw([1.0] * 20) | {"stable": False}) == ["not-warm"]


@pytest.mark.parametrize(
    ("key", "value", "flag"),
    [
        ("cpu_pressure_us", 500_000, ["pressure"]),
        ("cpu_pressure_us", 50_000, []),
        ("cpu_pressure_us", None, []),
        ("throttle_count", 1, ["throttled"]),
        ("rpi_throttled", "4", ["throttled"]),
        ("rpi_throttled", "50000", []),  # since the boot, not now
    ],
)
def test_telemetry_raises_flags(key, value, flag):
    sample = raw([1.0] * 20)
    sample["telemetry"]["after"] = sample["telemetry"]["after"] | {key: value}
    assert flags(sample) == flag
