"""How far the texture glides from frame to frame, and the shape of the pool; then dense layers.

A camera that moves with the laser sees powder and solidified metal pass by at the scan speed. Correlated with itself
some frames later, the picture has a peak at the distance that the texture has come, in whatever direction. A
convolutional network would have to learn such products; here they are given, by way of the frequencies: a correlation
is the product of two Fourier transforms, and that of a small picture two small matrix products.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgeloop.models.genes import gene
from edgeloop.models.moments import SHAPES, Moments, NormedHead, NormedLinear, Spread
from edgeloop.models.preprocess import CLIP_PIXELS, Preprocess

RADII, ANGLES = 16, 16
NEAREST_PX, FARTHEST_PX = 0.8, 6.0
"""How far the texture may come from one frame to the next: 220 to 1,680 mm/s at 14 um and 20,000 frames a second."""
REACH = 0.47
"""The largest distance as a share of the picture's side: beyond a half, a circular correlation takes it for another."""
LIMIT = 0.25
"""Up to how far from its mean a pixel counts, in sqrt(counts): about as far as the camera's noise moves it in the dark.
So neither what is bright nor a droplet that flies past outweighs the rest: without the limit, two to three times as
many clips have their peak where no texture went. To divide by each pixel's deviation gains 1 % for two operators."""
SHARPNESS = 0.03
"""What a pair of pixels that agree, each at LIMIT, adds to the logarithm of the likelihood of a distance. Fitted to
where the texture of `realistic` clips truly went; the same for any number of frames and pixels."""


@dataclass(frozen=True)
class Motion(Moments):
    """Moments, and the correlation of a clip with itself some frames later.

    lag: how many frames later. frequencies: the finest structure that is followed has so many periods in the picture.
    """

    lag: int = gene(2, minimum=1, maximum=8)
    frequencies: int = gene(10, minimum=2, maximum=20)

    def validate(self) -> None:
        if self.lag >= self.frames:
            raise ValueError(f"lag is {self.lag}: expected less than the {self.frames} frames of the clip")
        if self.pixels > CLIP_PIXELS:
            raise ValueError(f"pixels is {self.pixels}: expected at most {CLIP_PIXELS}, enlarging shows no motion")
        if 2 * self.frequencies >= self.pixels:
            raise ValueError(f"frequencies is {self.frequencies}: expected less than half of the {self.pixels} pixels")
        if reach(self.pixels, self.lag) < 2 * NEAREST_PX * self.lag:
            raise ValueError(
                f"pixels {self.pixels} have no room for a motion of {self.lag} frames: expected a smaller lag"
            )

    def network(self) -> nn.Module:
        """The module."""
        return MotionNetwork(self)


class MotionNetwork(nn.Module):
    """See Motion."""

    def __init__(self, genes: Motion):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels)
        self.spread = Spread(genes.frames)
        self.shape = SHAPES[genes.shapes](genes.frames, genes.thresholds, genes.pixels)
        self.glide = Glide(genes.frames, genes.pixels, genes.lag, genes.frequencies)
        # A long and narrow pool has come fast: it says which of several peaks is likely to be the true one.
        self.expected = NormedLinear(self.shape.features, RADII)
        for parameter in (self.expected.weight, self.expected.bias):
            nn.init.zeros_(parameter)
        features = self.shape.features + self.glide.features
        self.head = NormedHead(features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.preprocess(clip).flatten(2)
        apart, change = self.spread(x)
        shape = self.shape(x, change)
        return self.head(torch.cat([shape, *self.glide(apart, self.expected(shape))], 1))


class Glide(nn.Module):
    """How far frames are from their mean, as `Spread` has it, and expected logits [N, RADII], to [N, RADII] and [N, 1].

    How likely each of some distances is, and their mean, in pixels per frame. The largest correlation over all
    directions of the frames with those `lag` later is the logarithm of a likelihood, to which the logits are added.
    """

    features = RADII + 1

    def __init__(self, frames: int, pixels: int, lag: int, frequencies: int):
        super().__init__()
        self.pixels, self.lag, self.limit = pixels, lag, LIMIT / frames**0.5
        self.rows, self.columns = 2 * frequencies + 1, frequencies + 1
        position = 2 * math.pi * torch.arange(pixels) / pixels
        rows, columns = torch.arange(-frequencies, frequencies + 1), torch.arange(frequencies + 1)
        by_row, by_column = torch.outer(rows, position), torch.outer(position, columns)
        distances = torch.linspace(NEAREST_PX * lag, reach(pixels, lag), RADII)
        angles = 2 * math.pi * torch.arange(ANGLES) / ANGLES
        down, right = (
            2 * math.pi / pixels * torch.outer(distances, f(angles)).flatten() for f in (torch.sin, torch.cos)
        )
        phase = rows[:, None, None] * down + columns[:, None] * right
        # Half of a real picture's spectrum is enough: the other columns are those that are there, conjugated.
        share = SHARPNESS * frames / LIMIT**2 * (1 + (columns > 0))[:, None]
        cos, sin = by_column.cos(), by_column.sin()
        tables = {
            # For each frequency cosines, then sines, so that a reshape puts them beside each other.
            "by_row": torch.stack([by_row.cos(), by_row.sin()], 1).flatten(0, 1),
            # To real parts, and imaginary ones with their sign turned; and to what these are multiplied by for the odd
            # part of a product. Divided, so that fp16 can hold the sums.
            "by_column": torch.cat([torch.cat([cos, sin, sin, -cos], 1), torch.cat([-sin, cos, cos, sin], 1)]) / pixels,
            "inverse": torch.stack([share * phase.cos(), share * phase.sin()], 1).flatten(0, 2),
            "distances": distances[:, None] / lag,
        }
        for name, table in tables.items():  # derived from the genes, so no part of the saved weights
            self.register_buffer(name, table.contiguous(), persistent=False)
        self.weight = nn.Parameter(torch.ones(len(rows), 1, len(columns)))

    def forward(self, apart: Tensor, expected: Tensor) -> tuple[Tensor, Tensor]:
        x = apart.clamp(-self.limit, self.limit).unflatten(2, (self.pixels, self.pixels))
        waves = (self.by_row @ x).unflatten(2, (self.rows, 2)).flatten(3) @ self.by_column
        waves = waves.unflatten(3, (2, 2, self.columns))
        # What has moved by d has a spectrum that is turned by exp(-i k d). So the product with the conjugate of the
        # later one has the phase k d, and its inverse transform a peak at d.
        across = (waves[:, : -self.lag, :, :1] * waves[:, self.lag :]).sum((1, 4)).flatten(1)
        inverse = self.inverse * self.weight.expand(-1, 2, -1).flatten()[:, None]
        found = (across @ inverse).unflatten(1, (RADII, ANGLES)).amax(2)
        likely = (found + expected).softmax(1)
        return likely, likely @ self.distances


def reach(side_px: int, lag: int) -> float:
    """The largest distance in pixels that a correlation of frames of `side_px` looks for."""
    return min(FARTHEST_PX * lag, REACH * side_px)
