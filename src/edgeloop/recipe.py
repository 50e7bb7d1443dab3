"""How a candidate learns: its training genes, and what they mean for optimiser, clips and weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeloop.models.genes import Checked, gene
from edgeloop.models.preprocess import COUNTS


@dataclass(frozen=True)
class Recipe(Checked):
    """The training genes of a genotype.

    schedule: one_cycle rises to `lr` and falls to nothing within the training; step multiplies by `gamma`
    every `step_size` epochs. weight_decay counts for adamw only. augment: quarter turns and mirror images,
    and for networks that see less than the whole clip, another part of it each time. intensity: each clip is made
    brighter or darker by a factor between exp(-intensity) and exp(intensity). ema: what is validated and kept are
    moving averages of the weights; their horizon as a share of the training's steps, 0 for the weights themselves.
    """

    lr: float = gene(minimum=1e-9)
    weight_decay: float = gene(0.05, minimum=0.0, maximum=10.0)
    batch_size: int = gene(32, minimum=2, maximum=65536)
    optimizer: str = gene("adamw", choices=("adamw", "adam"))
    schedule: str = gene("one_cycle", choices=("one_cycle", "step"))
    step_size: int = gene(20, minimum=1)
    gamma: float = gene(0.5, minimum=0.0, maximum=1.0)
    augment: bool = gene(True)
    intensity: float = gene(0.0, minimum=0.0, maximum=1.0)
    ema: float = gene(0.0, minimum=0.0, maximum=1.0)

    @classmethod
    def from_genes(cls, genes: Mapping[str, Any]) -> "Recipe":
        """The recipe of a genotype's `training`; ValueError names the gene that is unknown, missing or wrong."""
        known = [f.name for f in fields(cls)]
        for key in genes:
            if key not in known:
                raise ValueError(f"training has no gene {key!r}: its genes are {', '.join(known)}")
        if "lr" not in genes:
            raise ValueError("training needs the gene 'lr': add it, for example 0.004")
        try:
            return cls(**genes)
        except ValueError as error:
            raise ValueError(f"training: {error}") from error


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Adam or AdamW over all parameters; vectors (biases, norms) do not decay."""
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=recipe.lr, fused=True)
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> tuple[torch.optim.lr_scheduler.LRScheduler, bool]:
    """The schedule of the learning rate, and whether it moves after each step (else after each epoch)."""
    if recipe.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, recipe.step_size, recipe.gamma), False
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.lr, total_steps=steps), True


def turned(clips: np.ndarray, rng: np.random.Generator, *, first: int = 0, batch: int | None = None) -> np.ndarray:
    """Each clip of [B, T, P, P] by one of the eight symmetries of the square, all eight about equally often.

    Neither speed nor power depends on the direction of the scan. As batches are shuffled, an eighth of the
    batch can turn as one piece, which costs little more than a copy. Where `clips` are the rows from `first` on
    of a batch of `batch` clips, they turn as they would among the others.
    """
    result = np.empty_like(clips)
    bounds = np.linspace(0, len(clips) if batch is None else batch, 9).round().astype(int)
    bounds = (bounds - first).clip(0, len(clips))
    for symmetry, low, high in zip(rng.permutation(8), bounds[:-1], bounds[1:], strict=True):
        piece = clips[low:high]
        if symmetry & 1:
            piece = piece[..., ::-1]
        if symmetry & 2:
            piece = piece[..., ::-1, :]
        result[low:high] = piece.swapaxes(-1, -2) if symmetry & 4 else piece
    return result


def brightened(
    clips: Tensor, intensity: float, rng: np.random.Generator, *, first: int = 0, batch: int | None = None
) -> Tensor:
    """Each clip of uint8 [B, T, P, P] times a factor of its own, log-uniform in exp(-intensity) ... exp(intensity).

    Computed where the clips are, rounded, and cut off at the camera's largest count. `first` and `batch` as for
    `turned`.
    """
    factors = np.exp(rng.uniform(-intensity, intensity, len(clips) if batch is None else batch))
    own = torch.from_numpy(factors[first : first + len(clips)].astype(np.float32)).to(clips.device)
    return clips.float().mul_(own.view(-1, 1, 1, 1)).add_(0.5).clamp_(max=COUNTS).to(torch.uint8)


class Average:
    """Exponential moving averages of a network's weights and of its batch normalisation's statistics.

    `model` is a copy of the network that has them. They leave out the swings of the steps while the learning rate is
    high, so that an epoch in the middle of a training says what the network is worth. After step t the newest weights
    count 1 / horizon, or 9 / (10 + t) while that is more: the beginning is forgotten however short the training is
    (the decay min(d, (1 + t) / (10 + t)) of TensorFlow's ExponentialMovingAverage). Averages of the statistics belong
    to averages of the weights closely enough: both have the same horizon, and no pass over the data is needed.

    horizon: in steps.
    """

    def __init__(self, network: nn.Module, horizon: float):
        self.model, self.horizon, self.steps = copy.deepcopy(network), max(1.0, horizon), 0
        pairs = list(zip(self.model.state_dict().values(), network.state_dict().values(), strict=True))
        # Detached tensors of the state dicts share the memory of those that the optimiser changes in place.
        self._means, self._newest = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self) -> None:
        """Take in the network's weights as they are after one more step."""
        self.steps += 1
        share = max(1 / self.horizon, 9 / (10 + self.steps))
        torch._foreach_lerp_(self._means, self._newest, share)
        for mean, newest in self._counts:
            mean.copy_(newest)

    def state_dict(self) -> dict[str, Any]:
        """What the averages after the next steps depend on."""
        return {"model": self.model.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]
