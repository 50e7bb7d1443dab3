"""What fp16 and int8 make of networks: error, latency and size of the same weights in each precision.

A few networks are trained for a short while on simulated data, each is exported in every precision, and all of the
files are measured on this machine in one session. `times faster` is the latency of the network in fp32 over this one's,
both related to the reference that runs beside them. Errors are those of what is deployed, on the whole validation
split.

    python benchmarks/precision.py [--epochs 8] [--networks NAME ...] [--run FOLDER] [--json OUT]

Data are those of config/config.yaml; with `--run FOLDER`, those of a run are taken. On a machine whose runtime does not
compute in fp16, which is any CPU so far, casts are put in between, and it is slower.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from halving import ROOT, prepared
from tabulate import tabulate

import edge
from edgeloop import training
from edgeloop.data.cache import open_split
from edgeloop.export import export_candidate
from edgeloop.precision import PRECISIONS, deployed
from edgeloop.records import write_json

SWIN = {"pixels": 41, "embed": 24, "heads": [3, 6], "depths": [1, 1], "mlp_ratio": 2, "head": [64]}
LARGE_MOTION = {
    "family": "motion",
    "shapes": "mean_and_change",
    "thresholds": 16,
    "frame_thresholds": 2,
    "lags": 2,
    "grid": 24,
    "directed": True,
    "activation": "silu",
    "head": [64, 32],
}
PER_FRAME = {"family": "conv2d_temporal", "widths": [8, 16, 32]}
NETWORKS = {
    "conv2d": {"family": "conv2d", "widths": [16, 32, 64]},
    "conv2d, wider": {"family": "conv2d", "widths": [32, 64, 128], "head": [64]},
    "conv2d, separable": {"family": "conv2d", "widths": [32, 64, 128], "convolution": "separable"},
    "conv2d, silu": {"family": "conv2d", "widths": [16, 32, 64], "activation": "silu"},
    "conv3d": {"family": "conv3d", "widths": [8, 16, 32]},
    "per frame, conv": {**PER_FRAME, "temporal": "conv"},
    "per frame, gru": {**PER_FRAME, "temporal": "gru"},
    "per frame, transformer": {**PER_FRAME, "temporal": "transformer"},
    "moments": {"family": "moments"},
    "motion": {"family": "motion", "shapes": "mean_and_change", "frame_thresholds": 2},
    "motion, large": {**LARGE_MOTION, "frames": 16, "lag": 2},
    "motion, 4 frames": {
        "family": "motion",
        "shapes": "mean_and_change",
        "frame_thresholds": 2,
        "frames": 4,
        "pixels": 29,
        "thresholds": 4,
        "lag": 1,
        "frequencies": 6,
    },
    "motion, 4 frames, large": {**LARGE_MOTION, "frames": 4, "lag": 1},
    "swin3d": {"family": "swin3d", "stochastic_depth": 0.0, "dropout": 0.0, **SWIN},
}
RECIPE = {"lr": 4e-3, "batch_size": 32}
SLOWER_RECIPE = {"lr": 1e-3, "batch_size": 32}  # attention diverges at a convolution's learning rate


def exported(name: str, data: Path, folder: Path, settings: training.Settings) -> list[dict[str, Any]]:
    """Train the network `name` once, and export it in every precision: its figures, and where its files are."""
    architecture = NETWORKS[name]
    recipe = SLOWER_RECIPE if architecture["family"] == "swin3d" else RECIPE
    genotype = {"architecture": architecture, "precision": "fp32", "training": recipe}
    splits, weights = [open_split(data, split) for split in ("train", "validation")], folder / "weights.pt"
    train = training.train(genotype, *splits, settings, weights_path=weights)
    found, parity_clips = [], np.load(data / "parity.npy")
    for precision in PRECISIONS:
        path = folder / f"{len(list(folder.glob('*.onnx')))}.onnx"
        candidate = genotype | {"precision": precision}
        record = export_candidate(candidate, train, weights, path, parity_clips=parity_clips, data=data)
        if record["status"] == "failed":
            raise RuntimeError(f"{name} in {precision}: {record['reason']}")
        found.append(
            {
                "network": name,
                "precision": precision,
                "path": path,
                "val_rmse": deployed(train, record)["val_rmse"],
                "differs_by": record.get("converted_max_abs_difference", record["max_abs_difference"]),
                "bytes": record["bytes"],
                "export_s": record["export_s"],
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--run", type=Path, help="a folder of a run with prepared data")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = training.Settings(epochs=options.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder, config = Path(name), ROOT / "config/config.yaml"
        data = options.run / "results/data" if options.run else prepared(folder, config, os.cpu_count() or 1)
        found = [each for network in options.networks for each in exported(network, data, folder, settings)]
        device = edge.Device("this-machine", work_folder=str(folder / "work"), lock_file=str(folder / "lock"))
        with edge.connect(device) as session:
            enrolment = session.enrol()
            jobs = [edge.Job(each.pop("path")) for each in found]
            measured = session.measure(jobs, edge.Timing(), enrolment=enrolment)
    fp32 = {}
    for each, record in zip(found, measured, strict=True):
        if record["status"] == "failed":
            raise RuntimeError(f"{each['network']} in {each['precision']}: {record['reason']}")
        if each["precision"] == "fp32":
            fp32[each["network"]] = each["val_rmse"], record["ratio"]
        rmse, ratio = fp32[each["network"]]
        each |= {key: record[key] for key in ("latency_ms", "latency_p50_ms", "flags")}
        each |= {"rmse_ratio": each["val_rmse"] / rmse, "times_faster": ratio / record["ratio"]}
    rows = [
        [
            each["network"] if each["precision"] == "fp32" else "",
            each["precision"],
            f"{each['val_rmse']:.4f}",
            f"{100 * (each['rmse_ratio'] - 1):+.1f} %",
            f"{each['differs_by']:.1e}",
            f"{each['latency_p50_ms']:.4f}",
            f"{each['times_faster']:.2f}",
            f"{each['bytes'] / 1e3:.0f}",
        ]
        for each in found
    ]
    heads = ["network", "precision", "val RMSE", "change", "from PyTorch", "p50 ms", "times faster", "kB"]
    print(tabulate(rows, heads, disable_numparse=True, colalign=["left", "left", *["right"] * 6]))
    if options.json:
        write_json(options.json, {"epochs": options.epochs, "networks": found})


if __name__ == "__main__":
    main()
