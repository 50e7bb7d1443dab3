"""Root mean square errors, of networks, simple predictors and devices alike. Needs no PyTorch."""

import math

import numpy as np

from edgeloop.data.cache import TARGET_SCALE


def rmse(predictions: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Errors of `predictions` [n, 2] against `targets` [n, 2], both [speed/900, power/215].

    `rmse` is over both targets at once, sqrt(mean(error**2)); `rmse_speed` and `rmse_power` are each
    target's; `rmse_speed_mm_s` and `rmse_power_w` the same in physical units.
    """
    error = predictions.astype(np.float64) - targets.astype(np.float64)
    speed, power = np.sqrt(np.mean(error**2, axis=0)).tolist()
    return {
        "rmse": math.sqrt(float(np.mean(error**2))),
        "rmse_speed": speed,
        "rmse_power": power,
        "rmse_speed_mm_s": speed * TARGET_SCALE[0],
        "rmse_power_w": power * TARGET_SCALE[1],
    }


def errors_of_mean(train_targets: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """`rmse` of predicting the mean of `train_targets` [n, 2] for all `targets` [m, 2]."""
    mean = np.asarray(train_targets).mean(0, dtype=np.float64)
    return rmse(np.broadcast_to(mean, np.shape(targets)), np.asarray(targets))
