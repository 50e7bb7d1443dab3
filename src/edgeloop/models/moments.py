"""How large, how long and how wide the melt pool is above some levels of brightness, then dense layers.

What speed and power change is the shape of the pool; its direction says nothing of them. A convolutional network has
to learn both. Central second moments have it by definition (Hu, IRE Transactions on Information Theory 8, 1962).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeloop.models.genes import Genes, frames_gene, gene, pixels_gene
from edgeloop.models.layers import ACTIVATIONS, head
from edgeloop.models.preprocess import CLIP_PIXELS, COUNTS, Preprocess

UNIT_PX = 10
"""Lengths are in so many pixels of the camera: moments of a melt pool are then about 1."""
SMALLEST = 1e-6
"""Added to what is divided by: far less than what a single bright pixel has."""
FLOOR = 1e-4
"""Added to what the logarithm is taken of: less than a single bright pixel has. Near zero, runtimes differ."""
EPSILON = 1e-2
"""Of the normalisation of logarithms: a tenth of a feature is as much as it may take for a standard deviation."""

HALF_AND_APART = torch.tensor([[0.5, 0.5, -0.5], [0.5, -0.5, -0.5], [0.0, 0.0, 1.0]])
"""From the variances along x, y and their diagonal to (the half of the trace of the covariance, the two numbers whose
length is half of the difference of its eigenvalues). One small product instead of eight sums, each of which takes a
runtime as long."""
BOTH = torch.tensor([1.0, -1.0])


@dataclass(frozen=True)
class Moments(Genes):
    """Soft masks of the mean frame, each above a learned threshold, and their moments.

    thresholds: how many masks. head: widths of hidden layers before the targets.
    """

    thresholds: int = gene(8, minimum=1, maximum=256)
    activation: str = gene("relu", choices=tuple(ACTIVATIONS))
    head: tuple[int, ...] = gene((32,), minimum=1, maximum=4096)
    dropout: float = gene(0.0, minimum=0.0, maximum=0.9)
    frames: int = frames_gene()
    pixels: int = pixels_gene()

    def network(self) -> nn.Module:
        """The module."""
        return MomentsNetwork(self)


class MomentsNetwork(nn.Module):
    """See Moments."""

    def __init__(self, genes: Moments):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels)
        self.shape = Shape(genes.thresholds, genes.pixels)
        self.norm = RunningNorm(self.shape.features, eps=EPSILON)
        self.head = head(self.shape.features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        mean = self.preprocess(clip).flatten(2).mean(1, keepdim=True)
        return self.head(self.norm(self.shape(mean)))


class Shape(nn.Module):
    """A mean frame of sqrt(counts) [N, 1, pixels * pixels] to the logarithms of its masks' moments, [N, `features`]."""

    def __init__(self, thresholds: int, pixels: int):
        super().__init__()
        self.features = 3 * thresholds
        step = COUNTS**0.5 / (thresholds + 1)
        self.threshold = nn.Parameter(step * torch.arange(1.0, thresholds + 1))
        self.slope = nn.Parameter(torch.full((thresholds,), 2.0))
        # Derived from the genes, so it is no part of the saved weights.
        self.register_buffer("monomials", monomials(pixels), persistent=False)

    def forward(self, mean: Tensor) -> Tensor:
        # Piecewise linear: zero in the dark, where runtimes differ in how small a sigmoid is, and where it adds up.
        masks = functional.hardsigmoid(mean * self.slope[:, None] - (self.slope * self.threshold)[:, None])
        return (area_and_axes(masks @ self.monomials) + FLOOR).log().flatten(1)


class RunningNorm(nn.BatchNorm1d):
    """Batch normalisation by the running statistics, in training too.

    The features are few and alike: the noise of a batch's own statistics would cost more than it regularises. A feature
    that hardly varies, such as the area above a level that all pixels reach, is not blown up: all that it would bring
    is rounding, and of another kind in each runtime.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                super().forward(x)
        scale = self.weight / (self.running_var + self.eps).sqrt()
        return x * scale + (self.bias - self.running_mean * scale)


def monomials(side: int) -> Tensor:
    """[side * side, 7]: at each pixel of a square, as shares of its area, 1; x, y and u; x^2, y^2 and u^2.

    u is along the diagonal.
    """
    axis = (torch.arange(side) - (side - 1) / 2) * min(1.0, CLIP_PIXELS / side) / UNIT_PX
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    along = torch.stack([x, y, (x + y) / 2**0.5], 1)
    return torch.cat([torch.ones_like(x)[:, None], along, along.square()], 1) / side**2


def area_and_axes(sums: Tensor) -> Tensor:
    """Sums of a mask over `monomials` [..., 7] to [..., 3]: its area, and its variance along and across its length.

    The two variances are the eigenvalues of the covariance, which three variances determine.
    """
    area = sums[..., :1]
    means = sums[..., 1:] / (area + SMALLEST)
    variances = means[..., 3:] - means[..., :3].square()
    half, apart = (variances @ HALF_AND_APART.to(sums)).split((1, 2), -1)
    apart = torch.linalg.vector_norm(apart, dim=-1, keepdim=True)
    return torch.cat([area, (half + apart * BOTH.to(sums)).relu()], -1)
