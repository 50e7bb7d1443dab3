"""What each family of networks comes to on simulated data, with which latency.

One network of each is trained on each preset of the simulator, tested on an object that nothing else has seen, and all
of them are measured on this machine in one session, with one thread. `benchmarks/irreducible_error.py` tells what the
best of all predictors would err by.

    python benchmarks/families.py [--presets realistic,clear] [--epochs 8] [--layers 20] [--networks NAME ...]
        [--lr 0.004] [--batch-size 32] [--untrained] [--folder DIR] [--json OUT]

With --folder the data stay there: some 90 MB for each layer and preset. How near large networks come to the best
possible error when they see much:

    python benchmarks/families.py --layers 140 --epochs 5 --lr 0.01 --batch-size 64
        --networks "motion, 4 frames" "motion, 4 frames, largest"
    python benchmarks/families.py --layers 140 --epochs 12 --lr 0.01 --batch-size 64
        --networks "motion, 4 frames, wider" "motion, 4 frames, halved" "motion, 16 frames, halved" "motion, largest"
    python benchmarks/families.py --presets realistic --layers 140 --epochs 30 --lr 0.01 --batch-size 64
        --networks "motion, 4 frames, halved"

With --untrained nothing is simulated nor trained: the latencies alone, of networks with seeded weights.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from halving import ROOT, prepared
from precision import LARGE_MOTION, RECIPE
from precision import NETWORKS as ALSO_IN_INT8
from tabulate import tabulate

import edge
from edgeloop import training
from edgeloop.data.cache import Split, open_split
from edgeloop.evaluation import predict
from edgeloop.export import export, export_untrained
from edgeloop.models import registry
from edgeloop.records import write_json
from edgeloop.rmse import rmse

OBJECTS, LINES = 5, 160
LARGEST_MOTION = {**LARGE_MOTION, "frame_thresholds": 6, "grid": 32}
HALVED_MOTION = {
    "family": "motion",
    "stem_stride": 2,
    "thresholds": 16,
    "shapes": "mean_and_change",
    "frame_thresholds": 4,
    "lag": 1,
    "frequencies": 9,
    "offsets": True,
    "head": [64],
}
NETWORKS = {
    **ALSO_IN_INT8,
    # With three lags of a frame the fastest lines are within reach, with two of two frames they are not.
    "motion, largest": {
        **LARGEST_MOTION,
        "frames": 16,
        "lag": 1,
        "lags": 3,
        "frequencies": 12,
        "grid": 48,
        "offsets": True,
    },
    "motion, 4 frames, largest": {**LARGEST_MOTION, "frames": 4, "lag": 1},
    # Nearly as good: all of the crop and two lags are worth it, neither a direction nor many distances are.
    "motion, 4 frames, wider": {
        **ALSO_IN_INT8["motion"],
        "frames": 4,
        "lag": 1,
        "lags": 2,
        "frequencies": 8,
        "offsets": True,
    },
    # Of every second pixel: what that saves goes into more masks.
    "motion, 4 frames, halved": {**HALVED_MOTION, "frames": 4, "lags": 2, "background": "local"},
    "motion, 16 frames, halved": {**HALVED_MOTION, "frames": 16, "lags": 3},
}
COMPARED = (
    "conv2d",
    "conv2d, wider",
    "conv3d",
    "per frame, conv",
    "moments",
    "motion, 4 frames",
    "motion, 4 frames, large",
    "motion",
    "motion, large",
)


def data(preset: str, layers: int, folder: Path) -> Path:
    """The crop cache: four objects to train and validate on, one to test on."""
    simulated = {"preset": preset, "seed": 1, "objects": OBJECTS, "layers": layers, "lines": LINES}
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    config["dataset"] = {
        "source": "simulate",
        "simulate": {**simulated, "frame_px": 64, "min_frames": 20, "max_frames": 36},
        "split": {"validation": {"share": 0.1, "by": "layer"}, "test": {"objects": [f"S{OBJECTS:03d}"]}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return prepared(folder, folder / "config.yaml", os.cpu_count() or 1)


def trained(
    name: str, recipe: dict[str, Any], splits: list[Split], settings: training.Settings, path: Path
) -> dict[str, Any]:
    """Train the network `name`, export it to `path`, and test it."""
    architecture = NETWORKS[name]
    train, validation, test = splits
    weights = path.with_suffix(".pt")
    genotype = {"architecture": architecture, "precision": "fp32", "training": recipe}
    record = training.train(genotype, train, validation, settings, weights_path=weights)
    if record["status"] != "ok":
        raise RuntimeError(f"{name}: {record['reason']}")
    network, frames = training.load(architecture, weights), registry.input_frames(architecture)
    exported = export(network, path, frames=frames, clips=np.array(test.clips[:20]))
    if exported["status"] != "ok":
        raise RuntimeError(f"{name}: {exported['reason']}")
    return {
        "network": name,
        "frames": frames,
        "parameters": record["parameters"],
        "training_s": record["training_s"],
        **rmse(predict(network, test, frames=frames), np.asarray(test.targets)),
    }


def untrained(name: str, path: Path) -> dict[str, Any]:
    """Export the network `name` with seeded weights to `path`: what takes no data to tell."""
    architecture = NETWORKS[name]
    exported = export_untrained(architecture, path)
    if exported["status"] != "ok":
        raise RuntimeError(f"{name}: {exported['reason']}")
    return {
        "network": name,
        "frames": registry.input_frames(architecture),
        "parameters": registry.size(architecture)["parameters"],
    }


def measure(rows: list[dict[str, Any]], work: Path) -> None:
    """Add to each row the latency on this machine of the network in work/NUMBER.onnx, all in one session."""
    jobs = [edge.Job(work / f"{number}.onnx") for number in range(len(rows))]
    device = edge.Device("this-machine", work_folder=str(work / "work"), lock_file=str(work / "lock"))
    with edge.connect(device) as session:
        enrolment = session.enrol()
        measured = session.measure(jobs, edge.Timing(), enrolment=enrolment)
    for row, record in zip(rows, measured, strict=True):
        if record["status"] == "failed":
            raise RuntimeError(f"{row['network']}: {record['reason']}")
        row |= {key: record[key] for key in ("latency_ms", "latency_p50_ms", "latency_p99_ms", "flags")}


def print_table(columns: dict[str, tuple[str, str]], rows: list[dict[str, Any]]) -> None:
    """columns: by their heads, which figure of a row, and how it is written."""
    table = [[format(row[key], form) for key, form in columns.values()] for row in rows]
    sides = ["left" if key in ("preset", "network") else "right" for key, _ in columns.values()]
    print(tabulate(table, list(columns), disable_numparse=True, colalign=sides))


NETWORK = {"network": ("network", ""), "frames": ("frames", ""), "parameters": ("parameters", ",")}
ERRORS = {"RMSE": ("rmse", ".3f"), "speed": ("rmse_speed", ".3f"), "power": ("rmse_power", ".3f")}
LATENCY = {"p50 ms": ("latency_p50_ms", ".3f"), "p99 ms": ("latency_p99_ms", ".3f")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="realistic,clear")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--layers", type=int, default=20, help=f"of each object; a layer has {LINES} lines")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=COMPARED, metavar="NAME")
    parser.add_argument("--lr", type=float, default=RECIPE["lr"])
    parser.add_argument("--batch-size", type=int, default=RECIPE["batch_size"])
    parser.add_argument("--untrained", action="store_true", help="the latencies alone")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path, metavar="OUT")
    options = parser.parse_args()
    recipe = {"lr": options.lr, "batch_size": options.batch_size}
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        if options.untrained:
            rows = [untrained(name, work / f"{number}.onnx") for number, name in enumerate(options.networks)]
        else:
            rows, settings = [], training.Settings(epochs=options.epochs)
            for preset in options.presets.split(","):
                cache = data(preset, options.layers, (options.folder or work).resolve() / preset)
                splits = [open_split(cache, split) for split in ("train", "validation", "test")]
                clips = {"preset": preset, "train_clips": len(splits[0].clips), "test_clips": len(splits[2].clips)}
                for name in options.networks:
                    rows.append(clips | trained(name, recipe, splits, settings, work / f"{len(rows)}.onnx"))
        measure(rows, work)
    if options.untrained:
        print_table(NETWORK | LATENCY, rows)
    else:
        print(f"{options.epochs} epochs; RMSE on the test object, in units of 900 mm/s and 215 W")
        data_and_network = {"preset": ("preset", ""), "clips": ("train_clips", ",")} | NETWORK
        print_table(data_and_network | ERRORS | LATENCY | {"trained in s": ("training_s", ".0f")}, rows)
    if options.json:
        how = {} if options.untrained else {"epochs": options.epochs, "training": recipe}
        write_json(options.json, {**how, "networks": rows})


if __name__ == "__main__":
    main()
