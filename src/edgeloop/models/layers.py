"""Pieces that the convolutional families share."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeloop.models.preprocess import Conv2d, FirstConv2d, FirstConv3d, Targets

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "hard_swish": nn.Hardswish, "silu": nn.SiLU}
POOLINGS = ("mean", "max", "mean_max", "flatten")
CONVOLUTIONS = ("dense", "separable")

_CONVOLUTIONS = {2: (Conv2d, FirstConv2d, nn.BatchNorm2d), 3: (nn.Conv3d, FirstConv3d, nn.BatchNorm3d)}


def convolution(
    dimensions: int,
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    activation: str | None,
    *,
    groups: int = 1,
    first: bool = False,
) -> nn.Sequential:
    """Convolution, batch normalisation (folded by the export), activation. Odd kernels, padded to keep size."""
    plain, normalising, norm = _CONVOLUTIONS[dimensions]
    padding = tuple(k // 2 for k in kernel)
    layer = normalising if first else plain
    parts = [
        layer(inputs, outputs, tuple(kernel), tuple(stride), padding, groups=groups, bias=False),
        norm(outputs),
    ]
    if activation is not None:
        parts.append(ACTIVATIONS[activation]())
    return nn.Sequential(*parts)


class Residual(nn.Module):
    """activation(x + body(x))."""

    def __init__(self, body: nn.Module, activation: str):
        super().__init__()
        self.body = body
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.body(x))


class TemporalShift(nn.Module):
    """[N * frames, C, H, W] to the same: an eighth of the channels come from the frame before, an eighth from the next.

    Time is mixed without a weight (Lin, Gan and Han, TSM: Temporal Shift Module, 1811.08383).
    """

    def __init__(self, frames: int, channels: int):
        super().__init__()
        self.frames, self.fold = frames, max(1, channels // 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(0, (-1, self.frames))
        before = functional.pad(x[:, :-1, : self.fold], (0, 0, 0, 0, 0, 0, 1, 0))
        after = functional.pad(x[:, 1:, self.fold : 2 * self.fold], (0, 0, 0, 0, 0, 0, 0, 1))
        return torch.cat([before, after, x[:, :, 2 * self.fold :]], 2).flatten(0, 1)


class Pool(nn.Module):
    """[N, C, ...] to [N, `features`]: the mean or the maximum over all positions, both, or everything as it is.

    size: of the map, [rows, columns] or [frames, rows, columns].
    """

    def __init__(self, pooling: str, channels: int, size: Sequence[int]):
        super().__init__()
        self.pooling = pooling
        self.features = channels * {"mean_max": 2, "flatten": prod(size)}.get(pooling, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.pooling == "flatten":
            return x.flatten(1)
        positions = list(range(2, x.dim()))
        if self.pooling == "mean_max":
            return torch.cat([x.mean(positions), x.amax(positions)], 1)
        return x.mean(positions) if self.pooling == "mean" else x.amax(positions)


def head(features: int, hidden: Sequence[int], activation: str, dropout: float) -> nn.Sequential:
    """Dropout, hidden layers with their activation, and the targets."""
    parts: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    for width in hidden:
        parts += [nn.Linear(features, width), ACTIVATIONS[activation]()]
        features = width
    return nn.Sequential(*parts, Targets(features))


def halved(size: int, stride: int) -> int:
    """The size of a map after a padded convolution of this stride."""
    return -(-size // stride)


def per_stage(name: str, values: Sequence[int], stages: int) -> tuple[int, ...]:
    """One value for each stage; a single one counts for all. ValueError on any other number of values."""
    if len(values) == 1:
        return tuple(values) * stages
    if len(values) != stages:
        raise ValueError(f"{name} {list(values)} has {len(values)} values: expected one, or {stages} as widths has")
    return tuple(values)


def odd(name: str, value: int) -> None:
    """ValueError unless the kernel size is odd: an even one cannot keep the size of its map."""
    if value % 2 == 0:
        raise ValueError(f"{name} {value} is even: expected an odd size, as {value - 1} or {value + 1}")
