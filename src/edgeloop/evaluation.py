"""How good a network is on a split: predictions and their root mean square errors."""

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeloop.data.cache import TARGET_SCALE, Split, batches


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


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, frames: int, batch_size: int = 256) -> np.ndarray:
    """The network's outputs for every clip of `split`, in order: float32 [n, 2]. In evaluation mode, fp32."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    outputs = [
        model(torch.from_numpy(clips).to(device)).float().cpu().numpy()
        for clips, _ in batches(split, batch_size, rng=None, frames=frames)
    ]
    model.train(training)
    return np.concatenate(outputs)


def evaluate(model: nn.Module, split: Split, *, frames: int, batch_size: int = 256) -> dict[str, Any]:
    """`rmse` of the network on `split`."""
    return rmse(predict(model, split, frames=frames, batch_size=batch_size), np.asarray(split.targets))
