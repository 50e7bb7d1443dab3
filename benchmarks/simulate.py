"""How fast the simulator writes raw files: million pixels a second on one core, the writing of the file
included.

Usage: python benchmarks/simulate.py [--preset clear] [--seconds 4] [--json OUT]
"""

import argparse
import tempfile
import time
from pathlib import Path

from edgeloop import records
from edgeloop.data.simulate import PRESETS, write_object


def measure(preset: str, frame_px: int, seconds: float, folder: Path) -> dict:
    """Write objects of about one second each until `seconds` have passed; the first one (tables, imports) is
    not counted.
    """
    lines = max(8, 4_000_000 * 10 // (frame_px**2 * 24))
    pixels = wall_s = cpu_s = 0.0
    count = -1
    while count < 1 or wall_s < seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        record = write_object(
            folder / "object.h5",
            f"B{count + 1:02d}",
            seed=1,
            layers=1,
            lines=lines if count >= 0 else 4,
            frame_px=frame_px,
            min_frames=16,
            max_frames=32,
            simulation=PRESETS[preset],
        )
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        count += 1
        if count:
            pixels, wall_s, cpu_s = pixels + record["pixels"], wall_s + wall, cpu_s + cpu
    return {
        "preset": preset,
        "frame_px": frame_px,
        "megapixels": pixels / 1e6,
        "megapixels_per_s": pixels / 1e6 / wall_s,
        "megapixels_per_cpu_s": pixels / 1e6 / cpu_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=sorted(PRESETS), default="clear")
    parser.add_argument("--seconds", type=float, default=4.0, help="of work per frame size (default 4)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(arguments.preset, size, arguments.seconds, Path(folder)) for size in (64, 128)]
    print(f"{'preset':<10} {'frame':>9} {'Mpixel/s (wall)':>16} {'Mpixel/s (CPU)':>16}")
    for row in rows:
        frame = f"{row['frame_px']}x{row['frame_px']}"
        print(f"{row['preset']:<10} {frame:>9} {row['megapixels_per_s']:>16.1f} {row['megapixels_per_cpu_s']:>16.1f}")
    if arguments.json:
        records.write_json(arguments.json, {"schema_version": 1, "simulate": rows})


if __name__ == "__main__":
    main()
