"""What one call of `Session.measure` is made of: every model once, its further batch sizes, and once more what was
doubtful, as soon as the device is quiet."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import statistics

if TYPE_CHECKING:
    from .session import Job

OF_BATCH_SIZE = (
    "status",
    "reason",
    "latency_ms",
    "latency_p5_ms",
    "latency_p50_ms",
    "latency_p99_ms",
    "ratio",
    "peak_memory_mb",
    "energy_mj_per_inference",
    "flags",
)
"""What a record tells of a further batch size. An inference is one run of the whole batch."""


@dataclass
class Quiet:
    """For how many seconds in all the models of one command may wait for a quiet device, and what came of it: by
    model the runner's event `quiet`."""

    wait_s: float
    events: dict[int, Mapping[str, Any]] = field(default_factory=dict)


Once = Callable[[Sequence["Job"], Quiet | None], list[Any]]
"""One command on the device: the record of each job, None for one that found no quiet device."""


def measure(once: Once, jobs: Sequence["Job"], quiet_wait_s: float) -> list[dict[str, Any]]:
    """The records of `jobs`, those of their further batch sizes within them."""
    further = [
        (index, size, replace(job, clips=None, batch_size=size, batch_sizes=()))
        for index, job in enumerate(jobs)
        for size in job.batch_sizes
    ]
    tasks = [*jobs, *(job for _, _, job in further)]
    records = once(tasks, None)
    doubtful = [index for index, record in enumerate(records) if statistics.doubts(record)]
    if doubtful:
        quiet = Quiet(quiet_wait_s)
        again = once([tasks[index] for index in doubtful], quiet)
        for number, (index, repetition) in enumerate(zip(doubtful, again, strict=True)):
            records[index] = statistics.repeated(records[index], repetition, quiet.events[number])
    for (index, size, _), record in zip(further, records[len(jobs) :], strict=True):
        told = {"batch_size": size, **{key: record[key] for key in OF_BATCH_SIZE if key in record}}
        records[index].setdefault("by_batch_size", []).append(told)
    return records[: len(jobs)]


def remarks(record: Mapping[str, Any]) -> list[str]:
    """What a person should be told of a record's doubts, a sentence each; nothing where there are none."""
    found = []
    flags, repeat = ", ".join(record.get("flags", ())), record.get("repeat")
    if flags:
        found.append(f"doubtful: {flags}")
    if repeat and repeat["not_quiet"]:
        reasons = ", ".join(repeat["not_quiet"])
        found.append(f"not measured again, as the device was not quiet within {repeat['waited_s']:.3g} s: {reasons}")
    elif repeat:
        other = repeat["other"]
        why = ", ".join(other.get("flags", ())) or other["reason"]
        found.append(f"measured twice; the one that does not count: {why}")
    return found
