"""Samples a second that reach training, on one worker with one thread and the page cache warm: the crop cache
against a plain loader, and against what copying and converting the same bytes costs.

The plain loader is the usual Dataset: item by item it opens the HDF5 file, finds the line's frames, reads 16 of
them, cuts the crop around the brightest pixel of their mean, scales it to 224 px and returns a float tensor; a
second one keeps the file open. The crop cache gives shuffled batches of uint8, which is what networks take, and
turned into float32. Copying takes the same clips in the order in which they lie, into memory that is used again. The
data are simulated into a temporary folder; the cache is larger than a processor's.

Usage: python benchmarks/data_path.py [--frame-px 128] [--batch 32] [--seconds 3] [--json OUT]
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch

from edgeloop import records
from edgeloop.data.cache import Split, batches, open_split
from edgeloop.data.prepare import prepare
from edgeloop.data.simulate import PRESETS, write_object

FRAMES, CROP, RESIZED = 16, 41, 224


class PlainLoader(torch.utils.data.Dataset):
    """One item per scan line, read from the raw file when it is asked for."""

    def __init__(self, path: Path, keep_open: bool):
        self.path, self.items = path, []
        with h5py.File(path, "r") as file:
            for layer in file:
                index = file[layer]["scan_line_index"][()]
                self.items += [(layer, int(line)) for line in np.unique(index) if (index == line).sum() >= FRAMES]
        self.file = h5py.File(path, "r") if keep_open else None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.file is not None:
            return self.read(self.file, *self.items[item])
        with h5py.File(self.path, "r") as file:
            return self.read(file, *self.items[item])

    def read(self, file: h5py.File, layer: str, line: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The clip, float32 [16, 224, 224], and its targets."""
        group = file[layer]
        which = np.flatnonzero(group["scan_line_index"][()] == line)
        start = int(which[0]) + (len(which) - FRAMES) // 2
        frames = group["frame"][start : start + FRAMES]
        row, column = np.unravel_index(frames.mean(0).argmax(), frames.shape[1:])
        top = int(np.clip(row - CROP // 2, 0, frames.shape[1] - CROP))
        left = int(np.clip(column - CROP // 2, 0, frames.shape[2] - CROP))
        clip = torch.from_numpy(frames[:, top : top + CROP, left : left + CROP]).float()[:, None] / 255
        clip = torch.nn.functional.interpolate(clip, size=(RESIZED, RESIZED), mode="bilinear", align_corners=False)
        speed, power = group["laser_params"][line]
        return clip[:, 0], torch.tensor([speed / 900, power / 215], dtype=torch.float32)


def rate(passes: Callable[[], Iterator[int]], seconds: float) -> float:
    """Samples per second of `passes`, which yields numbers of samples, over at least `seconds` after one
    round to warm up.
    """
    for _ in passes():
        pass
    samples, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for count in passes():
            samples += count
            if time.perf_counter() - start > 4 * seconds:
                break
    return samples / (time.perf_counter() - start)


def passes_over_cache(split: Split, batch: int) -> dict[str, Callable[[], Iterator[int]]]:
    """Ways through all clips of `split`, by name; each yields the number of clips of one batch after the other."""
    rng = np.random.default_rng(1)
    floats = torch.empty((batch, *split.clips.shape[1:]))
    buffer = np.empty((batch, *split.clips.shape[1:]), np.uint8)
    plain = np.asarray(split.clips)

    def cached() -> Iterator[int]:
        for clips, _ in batches(split, batch, rng=rng, reuse=True):
            yield len(clips)

    def cached_float() -> Iterator[int]:
        for clips, _ in batches(split, batch, rng=rng, reuse=True):
            yield len(floats[: len(clips)].copy_(torch.from_numpy(clips)))

    def copied() -> Iterator[int]:
        for start in range(0, len(plain), batch):
            piece = plain[start : start + batch]
            np.copyto(buffer[: len(piece)], piece)
            yield len(piece)

    def copied_float() -> Iterator[int]:
        for start in range(0, len(plain), batch):
            piece = plain[start : start + batch]
            np.copyto(buffer[: len(piece)], piece)
            yield len(floats[: len(piece)].copy_(torch.from_numpy(buffer[: len(piece)])))

    return {
        "samples_per_s": cached,
        "float_samples_per_s": cached_float,
        "copy_samples_per_s": copied,
        "copy_float_samples_per_s": copied_float,
    }


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    raw = folder / "B01.h5"
    record = write_object(
        raw,
        "B01",
        seed=1,
        layers=4,
        lines=arguments.lines // 4,
        frame_px=arguments.frame_px,
        min_frames=FRAMES + 4,
        max_frames=FRAMES + 24,
        simulation=PRESETS["clear"],
    )
    settings = {"source": "simulate", "lit_threshold": 100, "seed": 1}
    settings["split"] = {"validation": {"share": 0.25, "by": "layer"}}
    start = time.perf_counter()
    prepare([raw], folder / "one", clips_per_line=1, **settings)
    figures = {"prepare_lines_per_s": record["lines"] / (time.perf_counter() - start)}
    prepare([raw], folder / "cache", clips_per_line=arguments.clips_per_line, **settings)
    train = open_split(folder / "cache", "train")
    figures |= {"clips": len(train), "cache_mb": train.clips.nbytes / 2**20}
    for name, keep_open in (("plain_samples_per_s", False), ("plain_open_samples_per_s", True)):
        loader = PlainLoader(raw, keep_open)
        order = np.random.default_rng(1).permutation(len(loader))[:100]

        def plain(loader: PlainLoader = loader, order: np.ndarray = order) -> Iterator[int]:
            for item in order:
                loader[int(item)]
                yield 1

        figures[name] = rate(plain, arguments.seconds)
    for name, passes in passes_over_cache(train, arguments.batch).items():
        figures[name] = rate(passes, arguments.seconds)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frame-px", type=int, default=128)
    parser.add_argument("--lines", type=int, default=600, help="scan lines to simulate (default 600)")
    parser.add_argument("--clips-per-line", type=int, default=8, help="of the cache that is read (default 8)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        figures = measure(arguments, Path(name))
    plain = figures["plain_samples_per_s"]
    figures["ratio"] = figures["samples_per_s"] / plain
    figures["float_ratio"] = figures["float_samples_per_s"] / plain
    figures["share_of_copy"] = figures["samples_per_s"] / figures["copy_samples_per_s"]
    figures["share_of_copy_float"] = figures["float_samples_per_s"] / figures["copy_float_samples_per_s"]
    rows = {
        "plain loader: HDF5 opened for each item, resized to 224 px": "plain_samples_per_s",
        "plain loader: HDF5 kept open, resized to 224 px": "plain_open_samples_per_s",
        "crop cache: shuffled batches, uint8 (what networks take)": "samples_per_s",
        "crop cache: shuffled batches, float32": "float_samples_per_s",
        "copying the same clips in order": "copy_samples_per_s",
        "copying the same clips in order, and to float32": "copy_float_samples_per_s",
    }
    print(f"{'path':<58} {'samples/s':>10} {'ratio':>7}")
    for name, key in rows.items():
        print(f"{name:<58} {figures[key]:>10.0f} {figures[key] / plain:>7.0f}")
    print(
        f"cache: {figures['share_of_copy']:.0%} of the rate of copying, "
        f"{figures['share_of_copy_float']:.0%} of copying and converting; {figures['clips']} clips, "
        f"{figures['cache_mb']:.0f} MB"
    )
    print(
        f"prepare: {figures['prepare_lines_per_s']:.0f} lines/s from {arguments.frame_px}x{arguments.frame_px} frames"
    )
    if arguments.json:
        about = {"schema_version": 1, "frame_px": arguments.frame_px, "batch": arguments.batch}
        records.write_json(arguments.json, about | figures)


if __name__ == "__main__":
    main()
