"""Whether a small network learns more from the outputs of a large one than from labels.

A teacher, the larger and slower network, is trained; then students of each share, whose loss is
(1 - share) · MSE to the labels + share · MSE to the teacher's outputs on the same clips. The gradient of that sum is
that of the MSE to the blend (1 - share) · label + share · output, so a student is an ordinary training on blended
targets (Hinton et al. 2015, 1503.02531, section 2, for regression).

    python benchmarks/distillation.py [--preset realistic] [--lines 4000] [--epochs 20] [--seeds 3] [--json OUT]
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from simulated_clips import simulated
from tabulate import tabulate

from edgeloop import training
from edgeloop.data.cache import Split
from edgeloop.data.simulate import PRESETS
from edgeloop.evaluation import predict
from edgeloop.records import write_json

TEACHER = {"family": "conv3d", "widths": [16, 32, 64], "stem_stride": 3}
STUDENTS = {
    "conv2d": {"family": "conv2d", "widths": [16, 32, 64]},
    "small conv2d": {"family": "conv2d", "widths": [8, 16], "frames": 8},
}
RECIPE = {"lr": 4e-3, "weight_decay": 0.02, "batch_size": 32}
SHARES = (0.0, 0.5, 1.0)


def genotype(architecture: dict[str, Any]) -> dict[str, Any]:
    return {"architecture": architecture, "precision": "fp32", "training": RECIPE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="realistic")
    parser.add_argument("--lines", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = [
        training.Settings(epochs=options.epochs, seed=seed, device="cpu") for seed in range(1, options.seeds + 1)
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train, validation = simulated(folder, PRESETS[options.preset], options.lines)
        teacher = training.train(genotype(TEACHER), train, validation, settings[0], weights_path=folder / "teacher.pt")
        outputs = predict(training.load(TEACHER, folder / "teacher.pt"), train, frames=16)
        found: dict[str, dict[str, list[float]]] = {}
        for name_of_student, architecture in STUDENTS.items():
            for share in SHARES:
                blend = Split(train.clips, ((1 - share) * train.targets + share * outputs).astype(np.float32))
                records = [training.train(genotype(architecture), blend, validation, each) for each in settings]
                found.setdefault(name_of_student, {})[str(share)] = [record["val_rmse"] for record in records]
        clips = len(train)
    fitted = float(np.sqrt(np.mean((outputs - train.targets) ** 2)))
    print(
        f"{clips} clips of preset {options.preset}, {options.epochs} epochs, {options.seeds} seeds\n"
        f"teacher: validation RMSE {teacher['val_rmse']:.4f}, on the training clips {fitted:.4f}\n"
    )
    table = [
        [student, share, statistics.fmean(values), statistics.stdev(values) / len(values) ** 0.5]
        for student, shares in found.items()
        for share, values in shares.items()
    ]
    print(tabulate(table, ["student", "share of the teacher", "validation RMSE", "standard error"], floatfmt=".4f"))
    if options.json:
        figures = {"preset": options.preset, "clips": clips, "epochs": options.epochs}
        write_json(options.json, {**figures, "teacher_val_rmse": teacher["val_rmse"], "student_val_rmse": found})


if __name__ == "__main__":
    main()
