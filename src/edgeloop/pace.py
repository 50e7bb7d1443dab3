"""Where the time of a training goes: into making batches, or into computing on them."""

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch

Batch = TypeVar("Batch")
EVERY = 16
"""On CUDA one step in so many is timed: the host has to wait for the device before and after it."""


class Pace:
    """The seconds that a training spends on batches, and on steps with batches that are there already.

    The two follow each other on a CPU, where all steps are timed; on CUDA, work is only handed over, so that making a
    batch and computing on the one before overlap. Together they say which of the two limits the training.
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._loader_s = self._network_s = 0.0
        self._timed = 0

    def loading(self, pairs: Iterable[Batch]) -> Iterator[Batch]:
        """The batches of `pairs`; the time that they take to come is the loader's."""
        iterator = iter(pairs)
        while True:
            begin = time.perf_counter()
            pair = next(iterator, None)
            self._loader_s += time.perf_counter() - begin
            if pair is None:
                return
            yield pair

    def begin(self, step: int) -> float | None:
        """When the step `step` (from 1) of an epoch begins; None for one that is not timed."""
        if self._device.type == "cuda" and step % EVERY != 2:  # the first one of all loads the kernels
            return None
        return self._now()

    def end(self, begin: float | None, clips: int) -> None:
        """The step that began at `begin`, with `clips` clips, has ended."""
        if begin is not None:
            self._network_s += self._now() - begin
            self._timed += clips

    def limits(self, clips: int) -> dict[str, float | None]:
        """Samples a second of the loader alone and of the network alone after `clips` clips of training; None where
        nothing was timed."""
        return {
            "loader_samples_per_s": round(clips / self._loader_s, 1) if self._loader_s else None,
            "network_samples_per_s": round(self._timed / self._network_s, 1) if self._network_s else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """What has been timed so far."""
        return {"loader_s": self._loader_s, "network_s": self._network_s, "timed": self._timed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._loader_s, self._network_s, self._timed = (state[key] for key in ("loader_s", "network_s", "timed"))

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
