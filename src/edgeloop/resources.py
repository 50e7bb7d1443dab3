"""What a job asks of a cluster: what the config says, else what the stage and the size of the networks suggest.

Memory and time double with each attempt, up to what a node has and a partition grants. On one machine nothing of this
counts but the number of threads.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FLOPS_OF_THREAD = 5e9
FLOPS_OF_GPU = 5e12
"""What training reaches at the least: a limit that ends a job too early costs more than one that is generous."""
UNKNOWN_CLIPS = 50_000
"""As many training clips are assumed as long as the data are not prepared."""
LAST_MB = 2000
"""The last attempt may only have to write down why the others died: Snakemake and a script need so much."""


@dataclass(frozen=True)
class Demand:
    """CPUs, memory in MB and time in minutes of one job."""

    cpus: int
    mem_mb: int
    runtime_min: int


USUAL = {
    "simulate": Demand(1, 2_000, 30),
    "prepare": Demand(1, 8_000, 240),
    "predict": Demand(1, 8_000, 60),
    "draft": Demand(4, 12_000, 60),
    "train": Demand(1, 4_000, 30),
    "export": Demand(1, 4_000, 30),
    "evaluate": Demand(1, 8_000, 120),
}
"""The stages that run on compute nodes, and what they need besides what the size of a network adds."""


def training_demand(
    sizes: Sequence[Mapping[str, int]],
    *,
    clips: int,
    epochs: int,
    threads: int,
    processes: int,
    gpus: int,
    at_once: int,
) -> Demand:
    """What one job needs that trains networks of `sizes`, `at_once` of them side by side.

    A size has `parameters`, `macs` of one clip, `activations` (numbers that the layers put out for one clip) and
    `batch_size`. `processes` share each training (data parallel); with `gpus` the networks live in GPU memory. The
    demand is that of the whole job; CPUs are those of one process.
    """
    usual = USUAL["train"]
    flops = sum(6 * size["macs"] for size in sizes) * clips * epochs
    speed = gpus * FLOPS_OF_GPU if gpus else threads * processes * FLOPS_OF_THREAD * at_once
    if gpus:
        mem_mb = usual.mem_mb * max(processes, at_once)
    else:
        largest = sorted((_training_mb(size) for size in sizes), reverse=True)[:at_once]
        mem_mb = usual.mem_mb * processes + sum(largest)
    return Demand(threads, math.ceil(mem_mb), usual.runtime_min + math.ceil(2 * flops / speed / 60))


def export_demand(sizes: Sequence[Mapping[str, Any]], *, validation_clips: int) -> Demand:
    """What one job needs that exports networks of `sizes`, one after the other.

    A size has `precision`, too: a network that is converted is validated anew.
    """
    usual = USUAL["export"]
    largest = max((20 * size["parameters"] + 8 * size["activations"] for size in sizes), default=0)
    flops = sum(2 * size["macs"] for size in sizes if size["precision"] != "fp32") * validation_clips
    runtime_min = usual.runtime_min + len(sizes) + math.ceil(2 * flops / FLOPS_OF_THREAD / 60)
    return Demand(usual.cpus, usual.mem_mb + math.ceil(largest / 1e6), runtime_min)


def _training_mb(size: Mapping[str, int]) -> float:
    # Weights, their averages, gradients, two moments of the optimiser; what layers put out, kept for the way back, and
    # its gradient.
    return (20 * size["parameters"] + 12 * size["activations"] * size["batch_size"]) / 1e6


def memory_mb(first_mb: int, limit_mb: int | None, attempt: int, attempts: int) -> int:
    """Memory in MB of the given attempt (the first is 1) out of `attempts`; `first_mb` is that of the first."""
    mem_mb = first_mb * 2 ** (attempt - 1)
    if attempt == attempts > 1:
        mem_mb = max(mem_mb, LAST_MB)
    return min(mem_mb, limit_mb or mem_mb)


def runtime_min(first_min: int, limit_min: int, attempt: int) -> int:
    """Time limit in minutes of the given attempt."""
    return min(first_min * 2 ** (attempt - 1), limit_min)


def nodes(gpus: int, gpus_per_node: int) -> int:
    """How many nodes one training takes; ValueError when its GPUs cannot be shared out evenly."""
    if not gpus_per_node or gpus <= gpus_per_node:
        return 1
    if gpus % gpus_per_node:
        raise ValueError(
            f"'training.gpus' is {gpus}, but a node has {gpus_per_node} ('cluster.gpus_per_node'): expected at most "
            "that, or a multiple of it"
        )
    return gpus // gpus_per_node
