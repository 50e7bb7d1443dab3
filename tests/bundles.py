"""A bundle as a run makes it, without a run: a small network with random weights, and records made up around it."""

import numpy as np

from edgeloop import bundle, bundle_card
from edgeloop.data.cache import Split
from edgeloop.export import export
from edgeloop.models import registry

CANDIDATE = "0123456789ab"
GENOTYPE = {
    "architecture": {"family": "conv2d", "frames": 8, "pixels": 25, "widths": [4]},
    "precision": "fp32",
    "training": {"lr": 0.01},
}
FINGERPRINT = {"board": "a board", "cpu_model": "a processor", "cores": 4, "arch": "aarch64", "onnxruntime": "1.23.0"}
CACHE = {
    "source": "simulate",
    "frames": 16,
    "pixels": 41,
    "lit_threshold": 100,
    "fingerprint": "f" * 64,
    "splits": {
        "train": {"objects": ["S001", "S002"], "clips": 57},
        "validation": {"objects": ["S001"], "clips": 30},
        "test": {"objects": ["S003"], "clips": 46},
    },
}


def training(val_rmse, test_rmse, latency_ms=0.1, status="ok", **further):
    """All records of one training of a finalist."""
    if status == "failed":
        failed = {"status": "failed", "reason": "training diverged"}
        return {"train": failed, "export": failed, "test": failed, "measured": {"bench": failed}}
    figures = {"rmse_speed_mm_s": 900, "rmse_power_w": 215}
    return {
        "train": {
            "status": "ok",
            "parameters": 306,
            "macs": 48_680,
            "epochs": 3,
            "best_epoch": 2,
            "training_clips": 57,
            "seed": 1,
            "device": "cpu: a processor",
            "versions": {"torch": "2"},
            "val_rmse": val_rmse,
            **{f"val_{name}": val_rmse * unit for name, unit in figures.items()},
        },
        "export": {"status": "ok", "outputs": [[1.0, 1.0]]},
        "test": {
            "status": "ok",
            "clips": 46,
            "test_rmse": test_rmse,
            **{f"test_{name}": test_rmse and test_rmse * unit for name, unit in figures.items()},
        },
        "measured": {"bench": measured(1, latency_ms) | further},
    }


def measured(batch_size, latency_ms):
    return {
        "status": "ok",
        "batch_size": batch_size,
        "latency_ms": latency_ms,
        "latency_p50_ms": latency_ms,
        "latency_p99_ms": 2 * latency_ms,
        "peak_memory_mb": 1.0,
        "provider": "CPUExecutionProvider",
        "threads": 1,
        "measured_at": "2026-11-21T11:22:33Z",
        "parity_max_abs_difference": 1e-7,
    }


def clips(count=6, frames=16):
    return np.random.default_rng(1).integers(0, 256, (count, frames, 41, 41), dtype=np.uint8)


def make_bundle(folder, *, outputs_off_by=0.0, precision="fp32"):
    """The path of a bundle, and the network's outputs for `clips()`, [n, 2] in mm/s and W."""
    model, validation = registry.build(GENOTYPE["architecture"]), Split(clips(), np.ones((6, 2), np.float32))
    record = export(
        model, folder / "model.onnx", frames=8, clips=clips(), precision=precision, calibration=clips(frames=8),
        validation=validation,
    )  # fmt: skip
    seeds = {1: training(0.2, 0.3), 2: training(0.1, 0.4)}
    seeds[2]["export"] = record
    genotype, enrolments = GENOTYPE | {"precision": precision}, {"bench": {"fingerprint": FINGERPRINT}}
    card = bundle_card.build(CANDIDATE, genotype, seeds, chosen=2, enrolments=enrolments, cache=CACHE)
    outputs = np.asarray(record["outputs"])
    bundle.write(
        folder / "bundle.zip",
        card,
        model=(folder / "model.onnx").read_bytes(),
        clips=clips(),
        outputs=outputs + outputs_off_by,
        tolerance=0.001,
    )
    return folder / "bundle.zip", outputs * [900, 215]
