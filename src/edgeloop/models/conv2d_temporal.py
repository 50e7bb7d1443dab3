"""Frame by frame through one 2D network, then through time: a mean, a convolution, a GRU or a transformer."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeloop.models.genes import gene
from edgeloop.models.layers import ACTIVATIONS, CONVOLUTIONS, POOLINGS, Pool, head
from edgeloop.models.planar import Planar
from edgeloop.models.preprocess import Preprocess


@dataclass(frozen=True)
class Conv2dTemporal(Planar):
    """Per-frame features and a temporal head.

    convolution: also temporal_shift, dense ones before each of which channels are exchanged between frames.
    temporal: what looks along time. temporal_width: its channels (conv), state (gru) or hidden layer
    (transformer). layers: how many of it. heads: of the transformer; they divide the features of a frame.
    """

    convolution: str = gene("dense", choices=(*CONVOLUTIONS, "temporal_shift"))
    # A whole map of each frame would give a GRU or a transformer hundreds of millions of weights.
    pooling: str = gene("mean", choices=tuple(pooling for pooling in POOLINGS if pooling != "flatten"))
    temporal: str = gene("conv", choices=("mean", "conv", "gru", "transformer"))
    temporal_width: int = gene(32, minimum=1, maximum=1024)
    layers: int = gene(1, minimum=1, maximum=8)
    heads: int = gene(4, minimum=1, maximum=32)

    def validate(self) -> None:
        super().validate()
        if self.convolution == "temporal_shift" and min(self.widths) < 2:
            raise ValueError(
                f"widths {list(self.widths)} has a stage of one channel: expected at least 2, one to come from the "
                "frame before and one from the next (convolution is temporal_shift)"
            )
        if self.temporal == "transformer" and self.widths[-1] % self.heads:
            raise ValueError(
                f"heads {self.heads} does not divide the last width {self.widths[-1]}: "
                "expected a divisor of it (temporal is transformer)"
            )

    def network(self) -> nn.Module:
        """The module."""
        return Conv2dTemporalNetwork(self)


class Conv2dTemporalNetwork(nn.Module):
    """See Conv2dTemporal."""

    def __init__(self, genes: Conv2dTemporal):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels)
        self.body = genes.stages(1)
        self.pool = Pool(genes.pooling, genes.widths[-1], (genes.side(),) * 2)
        temporal = {
            "mean": TemporalMean,
            "conv": TemporalConvolution,
            "gru": TemporalGru,
            "transformer": TemporalTransformer,
        }
        self.temporal = temporal[genes.temporal](genes, self.pool.features)
        self.head = head(self.temporal.features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        frames, pixels = self.preprocess.frames, self.preprocess.pixels
        x = self.preprocess(clip).reshape(-1, 1, pixels, pixels)
        x = self.pool(self.body(x))
        return self.head(self.temporal(x.reshape(-1, frames, x.shape[-1])))


class TemporalMean(nn.Module):
    """[N, T, C] to [N, C]: the mean over time."""

    def __init__(self, genes: Conv2dTemporal, channels: int):
        super().__init__()
        self.features = channels

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class TemporalConvolution(nn.Module):
    """[N, T, C] to [N, features]: convolutions over three frames, then the mean over time."""

    def __init__(self, genes: Conv2dTemporal, channels: int):
        super().__init__()
        self.features, parts = genes.temporal_width, []
        for _ in range(genes.layers):
            parts.append(nn.Conv1d(channels, self.features, 3, padding=1, bias=False))
            parts += [nn.BatchNorm1d(self.features), ACTIVATIONS[genes.activation]()]
            channels = self.features
        self.body = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.transpose(1, 2)).mean(2)


class TemporalGru(nn.Module):
    """[N, T, C] to [N, features]: the state after the last frame."""

    def __init__(self, genes: Conv2dTemporal, channels: int):
        super().__init__()
        self.features = genes.temporal_width
        self.body = nn.GRU(channels, self.features, genes.layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.transpose(0, 1))[1][-1]


class TemporalTransformer(nn.Module):
    """[N, T, C] to [N, features]: pre-norm encoder layers over learned positions, then the mean over time."""

    def __init__(self, genes: Conv2dTemporal, channels: int):
        super().__init__()
        self.features = channels
        self.positions = nn.Parameter(torch.randn(genes.frames, self.features) * 0.02)
        self.layers = nn.ModuleList(
            EncoderLayer(self.features, genes.heads, genes.temporal_width, genes.activation)
            for _ in range(genes.layers)
        )
        self.norm = nn.LayerNorm(self.features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x).mean(1)


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); [N, T, C] to the same."""

    def __init__(self, width: int, heads: int, hidden: int, activation: str):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), ACTIVATIONS[activation](), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        frames, width = x.shape[1:]
        qkv = self.query_key_value(self.norm1(x)).reshape(-1, frames, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = ((query * self.scale) @ key.transpose(-2, -1)).softmax(-1)
        x = x + self.projection((weights @ value).transpose(1, 2).reshape(-1, frames, width))
        return x + self.mlp(self.norm2(x))
