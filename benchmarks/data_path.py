"""Samples a second that reach training, on one worker with one thread and the page cache warm: the crop cache
against a plain loader.

The plain loader opens the HDF5 file once, finds the line's frames, reads 16 of them, cuts the crop around the
brightest pixel of their mean, scales it to 224 px and returns a float tensor, item by item, as the usual
Dataset does. The crop cache gives batches of uint8 from a memory map, turned into float32 in [0, 1]. The data
are simulated into a temporary folder.

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
from edgeloop.data.cache import batches, open_split
from edgeloop.data.prepare import prepare
from edgeloop.data.simulate import PRESETS, write_object

FRAMES, CROP, RESIZED = 16, 41, 224


class PlainLoader(torch.utils.data.Dataset):
    """One item per scan line, read from the raw file when it is asked for."""

    def __init__(self, path: Path):
        self.file = h5py.File(path, "r")
        self.items = []
        for layer in self.file:
            index = self.file[layer]["scan_line_index"][()]
            self.items += [(layer, int(line)) for line in np.unique(index) if (index == line).sum() >= FRAMES]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        layer, line = self.items[item]
        group = self.file[layer]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frame-px", type=int, default=128)
    parser.add_argument("--lines", type=int, default=600, help="scan lines to simulate (default 600)")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0, help="per loader (default 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder, raw = Path(name), Path(name) / "B01.h5"
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
        start = time.perf_counter()
        split = {"validation": {"share": 0.25, "by": "layer"}}
        prepare(
            [raw],
            folder / "cache",
            source="simulate",
            lit_threshold=100,
            clips_per_line=1,
            split=split,
            seed=1,
        )
        prepare_s = time.perf_counter() - start
        train = open_split(folder / "cache", "train")
        rng = np.random.default_rng(1)

        def cached() -> Iterator[int]:
            for clips, targets in batches(train, arguments.batch, rng=rng):
                video, _ = torch.from_numpy(clips).float().div_(255), torch.from_numpy(targets)
                yield len(video)

        loader = PlainLoader(raw)
        order = rng.permutation(len(loader))[:100]

        def plain() -> Iterator[int]:
            for item in order:
                loader[int(item)]
                yield 1

        figures = {
            "schema_version": 1,
            "frame_px": arguments.frame_px,
            "batch": arguments.batch,
            "clips": len(train),
            "samples_per_s": rate(cached, arguments.seconds),
            "plain_samples_per_s": rate(plain, arguments.seconds),
            "prepare_lines_per_s": record["lines"] / prepare_s,
        }
        loader.file.close()
    figures["ratio"] = figures["samples_per_s"] / figures["plain_samples_per_s"]
    print(f"{'path':<52} {'samples/s':>10} {'ratio':>7}")
    print(f"{'plain loader: HDF5 per item, resized to 224 px':<52} {figures['plain_samples_per_s']:>10.0f} {1:>7}")
    print(
        f"{'crop cache: memory map, batches, float32':<52} {figures['samples_per_s']:>10.0f} {figures['ratio']:>7.0f}"
    )
    print(
        f"prepare: {figures['prepare_lines_per_s']:.0f} lines/s from {arguments.frame_px}x{arguments.frame_px} frames"
    )
    if arguments.json:
        records.write_json(arguments.json, figures)


if __name__ == "__main__":
    main()
