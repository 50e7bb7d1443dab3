"""How good a network is on a split: predictions and their root mean square errors."""

from typing import Any

import numpy as np
import torch
from torch import nn

from edgeloop.data.cache import Split, batches
from edgeloop.rmse import rmse


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
