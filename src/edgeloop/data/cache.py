"""The crop cache as training sees it: a memory map of clips, their targets, and batches of both."""

import mmap
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SPLITS = ("train", "validation", "test", "unlabelled")
TARGET_SCALE = (900.0, 215.0)
"""The nominal speed in mm/s and power in W of RAISE-LPBF; targets are relative to them."""
LIMIT_SEED = 20_000
"""Of the permutation that `limit` takes its clips from: the same clips for every candidate."""


@dataclass(frozen=True)
class Split:
    """One split: `clips` uint8 [n, frames, pixels, pixels], mapped from disk, and `targets` float32 [n, 2]
    (see TARGET_SCALE).
    """

    clips: np.ndarray
    targets: np.ndarray

    def __len__(self) -> int:
        return len(self.targets)


def open_split(folder: str | Path, name: str) -> Split:
    """Open a split of the cache in `folder`; its clips are mapped, not read.

    Raises ValueError for a name that is none of SPLITS and FileNotFoundError for a folder without a cache.
    """
    if name not in SPLITS:
        raise ValueError(f"There is no split '{name}'; the splits are {', '.join(SPLITS)}.")
    folder = Path(folder)
    try:
        clips = np.load(folder / f"{name}.clips.npy", mmap_mode="r")
        targets = np.load(folder / f"{name}.targets.npy")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder} holds no crop cache ({error.filename} is missing): run `prepare` first."
        ) from error
    if len(clips) != len(targets):
        raise ValueError(
            f"{folder}: split '{name}' has {len(clips)} clips but {len(targets)} targets, so its files come from"
            " different runs. Remove the folder and run `prepare` again."
        )
    if len(clips):
        # Shuffled clips are not followed by their neighbours: what the kernel reads ahead of them would be for nothing,
        # and in a memory smaller than the cache would drive out what is still to come.
        clips.base.madvise(mmap.MADV_RANDOM)
    return Split(clips, targets)


def _first_frame(total: int, frames: int) -> int:
    if not 1 <= frames <= total:
        raise ValueError(f"Cannot take {frames} frames from clips of {total}: expected 1 to {total}.")
    return (total - frames) // 2


def window(clips: np.ndarray, frames: int) -> np.ndarray:
    """The centre `frames` frames of `clips` [n, T, H, W] as a view; ValueError when T is less."""
    first = _first_frame(clips.shape[1], frames)
    return clips[:, first : first + frames]


def batches(
    split: Split,
    batch_size: int,
    *,
    rng: np.random.Generator | None,
    frames: int = 16,
    shift: bool = False,
    limit: int | None = None,
    part: Callable[[int], slice] | None = None,
    reuse: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """One pass over `split` in batches of (uint8 [B, frames, H, W], float32 [B, 2]); the last may be smaller.

    With `rng` the order is shuffled, and with `shift` each batch takes its frames from a random place in the
    clips instead of their centre. Without `rng` the clips come in order. `limit` uses only the first `limit`
    clips of a permutation that is the same for every call. `part` gives, of the number of clips of a batch,
    the rows to read: the others are left to other processes, which draw the same batches. With `reuse` each
    batch overwrites the clips of the one before, for a loop that has then done with them: fresh memory costs as
    much as the copy. Raises ValueError for sizes that make no sense and for `shift` without `rng`.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None; got {limit}.")
    if shift and rng is None:
        raise ValueError("shift=True draws random windows: pass a generator as rng.")
    centre = _first_frame(split.clips.shape[1], frames)
    return _batches(split, batch_size, rng, frames, centre, shift, limit, part, reuse)


def _batches(
    split: Split,
    batch_size: int,
    rng: np.random.Generator | None,
    frames: int,
    centre: int,
    shift: bool,
    limit: int | None,
    part: Callable[[int], slice] | None,
    reuse: bool,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    order = np.arange(len(split))
    if limit is not None and limit < len(order):
        order = np.sort(np.random.default_rng(LIMIT_SEED).permutation(len(order))[:limit])
    if rng is not None:
        order = rng.permutation(order)
    clips = np.asarray(split.clips)  # a plain view: indexing np.memmap costs more than the copy of a small batch
    total, size = clips.shape[1], clips.shape[2:]
    # Rows to be copied in one piece each: whole clips, or single frames of them.
    rows = clips if frames == total else clips.reshape(-1, *size)
    buffer = np.empty((min(batch_size, len(order)), frames, *size), np.uint8)
    ahead, from_disk = _Ahead(clips), False

    def chosen_of(start: int) -> np.ndarray:
        chosen = order[start : start + batch_size]
        return chosen if part is None else chosen[part(len(chosen))]

    for start in range(0, len(order), batch_size):
        chosen = chosen_of(start)
        if from_disk:
            ahead.read(chosen_of(start + batch_size))
        faults = _faults_on_disk()
        first = int(rng.integers(total - frames + 1)) if shift and rng is not None else centre
        which = chosen if frames == total else chosen[:, None] * total + np.arange(first, first + frames)
        picked = buffer[: len(chosen)] if reuse else np.empty((len(chosen), *buffer.shape[1:]), np.uint8)
        # All indices are good; with mode="raise" numpy would copy twice.
        np.take(rows, which, axis=0, out=picked, mode="clip")
        # What is in memory needs no reading ahead, which would cost a fifth of the rate.
        from_disk = from_disk or _faults_on_disk() > faults
        yield picked, split.targets[chosen]


def _faults_on_disk() -> int:
    """How often this process has waited for the disk to bring a page of what it has mapped."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


class _Ahead:
    """Tells the kernel which of `clips` will be wanted soon, so that the disk brings them while others are computed on.

    Nothing happens to clips that are not mapped from a file.
    """

    def __init__(self, clips: np.ndarray):
        base: Any = clips
        while isinstance(base, np.ndarray):
            base = base.base
        self._map = base if isinstance(base, mmap.mmap) else None
        if self._map is not None and len(clips):
            self._first = clips.ctypes.data - np.frombuffer(self._map, np.uint8, 1).ctypes.data
            self._bytes = clips[0].nbytes

    def read(self, chosen: np.ndarray) -> None:
        """Begin to read the clips `chosen`, by number, without waiting for them."""
        if self._map is None:
            return
        for number in chosen.tolist():
            start = self._first + number * self._bytes
            page = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, page, start + self._bytes - page)
