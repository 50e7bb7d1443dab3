"""The final test: errors on the test clips, and a table of what was predicted for each of them."""

import csv
from pathlib import Path

import numpy as np

from edgeloop.data.cache import TARGET_SCALE
from edgeloop.records import atomic
from edgeloop.rmse import rmse

TEST = ("test_rmse", "test_rmse_speed", "test_rmse_power", "test_rmse_speed_mm_s", "test_rmse_power_w")
PREDICTION_COLUMNS = (
    "object",
    "layer",
    "line",
    "clip",
    "speed_mm_s",
    "power_w",
    "predicted_speed_mm_s",
    "predicted_power_w",
)


def judge(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float | None]:
    """The errors on the test clips, of `predictions` and `targets` [n, 2] (see `edgeloop.rmse`); None without clips."""
    if not len(targets):
        return dict.fromkeys(TEST)
    return {f"test_{name}": value for name, value in rmse(predictions, targets).items()}


def write_predictions(path: str | Path, index: str | Path, targets: np.ndarray, predictions: np.ndarray) -> None:
    """A CSV with a row for each clip: where it comes from (`index` of the crop cache), true and predicted targets.

    targets, predictions: [n, 2] of [speed/900, power/215]; the file has mm/s and W.
    """
    with open(index, newline="") as file, atomic(path) as temporary, temporary.open("w", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(PREDICTION_COLUMNS)
        physical = np.hstack([targets, predictions]).astype(float) * [*TARGET_SCALE, *TARGET_SCALE]
        for entry, figures in zip(csv.DictReader(file), physical, strict=True):
            rows.writerow([*(entry[key] for key in PREDICTION_COLUMNS[:4]), *(f"{value:.3f}" for value in figures)])
