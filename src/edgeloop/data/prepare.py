"""From raw files to the crop cache: short clips around the melt pool, split by whole layers or objects, ready
to be mapped.
"""

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from edgeloop import records
from edgeloop.data import raw
from edgeloop.data.cache import SPLITS, TARGET_SCALE
from edgeloop.data.split import assign
from edgeloop.parity import CLIPS as PARITY_CLIPS

INDEX_COLUMNS = ("object", "layer", "line", "clip", "start_frame", "row", "column")


def lit_runs(lit: np.ndarray) -> list[tuple[int, int]]:
    """(start, end) of each stretch of True in `lit` [n]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lit, [False]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def clip_starts(runs: Sequence[tuple[int, int]], frames: int, count: int) -> list[int]:
    """First frames of up to `count` clips of `frames` frames, each within one run, spread evenly over all
    places they could have.
    """
    places = np.concatenate([[], *(np.arange(start, end - frames + 1) for start, end in runs)]).astype(int)
    if not len(places):
        return []
    count = min(count, len(places))
    chosen = ((np.arange(count) + 0.5) * len(places) / count).astype(int)
    return places[chosen].tolist()


def brightest_pixel(frames: np.ndarray) -> tuple[int, int]:
    """(row, column) of the brightest pixel of the mean of `frames` uint8 [n, H, W].

    A saturated pool has many equally bright pixels: then the one closest to their centre, lest the crop hang
    on the pool's upper edge.
    """
    size = frames.shape[1:]
    # Whole numbers in float32 are exact up to 2^24, that is 65,000 frames; a matrix product is the fastest
    # sum over uint8.
    total = np.ones(len(frames), np.float32) @ frames.reshape(len(frames), -1).astype(np.float32)
    ties = np.flatnonzero(total == total.max())
    rows, columns = np.divmod(ties, size[1])
    closest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return int(rows[closest]), int(columns[closest])


class _SplitWriter:
    """Appends clips to one split's files, whose length is known only at the end."""

    def __init__(self, stack: ExitStack, folder: Path, name: str, clip_shape: tuple[int, ...]):
        self._clip_shape = clip_shape
        self.targets_path = stack.enter_context(records.atomic(folder / f"{name}.targets.npy"))
        self.clips_path = stack.enter_context(records.atomic(folder / f"{name}.clips.npy"))
        index_path = stack.enter_context(records.atomic(folder / f"{name}.index.csv"))
        self._clips: BinaryIO = stack.enter_context(self.clips_path.open("wb"))
        self._targets: BinaryIO = stack.enter_context(self.targets_path.open("wb"))
        self._index_file = stack.enter_context(index_path.open("w", newline=""))
        self._index = csv.writer(self._index_file, lineterminator="\n")
        self._index.writerow(INDEX_COLUMNS)
        self._hash = hashlib.sha256()
        self.clips = self.lines = 0
        self.layers: dict[str, set[str]] = {}
        self._headers()

    def _headers(self) -> None:
        """Numpy leaves room in a header for the first axis to grow, so that it can be written again in place."""
        for file, kind, shape in ((self._clips, "|u1", self._clip_shape), (self._targets, "<f4", (2,))):
            header = {"descr": kind, "fortran_order": False, "shape": (self.clips, *shape)}
            np.lib.format.write_array_header_1_0(file, header)

    def add(self, layer: raw.Layer, line: raw.Line, starts: Iterable[int], row: int, column: int) -> None:
        half, pixels = self._clip_shape[1] // 2, self._clip_shape[1]
        crop = line.frames[:, row - half : row - half + pixels, column - half : column - half + pixels]
        label = line.label if line.label is not None else np.full(2, np.nan)
        target = (float(label[0] / TARGET_SCALE[0]), float(label[1] / TARGET_SCALE[1]))
        for clip, start in enumerate(starts):
            content = np.ascontiguousarray(crop[start : start + self._clip_shape[0]])
            self._clips.write(content)
            self._hash.update(content)
            entry = [layer.object, layer.name, line.number, clip, line.first_frame + start, row, column]
            self._index.writerow(entry)
            self._hash.update(repr((entry, target)).encode())
            self._targets.write(np.array(target, "<f4"))
            self.clips += 1
        self.lines += 1
        self.layers.setdefault(layer.object, set()).add(layer.name)

    def finish(self) -> str:
        """Complete the files; returns the digest of their content."""
        end = self._clips.tell()
        self._clips.seek(0)
        self._targets.seek(0)
        self._headers()
        if end != self._clips.tell() + self.clips * int(np.prod(self._clip_shape)):
            raise RuntimeError(f"{self.clips_path}: the header outgrew the room left for it. Please report this.")
        for file in (self._clips, self._targets, self._index_file):
            file.flush()
        return self._hash.hexdigest()

    def summary(self) -> dict[str, Any]:
        return {
            "clips": self.clips,
            "lines": self.lines,
            "layers": sum(len(names) for names in self.layers.values()),
            "objects": sorted(self.layers),
        }


def _usable(
    file: h5py.File,
    layer: raw.Layer,
    shape: tuple[int, int],
    lit_threshold: int,
    clips_per_line: int,
    problems: raw.Problems,
) -> Iterator[tuple[raw.Line, list[int], int, int]]:
    """Lines of `layer` with their clips' first frames and the brightest pixel; the rest is counted in
    `problems`.
    """
    frames, pixels = shape
    half = pixels // 2
    for line in raw.read_lines(file, layer, lit_threshold, problems):
        title = f"{layer.title}/line {line.number}"
        if line.label is not None and not np.isfinite(line.label).all():
            problems.add("labels_not_finite", title)
            continue
        runs = lit_runs(line.lit)
        if not runs:
            problems.add("no_lit_run", title)
            continue
        starts = clip_starts(runs, frames, clips_per_line)
        if not starts:
            problems.add("line_too_short", title)
            continue
        row, column = brightest_pixel(line.frames if line.lit.all() else line.frames[line.lit])
        height, width = line.frames.shape[1:]
        if not (half <= row <= height - pixels + half and half <= column <= width - pixels + half):
            problems.add("crop_meets_border", title)
            continue
        yield line, starts, row, column


def _parity(stack: ExitStack, folder: Path, writer: _SplitWriter) -> None:
    """Write the clips that devices are checked with: evenly spread over the validation split."""
    clips = np.load(writer.clips_path, mmap_mode="r")
    count = min(PARITY_CLIPS, len(clips))
    chosen = ((np.arange(count) + 0.5) * len(clips) / max(count, 1)).astype(int)
    targets = np.load(writer.targets_path, mmap_mode="r")
    for name, content in (("parity", clips[chosen]), ("parity_targets", targets[chosen])):
        with stack.enter_context(records.atomic(folder / f"{name}.npy")).open("wb") as file:
            np.save(file, np.asarray(content))


def _why(problems: raw.Problems) -> str:
    return "; ".join(
        f"{name} ({entry['count']}): {', '.join(entry['examples'])}" for name, entry in problems.as_record().items()
    )


def _messages(layers: Sequence[raw.Layer], writers: Mapping[str, _SplitWriter], problems: raw.Problems) -> list[str]:
    messages = []
    withheld = sorted({layer.object for layer in layers if not layer.labelled})
    if withheld:
        messages.append(
            f"No laser_params in {', '.join(withheld)}: labels are withheld, so"
            f" {writers['unlabelled'].clips} clips of split 'unlabelled' serve prediction only."
        )
    numbering = Counter(layer.numbering for layer in layers if layer.labelled)
    if numbering["from 1"]:
        messages.append(
            f"{numbering['from 1']} layers number their scan lines from 1 (no file of theirs has a line 0,"
            " and the highest number is the number of label rows): row i of laser_params was taken for line i + 1."
        )
    if numbering["by rank"]:
        messages.append(
            f"{numbering['by rank']} layers have line numbers beyond their label rows but as many lines as rows:"
            " rows of laser_params were taken in the order of the line numbers."
        )
    for name, entry in problems.as_record().items():
        messages.append(f"{name}: {entry['count']}, e.g. {', '.join(entry['examples'][:2])}")
    return messages


def prepare(
    files: Sequence[Path],
    folder: Path,
    *,
    source: str,
    frames: int = 16,
    pixels: int = 41,
    lit_threshold: int,
    clips_per_line: int,
    split: Mapping[str, Any],
    seed: int,
    progress: Callable[..., Iterator[raw.Layer]] | None = None,
) -> dict[str, Any]:
    """Build the crop cache in `folder` from the raw RAISE-LPBF `files`; returns the record that it writes as
    cache.json.

    A clip is `frames` consecutive frames of one lit run (brightest pixel above `lit_threshold`), cut to
    `pixels` x `pixels` around the brightest pixel of the line's mean lit frame; lines whose crop would leave
    the frame are left out. `split` is ``{"test": rule, "validation": rule}`` with a rule ``{"objects":
    [...]}`` or ``{"share": 0.2, "by": "object" | "layer"}``. Memory is bounded by a block of frames, not by
    the files. For each split the folder gets `{split}.clips.npy`, `{split}.targets.npy`, `{split}.index.csv`;
    besides parity.npy and parity_targets.npy, evenly spread over validation. `progress` is
    `edgeloop.progress.progress`, which then tells of the layers as they are read, or None for silence.

    Raises ValueError when no clip at all can be had, when training or validation would be empty, and when the
    split names objects that are in no file; the message says which files and why. Every lesser trouble is
    counted in the record's `problems`.
    """
    files = [Path(file) for file in files]
    folder = Path(folder)
    if not files:
        raise ValueError("There are no raw files to prepare: check the data set's path in the configuration.")
    for name, value in (("frames", frames), ("pixels", pixels), ("clips_per_line", clips_per_line)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    if not 0 <= lit_threshold < 255:
        raise ValueError(f"lit_threshold must be from 0 to 254 counts; got {lit_threshold}.")

    problems = raw.Problems()
    layers = raw.scan(files, pixels, problems)
    names = ", ".join(file.name for file in files)
    if not layers:
        raise ValueError(f"No usable layer in {names}: {_why(problems)}.")
    splits, messages = assign(
        layers, split, seed, lost={file.stem for file in files} - {layer.object for layer in layers}
    )

    clip_shape = (frames, pixels, pixels)
    with ExitStack() as stack:
        writers = {name: _SplitWriter(stack, folder, name, clip_shape) for name in SPLITS}
        layers_left: Iterator[raw.Layer] = iter(layers)
        if progress is not None:
            layers_left = progress(layers_left, total=len(layers), label="prepare", unit="layer")
        for path, group in groupby(layers_left, key=lambda layer: layer.file):
            with h5py.File(path, "r") as file:
                for layer in group:
                    writer = writers[splits[layer.object, layer.name]]
                    for line, starts, row, column in _usable(
                        file, layer, (frames, pixels), lit_threshold, clips_per_line, problems
                    ):
                        writer.add(layer, line, starts, row, column)
        _check_filled(writers, names, problems)
        digests = {name: writer.finish() for name, writer in writers.items()}
        _parity(stack, folder, writers["validation"])
        record = records.ok(
            source=source,
            frames=frames,
            pixels=pixels,
            lit_threshold=lit_threshold,
            clips_per_line=clips_per_line,
            seed=seed,
            target_scale=list(TARGET_SCALE),
            splits={name: writer.summary() for name, writer in writers.items()},
            problems=problems.as_record(),
            messages=messages + _messages(layers, writers, problems),
            files=[{"name": file.name, "size": file.stat().st_size if file.exists() else None} for file in files],
            fingerprint=hashlib.sha256(records.canonical_json(digests).encode()).hexdigest(),
        )
        # The arrays take their names when this block ends. Until the new record stands, none may: it would
        # describe other arrays.
        (folder / "cache.json").unlink(missing_ok=True)
    records.write_json(folder / "cache.json", record)
    return record


def _check_filled(writers: Mapping[str, _SplitWriter], names: str, problems: raw.Problems) -> None:
    """Raise a ValueError that says what to change when there is nothing to train on or to validate with."""
    counts = {name: writer.clips for name, writer in writers.items()}
    why = f" Left out: {_why(problems)}." if problems.counts else ""
    if not sum(counts.values()):
        raise ValueError(f"No usable clip in {names}.{why}")
    if not counts["train"] + counts["validation"] + counts["test"]:
        return  # labels are withheld throughout: the cache serves prediction only, and its messages say so
    for name in ("train", "validation"):
        if not counts[name]:
            other = "test and validation" if name == "train" else "validation"
            raise ValueError(
                f"The {name} split is empty: none of its layers in {names} has a usable clip."
                f" Change the share or the objects of {other} in the data set's `split`, or add files.{why}"
            )
