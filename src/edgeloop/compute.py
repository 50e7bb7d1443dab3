"""Where PyTorch computes, in how many processes, and how to make it compute the same twice."""

import ctypes
import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

KEPT_BYTES = 1 << 30
"""Blocks up to this size, and so much at the end of the heap, stay with the process."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


class Alone:
    """The one process of a training that needs no others: all of each batch is its own.

    `edgeloop.distributed.Team` has the same methods for several processes, of which each computes its part
    and all come to the same figures. Batches and splits are counted in clips.
    """

    rank, size = 0, 1

    def part(self, rows: int) -> slice:
        """The rows of this process, of `rows` that the processes share."""
        return slice(0, rows)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The module to call in training, whose parameters and `layout` are those of `model`."""
        return model

    def loss(self, outputs: Tensor, targets: Tensor, rows: int) -> Tensor:
        """The scalar whose mean over the processes is the mean squared error of the batch of `rows`.

        outputs, targets: float32 [part of the batch, 2].
        """
        return functional.mse_loss(outputs, targets)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value` over the processes."""
        return value

    def gather(self, own: np.ndarray, rows: int) -> np.ndarray:
        """float32 [rows, ...] of which `own` are the rows of this process."""
        return own

    def abandon(self, record: dict[str, Any]) -> None:
        """This process ends its training with `record` while the others wait for it: nobody, here."""


ALONE = Alone()


def pick_device(name: str) -> torch.device:
    """The device for "auto" (CUDA where there is one), "cpu" or "cuda"; RuntimeError when CUDA is not there."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise RuntimeError(
            "training.device is cuda, but PyTorch finds no CUDA device: install a PyTorch build for CUDA and a "
            "driver, or set training.device to auto or cpu"
        )
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def describe(device: torch.device) -> str:
    """The device in words, as "cpu: AMD EPYC" or "cuda: Tesla V100"."""
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"cpu: {models[0] if models else platform.processor() or platform.machine()}"


def seed_of(candidate: str, seed: int) -> int:
    """A seed in 0 ... 2**48 - 1 from the candidate's id and the run's seed."""
    return int.from_bytes(hashlib.sha256(f"{candidate}:{seed}".encode()).digest()[:6], "big")


@contextmanager
def deterministic(seed: int, threads: int, device: torch.device) -> Iterator[None]:
    """PyTorch seeded, on `threads` CPU threads, with deterministic kernels; what was before is restored.

    The number of threads decides the order of sums, so it is part of what makes two runs equal.
    """
    # cuBLAS reads this when it starts; without it, deterministic matrix products are refused.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads(), torch.get_deterministic_debug_mode()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            torch.set_num_threads(threads)
            # The debug mode is the same switch as use_deterministic_algorithms, which imports the compiler: 1.4 s.
            # A few CUDA kernels (3D max pooling backwards) have no deterministic twin: they warn, and run.
            torch.set_deterministic_debug_mode("warn" if device.type == "cuda" else "error")
            # Filling fresh memory with NaN finds bugs; we read no fresh memory, and it takes time.
            torch.utils.deterministic.fill_uninitialized_memory = False
            torch.manual_seed(seed)
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.set_deterministic_debug_mode(before[1])
            torch.utils.deterministic.fill_uninitialized_memory = fill


def keep_freed_memory() -> None:
    """Let this process keep the memory that it frees, for what it takes next; for good.

    glibc gives large blocks back to the kernel, which clears each of their pages when they are taken again. A step of a
    training takes and frees the same blocks as the one before: up to half of its time goes there. Other C libraries are
    left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, the host's or the device's, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("out of memory", "not enough memory", "can't allocate memory")
    )
