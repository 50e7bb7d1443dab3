"""Whether the device computes what was trained (DESIGN: quality on the device beside quality in PyTorch)."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeloop.rmse import rmse

CLIPS = 256
FEWEST_CLIPS = 2
MAX_GMAC = 40
"""A slow network is checked on fewer clips: 40 GMAC take a core about a second."""


def clip_count(macs: int) -> int:
    """On how many of the fixed clips a network of so many multiply-accumulates is checked."""
    return int(min(CLIPS, max(FEWEST_CLIPS, MAX_GMAC * 1e9 // macs)))


@contextmanager
def first_clips(file: str | Path, count: int) -> Iterator[Path]:
    """A file with the first `count` clips of the .npy `file`: itself when it holds no more."""
    clips = np.load(file, mmap_mode="r")
    if len(clips) <= count:
        yield Path(file)
        return
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "clips.npy"
        np.save(part, clips[:count])
        yield part


def compare(
    outputs: np.ndarray, expected: np.ndarray, targets: np.ndarray, *, pytorch: np.ndarray | None = None
) -> dict[str, Any]:
    """Figures of the device's `outputs` beside the `expected` ones on the same clips; all [n, 2], normalised.

    `rmse` and `rmse_pytorch` are joint RMSEs against `targets`, on these clips only. What is expected are PyTorch's
    outputs, unless these are given on their own, as `pytorch`: then those of a converted file are expected, and by how
    much the device's outputs differ from PyTorch's is `pytorch_max_abs_difference`.
    """
    outputs, expected, targets = (np.asarray(array, float) for array in (outputs, expected, targets))
    if not outputs.shape == expected.shape == targets.shape:
        raise ValueError(
            f"the device returned outputs of shape {outputs.shape}; expected {expected.shape} as the export gave, "
            f"and as the targets have, {targets.shape}"
        )
    figures = {
        "parity_clips": len(outputs),
        "parity_max_abs_difference": float(np.abs(outputs - expected).max()),
        "rmse": rmse(outputs, targets)["rmse"],
        "rmse_pytorch": rmse(expected if pytorch is None else np.asarray(pytorch, float), targets)["rmse"],
    }
    if pytorch is not None:
        figures["pytorch_max_abs_difference"] = float(np.abs(outputs - np.asarray(pytorch, float)).max())
    return figures
