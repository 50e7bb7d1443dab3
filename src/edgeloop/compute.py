"""Where PyTorch computes, and how to make it compute the same twice."""

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


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


def out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory, the host's or the device's, did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("out of memory", "not enough memory", "can't allocate memory")
    )
