"""Crop caches of simulated video, for benchmarks that train."""

from pathlib import Path

from edgeloop.data.cache import Split, open_split
from edgeloop.data.prepare import prepare
from edgeloop.data.simulate import Simulation, write_object

OBJECTS, LAYERS = 4, 6


def simulated(folder: Path, simulation: Simulation, lines: int, seed: int = 1) -> tuple[Split, Split]:
    """Training and validation split of about `lines` scan lines, a clip of each; the last of four objects validates.

    `folder` gets raw files and the crop cache, and must outlive the splits.
    """
    files = [folder / f"B{number:02d}.h5" for number in range(1, OBJECTS + 1)]
    for file in files:
        write_object(
            file,
            file.stem,
            seed=seed,
            layers=LAYERS,
            lines=max(1, lines // (OBJECTS * LAYERS)),
            frame_px=64,
            min_frames=24,
            max_frames=48,
            simulation=simulation,
        )
    split = {"validation": {"objects": [files[-1].stem]}}
    cache = folder / "cache"
    prepare(files, cache, source="simulate", lit_threshold=100, clips_per_line=1, split=split, seed=seed)
    return open_split(cache, "train"), open_split(cache, "validation")
