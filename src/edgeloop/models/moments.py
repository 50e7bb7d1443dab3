"""How large, how long and how wide the melt pool is above some levels of brightness, then dense layers.

What speed and power change is the shape of the pool; its direction says nothing of them. A convolutional network has
to learn both. Central second moments have it by definition (Hu, IRE Transactions on Information Theory 8, 1962).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeloop.models.genes import Genes, frames_gene, gene, pixels_gene
from edgeloop.models.layers import ACTIVATIONS, head
from edgeloop.models.preprocess import CLIP_PIXELS, COUNTS, Preprocess

UNIT_PX, UNIT_AREA_PX = 10, 16
"""Lengths and areas are in so many pixels of the camera: those of a melt pool are then about 1, and fp16 holds them."""
ROUND = 1e-3
"""A mask is taken to be at least so much longer than wide, relative to its area: less is rounding, of another kind in
each runtime."""
FLOOR = 1e-3
"""Added to what the logarithm is taken of: less than a single bright pixel has. Near zero, runtimes differ."""
EPSILON = 1e-2
"""Of the normalisation of logarithms: a tenth of a feature is as much as it may take for a standard deviation."""

FORMS = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0, ROUND],
        [0.0, 0.5, 0.5, -0.5, 0.0],
        [0.0, 0.5, -0.5, -0.5, 0.0],
        [0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, -0.5, -0.5, 0.5, 0.0],
        [0.0, -0.5, 0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0, -1.0, 0.0],
    ]
)
"""From the products of `monomials` to (area^2; half of the trace of the covariance; two numbers whose length is half of
the difference of its eigenvalues, and ROUND), all of them times area^2. One small product instead of a dozen of sums,
quotients and differences, each of which takes a runtime as long."""
EIGENVALUES = torch.tensor([[1.0, 0.0, ROUND], [0.0, 1.0, 1.0], [0.0, 1.0, -1.0]])
"""From area^2 and the two to area^2 and the eigenvalues, the smaller one no less than zero for all ROUND."""


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
        self.shape = Shape(genes.frames, genes.thresholds, genes.pixels)
        self.head = NormedHead(self.shape.features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.shape(self.preprocess(clip).flatten(2)))


class Shape(nn.Module):
    """Frames of sqrt(counts) [N, frames, pixels * pixels] to the logarithms of `forms` of masks, [N, `features`]."""

    def __init__(self, frames: int, thresholds: int, pixels: int):
        super().__init__()
        self.frames, self.features = frames, 3 * thresholds
        step = COUNTS**0.5 / (thresholds + 1)
        self.threshold = nn.Parameter(step * torch.arange(1.0, thresholds + 1))
        self.slope = nn.Parameter(torch.full((thresholds,), 2.0))
        # Derived from the genes, so it is no part of the saved weights.
        self.register_buffer("monomials", monomials(pixels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        shift = -self.slope * self.threshold
        if self.training:
            levels = x.mean(1, keepdim=True) * self.slope[:, None] + shift[:, None]
        else:  # the same as a convolution: to runtimes it is a single operator with what comes next, to PyTorch slower
            weight = (self.slope / self.frames)[:, None, None].expand(-1, self.frames, -1)
            levels = functional.conv1d(x, weight, shift)
        # Piecewise linear: zero in the dark, where runtimes differ in how small a sigmoid is, and where it adds up.
        masks = functional.hardsigmoid(levels)
        return (forms(masks @ self.monomials) + FLOOR).log().flatten(1)


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
        scale, shift = self.scale_and_shift()
        return x * scale + shift

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What a feature is multiplied by, and what is added then."""
        scale = self.weight / (self.running_var + self.eps).sqrt()
        return scale, self.bias - self.running_mean * scale


class NormedHead(nn.Module):
    """RunningNorm, then dense layers; once trained, the first of these does both."""

    def __init__(self, features: int, hidden: Sequence[int], activation: str, dropout: float):
        super().__init__()
        self.norm = RunningNorm(features, eps=EPSILON)
        self.head = head(features, hidden, activation, dropout)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = (layer for layer in self.head if not isinstance(layer, nn.Dropout))
        if self.training or not others:
            return self.head(self.norm(x))
        scale, shift = self.norm.scale_and_shift()
        x = functional.linear(x, first.weight * scale, first.bias + first.weight @ shift)
        for layer in others:
            x = layer(x)
        return x


def monomials(side: int) -> Tensor:
    """[side * side, 14]: at each pixel of a square two times seven terms, whose sums over a mask `forms` multiplies.

    Per unit of area: 1; x^2, y^2 and u^2; x, y and u. Then 1, 1, 1, 1; x, y and u. u is along the diagonal.
    """
    pixel = min(1.0, CLIP_PIXELS / side)
    axis = (torch.arange(side) - (side - 1) / 2) * pixel / UNIT_PX
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    along = torch.stack([x, y, (x + y) / 2**0.5], 1)
    one = torch.ones_like(x)[:, None]
    return torch.cat([one, along.square(), along, one.expand(-1, 4), along], 1) * pixel**2 / UNIT_AREA_PX


def forms(sums: Tensor) -> Tensor:
    """Sums of a mask over `monomials` [..., 14] to [..., 3]: its area, variance along and across.

    Each times the area, the variances twice: logarithms of products are sums, which a dense layer takes apart, so that
    there is no need to divide.
    """
    left, right = sums.split(7, -1)
    scalars, apart = ((left * right) @ FORMS.to(sums)).split((2, 3), -1)
    return torch.cat([scalars, torch.linalg.vector_norm(apart, dim=-1, keepdim=True)], -1) @ EIGENVALUES.to(sums)
