"""Raw RAISE-LPBF files: which layers they hold, whether they can be used, and the frames of each scan line.

Version 1.0 of the data set has one group per printed object with groups `layerNNNN` in it; version 1.1 has
one file per object with the layers at the root. Both are read here, mixed as well. Whatever cannot be used is
counted in `Problems`, never raised: one damaged file must not cost the others.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

EXAMPLES = 5
LAYER_NAME = re.compile(r"layer[_-]?\d+", re.IGNORECASE)
BLOCK_BYTES = 8 << 20
"""Frames read at once: small enough for the last-level cache, large enough to read many lines in one go."""
H5_ERRORS = (OSError, RuntimeError, KeyError, ValueError)
"""What h5py raises when it meets damaged metadata or a chunk that does not decompress."""


@dataclass
class Problems:
    """Everything that was left out: counts by name with up to five examples each."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, example: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        examples = self.examples.setdefault(name, [])
        if len(examples) < EXAMPLES:
            examples.append(example)

    def as_record(self) -> dict[str, dict]:
        return {name: {"count": self.counts[name], "examples": self.examples[name]} for name in sorted(self.counts)}


@dataclass(frozen=True)
class Layer:
    """A usable layer of an object, in a file that could be opened."""

    file: Path
    path: str
    """Of the group within the file."""
    object: str
    name: str
    labelled: bool
    numbering: str
    """How rows of `laser_params` belong to line numbers: "from 0", "from 1" or "by rank"; "" without labels.
    """

    @property
    def title(self) -> str:
        return f"{self.object}/{self.name}"


@dataclass(frozen=True)
class Line:
    """The frames of one scan line, consecutive in the file."""

    number: int
    first_frame: int
    frames: np.ndarray
    """uint8 [n, H, W]; a view into a buffer that the next lines overwrite."""
    lit: np.ndarray
    """bool [n]: brightest pixel above the threshold."""
    label: np.ndarray | None
    """float64 [2] = [speed mm/s, power W]; may hold NaN; None in a layer without labels."""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _layout_fault(group: h5py.Group, pixels: int) -> str | None:
    """What keeps `group` from being a RAISE-LPBF layer; None when nothing does."""
    for name in ("frame", "scan_line_index"):
        if not isinstance(group.get(name), h5py.Dataset):
            return f"no dataset '{name}'"
    frame, index = group["frame"], group["scan_line_index"]
    if frame.ndim != 3 or frame.dtype != np.uint8:
        return f"'frame' is {frame.dtype} {list(frame.shape)}, expected uint8 [N, H, W]"
    if min(frame.shape[1:]) < pixels:
        return f"frames of {frame.shape[1]}x{frame.shape[2]} are smaller than the crop of {pixels}x{pixels}"
    if index.ndim != 1 or index.dtype.kind not in "iu":
        return f"'scan_line_index' is {index.dtype} {list(index.shape)}, expected integers [N]"
    if len(index) != len(frame):
        return f"{len(frame)} frames but {len(index)} entries in 'scan_line_index'"
    if len(frame) == 0:
        return "no frames"
    labels = group.get("laser_params")
    if labels is None:
        return None
    if (
        not isinstance(labels, h5py.Dataset)
        or labels.ndim != 2
        or labels.shape[1] != 2
        or labels.dtype.kind not in "fiu"
    ):
        return "'laser_params' is not of the shape [lines, 2]"
    return None


def _groups(file: h5py.File) -> Iterator[tuple[str, str, str]]:
    """(object or "", layer, path) of each group named like a layer, at the root or one group below."""
    for name in file:
        if LAYER_NAME.fullmatch(name):
            yield "", name, f"/{name}"
        elif isinstance(file.get(name), h5py.Group):
            for inner in file[name]:
                if LAYER_NAME.fullmatch(inner):
                    yield name, inner, f"/{name}/{inner}"


@dataclass(frozen=True)
class _Numbers:
    """The line numbers that a layer's video shows, and how many rows of labels it has."""

    lowest: int
    highest: int
    distinct: int
    rows: int


def _numbering(numbers: _Numbers, file_counts_from_1: bool) -> str | None:
    """How to find a line's row of labels; None when the file does not say.

    A row is the line's number wherever that is possible. Numbers beyond the last row happen in two ways: the
    file counts from 1, which shows on all of its layers; or it numbers lines at will and has a row for each
    line that it shows.
    """
    if file_counts_from_1:
        return "from 1"
    if numbers.highest < numbers.rows:
        return "from 0"
    return "by rank" if numbers.distinct == numbers.rows else None


def _scan_file(path: Path, pixels: int, problems: Problems) -> list[Layer]:
    found: list[tuple[str, str, str, _Numbers | None]] = []
    with h5py.File(path, "r") as file:
        for object_, name, where in _groups(file):
            title = f"{object_ or path.stem}/{name}"
            try:
                group = file[where]
                fault = _layout_fault(group, pixels) if isinstance(group, h5py.Group) else "not a group"
                if fault is not None:
                    problems.add("layer_of_another_layout", f"{title}: {fault}")
                    continue
                numbers = None
                if "laser_params" in group:
                    present = np.unique(group["scan_line_index"][()])
                    present = present[present >= 0]
                    if not len(present):
                        problems.add("layer_of_another_layout", f"{title}: no frame belongs to a scan line")
                        continue
                    rows = len(group["laser_params"])
                    numbers = _Numbers(int(present[0]), int(present[-1]), len(present), rows)
            except H5_ERRORS as error:
                problems.add("layer_damaged", f"{title}: {_first_line(error)}")
                continue
            found.append((object_, name, where, numbers))
        if not found and not any(True for _ in _groups(file)):
            problems.add("file_of_another_layout", f"{path.name}: no group layerNNNN at the root or one group below")

    known = [numbers for *_, numbers in found if numbers is not None]
    from_1 = (
        bool(known)
        and all(n.lowest >= 1 and n.highest <= n.rows for n in known)
        and any(n.highest == n.rows for n in known)
    )
    layers = []
    for object_, name, where, numbers in found:
        object_ = object_ or path.stem
        numbering = "" if numbers is None else _numbering(numbers, from_1)
        if numbering is None:
            problems.add(
                "labels_ambiguous",
                f"{object_}/{name}: {numbers.distinct} lines numbered {numbers.lowest} to {numbers.highest},"
                f" {numbers.rows} rows of laser_params",
            )
            continue
        layers.append(Layer(path, where, object_, name, numbers is not None, numbering))
    return layers


def scan(files: Sequence[Path], pixels: int, problems: Problems) -> list[Layer]:
    """The usable layers of `files`, in the order of the files and of the names within them; the rest goes to
    `problems`.
    """
    layers: dict[tuple[str, str], Layer] = {}
    for path in files:
        try:
            found = _scan_file(Path(path), pixels, problems)
        except H5_ERRORS as error:
            reason = _first_line(error)
            kind = "file_truncated" if "truncated" in reason else "file_unreadable"
            problems.add(kind, f"{Path(path).name}: {reason}")
            continue
        for layer in found:
            if layers.setdefault((layer.object, layer.name), layer) is not layer:
                problems.add("layer_repeated", f"{layer.title} in {Path(path).name}")
    return list(layers.values())


def _segments(index: np.ndarray) -> list[tuple[int, int, int]]:
    """(line number, first frame, end) for each stretch of equal numbers in `index`."""
    cuts = np.flatnonzero(np.diff(index)) + 1
    starts = np.concatenate([[0], cuts])
    ends = np.concatenate([cuts, [len(index)]])
    return [(int(index[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True)]


def _rows(layer: Layer, index: np.ndarray) -> dict[int, int]:
    numbers = np.unique(index)
    numbers = numbers[numbers >= 0]
    if layer.numbering == "by rank":
        return {int(number): rank for rank, number in enumerate(numbers)}
    first = 1 if layer.numbering == "from 1" else 0
    return {int(number): int(number) - first for number in numbers}


def read_lines(file: h5py.File, layer: Layer, lit_threshold: int, problems: Problems) -> Iterator[Line]:
    """The scan lines of `layer`, read in blocks: memory is bounded by a block or by the longest line.

    A layer that turns out to be damaged ends there and is counted. Negative line numbers mark frames between
    lines and are passed over. Should a number come again after other lines, the later pieces are left out and
    counted.
    """
    try:
        group = file[layer.path]
        frames = group["frame"]
        index = group["scan_line_index"][()]
        labels = group["laser_params"][()].astype(np.float64) if layer.labelled else None
    except H5_ERRORS as error:
        problems.add("layer_damaged", f"{layer.title}: {_first_line(error)}")
        return
    rows = _rows(layer, index) if layer.labelled else {}
    frame_bytes = frames.shape[1] * frames.shape[2]
    capacity = max(1, BLOCK_BYTES // frame_bytes)
    buffer = np.empty((0, *frames.shape[1:]), np.uint8)

    seen: set[int] = set()
    segments: list[tuple[int, int, int]] = []
    for number, first, end in _segments(index):
        if number < 0:
            continue
        if number in seen:
            problems.add("line_in_pieces", f"{layer.title}/line {number}")
            continue
        seen.add(number)
        segments.append((number, first, end))

    position = 0
    while position < len(segments):
        start = segments[position][1]
        last = position
        while last + 1 < len(segments) and segments[last + 1][2] - start <= capacity:
            last += 1
        end = segments[last][2]
        if len(buffer) < end - start:
            buffer = np.empty((end - start, *frames.shape[1:]), np.uint8)
        block = buffer[: end - start]
        try:
            frames.read_direct(block, np.s_[start:end])
        except H5_ERRORS as error:
            where = f"from line {segments[position][0]}"
            problems.add("layer_damaged", f"{layer.title} {where}: {_first_line(error)}")
            return
        lit = block.reshape(len(block), -1).max(axis=1) > lit_threshold
        for number, a, b in segments[position : last + 1]:
            label = labels[rows[number]] if labels is not None else None
            yield Line(number, a, block[a - start : b - start], lit[a - start : b - start], label)
        position = last + 1
