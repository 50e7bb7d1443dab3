"""Simple predictors of speed and power: what a network has to beat to be worth its latency.

`mean` knows the training targets only. `ridge` is a quadratic ridge regression on intensity features that an
engineer would try first: how bright, how large, how elongated, how unsteady the melt pool is. None of them
depends on the scan direction.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, StandardScaler

from edgeloop.data.cache import Split
from edgeloop.rmse import errors_of_mean, rmse

THRESHOLDS = (12, 25, 50, 100, 150, 200, 250)
PERCENTILES = (50, 75, 90, 95, 98)
GROUND_COUNTS = 8  # pedestal and noise of a dark pixel
ALPHAS = np.logspace(-2, 4, 13)
CHUNK = 64


def _elongation(pictures: np.ndarray) -> np.ndarray:
    """Length over width of what is brighter than the ground in images [n, H, W], by the second moments of
    intensity; [n].
    """
    weights = np.maximum(pictures - GROUND_COUNTS, 0)
    axis = np.arange(weights.shape[1], dtype=np.float64) - (weights.shape[1] - 1) / 2
    by_row, by_column = weights.sum(2, dtype=np.float64), weights.sum(1, dtype=np.float64)
    total = by_row.sum(1) + 1e-6
    row, column = by_row @ axis / total, by_column @ axis / total
    rr = by_row @ axis**2 / total - row**2
    cc = by_column @ axis**2 / total - column**2
    rc = ((weights @ axis) @ axis) / total - row * column
    middle, difference = (rr + cc) / 2, np.sqrt(((rr - cc) / 2) ** 2 + rc**2)
    length, width = (np.sqrt(np.maximum(value, 0)) for value in (middle + difference, middle - difference))
    return (length + 0.5) / (width + 0.5)  # half a pixel keeps a single bright pixel finite


def features(clips: np.ndarray) -> np.ndarray:
    """Intensity, lit area, elongation and unsteadiness of `clips` uint8 [n, T, H, W]; float64 [n, features]."""
    rows = []
    for start in range(0, len(clips), CHUNK):
        block = np.ascontiguousarray(clips[start : start + CHUNK])
        flat = block.reshape(len(block), -1)
        # All intensity features follow from a histogram: one pass over the pixels.
        histogram = np.stack([np.bincount(clip, minlength=256) for clip in flat]) / flat.shape[1]
        levels = np.arange(256)
        mean = histogram @ levels
        deviation = np.sqrt(np.maximum(histogram @ levels**2 - mean**2, 0))
        cumulative = histogram.cumsum(1)
        percentiles = [(cumulative < p / 100).sum(1) for p in PERCENTILES]
        areas = [np.sqrt(np.maximum(1 - cumulative[:, threshold], 0)) for threshold in THRESHOLDS]
        maximum = 255 - (histogram[:, ::-1] > 0).argmax(1)
        saturated = np.sqrt(histogram[:, 255])

        video = block.astype(np.float32)
        brightness = video.mean((2, 3))
        picture = video.mean(1)
        unsteady = brightness.std(1) / (brightness.mean(1) + 1)
        change = np.abs(np.diff(video, axis=1)).mean((1, 2, 3)) if block.shape[1] > 1 else np.zeros(len(block))
        columns = [
            mean,
            deviation,
            maximum,
            saturated,
            unsteady,
            change,
            _elongation(picture),
            *percentiles,
            *areas,
        ]
        rows.append(np.stack(columns, 1))
    return np.concatenate(rows).astype(np.float64)


def _figures(errors: Mapping[str, float]) -> dict[str, float]:
    return {f"val_{name}": errors[name] for name in ("rmse", "rmse_speed_mm_s", "rmse_power_w")}


def _bounded(standardised: np.ndarray) -> np.ndarray:
    """Quadratic terms of a clip unlike all others must not run away with the prediction."""
    return np.clip(standardised, -4, 4)


def evaluate(train: Split, validation: Split) -> dict[str, dict[str, Any]]:
    """Fit the simple predictors on `train` and score them on `validation`.

    Returns ``{"mean": figures, "ridge": figures}``, figures being `val_rmse` (root of the mean over both
    normalised targets), `val_rmse_speed_mm_s` and `val_rmse_power_w`; ridge has its `alpha` too, chosen by
    leave-one-out on the training clips. Raises ValueError for an empty split.
    """
    for name, split in (("training", train), ("validation", validation)):
        if not len(split):
            raise ValueError(f"The {name} split is empty: the simple predictors need clips with labels in it.")
    targets = np.asarray(validation.targets, np.float64)
    ridge = make_pipeline(
        StandardScaler(),
        FunctionTransformer(_bounded),
        PolynomialFeatures(2, include_bias=False),
        StandardScaler(),
        RidgeCV(ALPHAS),
    )
    ridge.fit(features(train.clips), train.targets)
    predicted = ridge.predict(features(validation.clips))
    return {
        "mean": _figures(errors_of_mean(train.targets, targets)),
        "ridge": {**_figures(rmse(predicted, targets)), "alpha": float(ridge[-1].alpha_)},
    }
