"""Frames as channels: a plain 2D network in which the first convolution mixes time."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeloop.models.layers import Pool, head
from edgeloop.models.planar import Planar
from edgeloop.models.preprocess import Preprocess


@dataclass(frozen=True)
class Conv2d(Planar):
    """All frames at once into 2D convolutions."""

    def network(self) -> nn.Module:
        """The module."""
        return Conv2dNetwork(self)


class Conv2dNetwork(nn.Module):
    """See Conv2d. It trains fastest on clips that lie in memory as `layout`."""

    layout = torch.channels_last

    def __init__(self, genes: Conv2d):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels)
        self.body = genes.stages(genes.frames)
        self.pool = Pool(genes.pooling, genes.widths[-1], (genes.side(),) * 2)
        self.head = head(self.pool.features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.pool(self.body(self.preprocess(clip))))
