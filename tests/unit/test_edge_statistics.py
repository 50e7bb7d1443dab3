"""Figures from raw samples."""

import pytest

import edge
from edge import statistics

AT_REST_MS = 0.5


def raw(samples_ms, cpu_ms=None, reference_ms=(1.0,), providers=("CPUExecutionProvider",)):
    def ns(values):
        return [round(value * 1e6) for value in values]

    quiet = {"time_s": 0.0, "cpu_pressure_us": 0, "throttle_count": 0}
    clocks = {"cpu_min_khz": 1_000_000, "cpu_max_khz": 1_050_000, "gpu_min_khz": None, "gpu_max_khz": None}
    during = {"throttled": False, "too_hot": [], **clocks}
    return {
        "samples_ns": ns(samples_ms),
        "cpu_ns": ns(cpu_ms or samples_ms),
        "reference_samples_ns": ns(reference_ms),
        "providers": list(providers),
        "warmup_runs": 3,
        "discarded_runs": 1,
        "stable": True,
        "telemetry": {"before": quiet, "during": during, "after": quiet | {"time_s": 1.0}},
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
        ("throttled", True, ["throttled"]),
        ("too_hot", ["CPU-therm"], ["hot"]),
        ("cpu_min_khz", 900_000, ["frequency"]),
        ("cpu_min_khz", 960_000, []),
    ],
)
def test_telemetry_raises_flags(key, value, flag):
    sample = raw([1.0] * 20)
    moment = "during" if key in sample["telemetry"]["during"] else "after"
    sample["telemetry"][moment] = sample["telemetry"][moment] | {key: value}
    assert flags(sample) == flag


def attempt(latency_ms, *flags, status="ok"):
    figures = {"latency_ms": latency_ms, "ratio": latency_ms} if status == "ok" else {"reason": "deadline"}
    return {"status": status, **figures, "flags": list(flags), "device_s": 1.0, "measured_at": "now"}


QUIET = {"waited_s": 2.5, "reasons": []}


def test_the_repetition_of_a_doubtful_measurement_counts():
    record = statistics.repeated(attempt(2.0, "pressure", "unsteady"), attempt(1.0), QUIET)
    assert (record["latency_ms"], record["flags"]) == (1.0, [])
    assert record["repeat"]["other"]["latency_ms"] == 2.0
    assert record["repeat"]["other"]["flags"] == ["pressure", "unsteady"]
    assert record["device_s"] == 2.0


def test_a_repetition_that_is_more_doubtful_or_fails_does_not_count():
    for again in (attempt(3.0, "pressure", "unsteady", "hot"), attempt(0, status="failed")):
        record = statistics.repeated(attempt(2.0, "pressure"), again, QUIET)
        assert (record["latency_ms"], record["flags"]) == (2.0, ["pressure"])
        assert record["repeat"]["other"]["status"] == again["status"]


def test_a_device_that_does_not_become_quiet_leaves_the_doubt_and_its_reasons():
    record = statistics.repeated(attempt(2.0, "pressure"), None, {"waited_s": 10.0, "reasons": ["busy"]})
    assert record["flags"] == ["pressure"]
    assert record["repeat"] == {"waited_s": 10.0, "not_quiet": ["busy"], "other": None}
    assert edge.remarks(record) == [
        "doubtful: pressure",
        "not measured again, as the device was not quiet within 10 s: busy",
    ]


def test_what_waiting_does_not_mend_is_no_reason_to_measure_again():
    assert statistics.doubts({"flags": ["provider-fallback", "kernel-changed", "governor-changed"]}) == []
    assert statistics.doubts({"status": "failed"}) == []
