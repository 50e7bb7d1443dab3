"""How good a network is on a split: predictions and their root mean square errors."""

from typing import Any

import numpy as np
import torch
from torch import nn

from edgeloop.compute import ALONE, Alone
from edgeloop.data.cache import Split, batches
from edgeloop.rmse import rmse


@torch.no_grad()
def predict(model: nn.Module, split: Split, *, frames: int, batch_size: int = 256) -> np.ndarray:
    """The network's outputs for every clip of `split`, in order: float32 [n, 2]. In evaluation mode, fp32."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    outputs = [
        model(torch.from_numpy(clips).to(device)).float().cpu().numpy()
        for clips, _ in batches(split, batch_size, rng=None, frames=frames, reuse=True)
    ]
    model.train(training)
    return np.concatenate(outputs) if outputs else np.empty((0, 2), np.float32)


def evaluate(
    model: nn.Module, split: Split, *, frames: int, batch_size: int = 256, team: Alone = ALONE
) -> dict[str, Any]:
    """`rmse` of the network on `split`. Each process of `team` predicts its part, and all know the errors."""
    rows = team.part(len(split))
    own = predict(model, Split(split.clips[rows], split.targets[rows]), frames=frames, batch_size=batch_size)
    return rmse(team.gather(own, len(split)), np.asarray(split.targets))
