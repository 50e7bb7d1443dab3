"""How far the texture glides from frame to frame, and the shape of the pool; then dense layers.

A camera that moves with the laser sees powder and solidified metal pass by at the scan speed. Correlated with itself
some frames later, the picture has a peak at the distance that the texture has come, in whatever direction. A
convolutional network would have to learn such products; here they are given, by way of the frequencies: a correlation
is the product of two Fourier transforms, and that of a small picture two small matrix products.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeloop.models.genes import gene
from edgeloop.models.moments import Moments, NormedHead, NormedLinear, Spread, mixed
from edgeloop.models.preprocess import CLIP_PIXELS, Preprocess, side

NEAREST_PX, FARTHEST_PX = 0.8, 6.0
"""How far the texture may come from one frame to the next: 220 to 1,680 mm/s at 14 um and 20,000 frames a second."""
REACH = 0.47
"""The largest distance as a share of the picture's side: beyond a half, a circular correlation takes it for another."""
LIMIT = 0.25
"""Up to how far from its mean a pixel counts, in sqrt(counts): about as far as the camera's noise moves it in the dark.
So neither what is bright nor a droplet that flies past outweighs the rest: without the limit, two to three times as
many clips have their peak where no texture went. To divide by each pixel's deviation gains 1 % for two operators."""
UNEVEN = 0.2
"""Up to how far from its surroundings the mean of a pixel is taken for that of the texture, in sqrt(counts): what is
further from them is the pool."""
SURROUNDINGS_PX = 3
"""So many of the camera's pixels to each side are a pixel's surroundings."""
SHARPNESS = 0.03
"""What a pair of the camera's pixels that agree, each at LIMIT, adds to the logarithm of the likelihood of a distance.
Fitted to where the texture of `realistic` clips truly went; the same for any number of frames and pixels."""


BACKGROUNDS = ("mean", "local")


@dataclass(frozen=True)
class Motion(Moments):
    """Moments, and the correlation of a clip with itself some frames later.

    lag: how many frames later. lags: the correlations with frames so many times later are added up. frequencies: the
    finest structure that is followed has so many periods in the picture. grid: at so many distances, in as many
    directions each (one more if it is odd), the correlation is looked up. directed: whether the middles of the masks
    say which way the texture is likely to come. background: what of each pixel is not texture, its mean over the clip
    or, in even places, that of its surroundings.
    """

    lag: int = gene(2, minimum=1, maximum=8)
    lags: int = gene(1, minimum=1, maximum=4)
    frequencies: int = gene(10, minimum=2, maximum=20)
    grid: int = gene(16, minimum=4, maximum=64)
    directed: bool = gene(False)
    background: str = gene("mean", choices=BACKGROUNDS)

    def validate(self) -> None:
        super().validate()
        if self.lag * self.lags >= self.frames:
            raise ValueError(
                f"lag is {self.lag} and lags {self.lags}: expected a product below the {self.frames} frames of the clip"
            )
        if self.pixels > CLIP_PIXELS:
            raise ValueError(f"pixels is {self.pixels}: expected at most {CLIP_PIXELS}, enlarging shows no motion")
        left = side(self.pixels, self.stem_stride)
        if 2 * self.frequencies >= left:
            raise ValueError(f"frequencies is {self.frequencies}: expected less than half of the {left} pixels a side")
        latest = self.lag * self.lags
        if reach(left * self.stem_stride, latest) < 2 * NEAREST_PX * latest:
            raise ValueError(
                f"pixels {self.pixels} have no room for a motion of {latest} frames: expected a smaller lag, fewer lags"
            )

    def network(self) -> nn.Module:
        """The module."""
        return MotionNetwork(self)


class MotionNetwork(nn.Module):
    """See Motion."""

    def __init__(self, genes: Motion):
        super().__init__()
        self.preprocess = seen = Preprocess(genes.frames, genes.pixels, genes.stem_stride)
        self.spread = Spread(genes.frames)
        self.shape = genes.shape(seen)
        self.glide = Glide(genes.frames, seen.side, genes.lag, genes.lags, genes.frequencies, genes.grid, seen.pitch)
        self.kept = Kept(genes.frames, seen.side, seen.pitch) if genes.background == "local" else None
        # How much more or less than others a pixel counts that is as bright as the mask says: all alike at first.
        self.seen = nn.Parameter(torch.zeros(1, genes.thresholds))
        # A long and narrow pool has come fast: it says which of several peaks is likely to be the true one. It also
        # points to where it came from, but that is learnt from tens of thousands of clips, and costs with a thousand.
        self.directed = genes.directed
        known, peaks = self.shape.features, genes.grid
        if self.directed:
            known, peaks = known + 2 * genes.thresholds, 2 * self.glide.axes * genes.grid
        self.expected = NormedLinear(known, peaks)
        for parameter in (self.expected.weight, self.expected.bias):
            nn.init.zeros_(parameter)
        # How likely each distance is, and their mean.
        features = self.shape.features + genes.grid + 1
        self.head = NormedHead(features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.preprocess(clip).flatten(2)
        apart = self.spread(x)
        shape = self.shape(x, apart)
        if self.kept is not None:
            apart = apart + self.kept(x)
        known = torch.cat([shape.features, shape.centroids().flatten(1)], 1) if self.directed else shape.features
        likely = self.glide(apart, self.counted(shape.masks), self.expected(known))
        return self.head(torch.cat([shape.features, likely], 1), self.glide.distances)

    def counted(self, masks: Tensor) -> Tensor:
        """How much each pixel counts [N, 1, side * side], of masks the first of which are those of the mean."""
        if self.training:
            return 1 + self.seen @ masks
        more = masks.shape[1] - self.seen.shape[1]
        return mixed(masks, functional.pad(self.seen, (0, more)), torch.ones(1).to(masks))


class Kept(nn.Module):
    """What of the mean of few frames is texture, [N, 1, side * side], of frames [N, frames, side * side].

    The mean over the clip has a share of the texture in it, the larger, the fewer the frames; taken away from each of
    them, it is missed. So how far the mean is from that of its surroundings is given back, up to UNEVEN: of the texture
    that is most of it, of the pool little. Over the square root of the number of frames, as `Spread` has it; none near
    the border, which has no surroundings.
    """

    def __init__(self, frames: int, side: int, pitch: float):
        super().__init__()
        reach = int(SURROUNDINGS_PX / pitch)
        self.side, self.reach, self.limit = side, reach, UNEVEN / frames**0.5
        # The rows above and below, summed, and the pixel itself; then both of these along the row. The pictures stay
        # flat: as a convolution in the plane, onnxruntime would compute sixteen maps of it.
        size = 2 * reach + 1
        rows, along = torch.zeros(2, frames, size), torch.zeros(1, 2, size)
        rows[0], along[0, 0] = 1, -1 / size**2
        rows[1, :, reach] = along[0, 1, reach] = 1
        inner = functional.pad(torch.ones(side - 2 * reach, side - 2 * reach), [reach] * 4)
        for name, table in {"rows": rows / frames**1.5, "along": along, "inner": inner.view(1, 1, -1)}.items():
            self.register_buffer(name, table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows
        if self.training:  # the same, and to PyTorch faster
            x, rows = x.sum(1, keepdim=True), rows[:, :1]
        x = functional.conv1d(x, rows, padding=self.reach * self.side, dilation=self.side)
        uneven = functional.conv1d(x, self.along, padding=self.reach)
        return uneven.clamp(-self.limit, self.limit) * self.inner


class Glide(nn.Module):
    """How likely each of `grid` distances is, [N, grid]. distances: [grid, 1], in the camera's pixels per frame.

    Of how far frames are from their mean, as `Spread` has it; what each pixel counts [N, 1, side * side]; and
    expected logits, of distances [N, grid], or [N, 2 * grid * axes] of either direction, distances, and axes from the
    one to the right clockwise. The correlation of the frames with later ones is the logarithm of a likelihood, to which
    the logits are added. The likeliest direction is taken.
    """

    def __init__(
        self, frames: int, side: int, lag: int, lags: int, frequencies: int, grid: int = 16, pitch: float = 1.0
    ):
        super().__init__()
        self.grid = grid
        self.side, self.limit = side, LIMIT / frames**0.5
        self.lags = [lag * times for times in range(1, lags + 1)]
        self.rows, self.columns = 2 * frequencies + 1, frequencies + 1
        position = 2 * math.pi * torch.arange(side) / side
        rows, columns = torch.arange(-frequencies, frequencies + 1), torch.arange(frequencies + 1)
        by_row, by_column = torch.outer(rows, position), torch.outer(position, columns)
        distances = torch.linspace(NEAREST_PX * lag, reach(side * pitch, self.lags[-1]) / lags, grid)
        # A direction and the one against it differ in the sign of the odd parts: half of the table does for both.
        self.axes = (grid + 1) // 2
        angles = math.pi * torch.arange(self.axes) / self.axes
        down, right = (
            2 * math.pi / (side * pitch) * torch.outer(distances, f(angles)).flatten() for f in (torch.sin, torch.cos)
        )
        phase = rows[:, None, None] * down + columns[:, None] * right
        phase = torch.arange(1, lags + 1)[:, None, None, None] * phase
        # Half of a real picture's spectrum is enough: the other columns are those that are there, conjugated.
        share = SHARPNESS * pitch**2 * frames / LIMIT**2 * (1 + (columns > 0))[:, None]
        cos, sin = by_row.cos(), by_row.sin()
        # As many as if that many black frames followed, so that the last frames are not taken for the first ones' past.
        bins = frames + self.lags[-1]
        tables = {
            "by_column": torch.cat([by_column.cos(), by_column.sin()], 1),
            # Of rows of cosines and sines in turns to real parts, and imaginary ones with their sign turned. Divided,
            # so that fp16 can hold the sums.
            "by_row": torch.cat([torch.stack([cos, -sin], 2), torch.stack([sin, cos], 2)]).flatten(1) / side,
            "in_time": in_time(frames, bins),
            "by_lag": by_lag(self.lags, bins),
            "inverse": torch.stack([share * phase.cos(), share * phase.sin()], 1),
            "distances": distances[:, None] / lag,
        }
        for name, table in tables.items():  # derived from the genes, so no part of the saved weights
            self.register_buffer(name, table.contiguous(), persistent=False)
        self.weight = nn.Parameter(torch.ones(lags, 1, len(rows), len(columns)))

    def forward(self, apart: Tensor, seen: Tensor, expected: Tensor) -> Tensor:
        x = (apart.clamp(-self.limit, self.limit) * seen).unflatten(2, (self.side, self.side))
        waves = (x @ self.by_column).reshape(-1, x.shape[1], 2 * self.side, self.columns)
        waves = (self.by_row @ waves).reshape(-1, 2 * x.shape[1], self.rows * self.columns)
        # What has moved by d has a spectrum that is turned by exp(-i k d). So the product with the conjugate of the
        # later one has the phase k d, and its inverse transform a peak at d. Such products, summed over the frames, are
        # the inverse transform of the power spectrum in time (Wiener and Khinchin).
        power = (self.in_time @ waves).square()
        across = (self.by_lag @ power).reshape(-1, 2, 2 * len(self.lags) * self.rows * self.columns)
        found = across @ (self.inverse * self.weight[..., None]).transpose(0, 1).flatten(0, 3)
        if expected.shape[1] == self.grid:
            return (found.unflatten(2, (self.grid, self.axes)).amax((1, 3)) + expected).softmax(1)
        return (found + expected.unflatten(1, (2, -1))).unflatten(2, (self.grid, self.axes)).amax((1, 3)).softmax(1)


def in_time(frames: int, bins: int) -> Tensor:
    """[2 * bins, 2 * frames]: the Fourier transform of as many complex numbers, whose parts follow each other."""
    turn = 2 * math.pi / bins * torch.outer(torch.arange(bins), torch.arange(frames))
    cos, sin = turn.cos() / bins**0.5, turn.sin() / bins**0.5
    return torch.stack([torch.stack([cos, sin], 2), torch.stack([-sin, cos], 2)], 1).reshape(2 * bins, 2 * frames)


def by_lag(lags: Sequence[int], bins: int) -> Tensor:
    """[4 * lags, 2 * bins]: from the squares of what `in_time` gives, to the products of the conjugates of the frames
    with those so much later, summed: the real parts, the imaginary ones; then the same with the direction turned."""
    turn = 2 * math.pi / bins * torch.outer(torch.tensor(lags), torch.arange(bins))
    cos, sin = turn.cos(), turn.sin()
    return torch.cat([cos, sin, cos, -sin]).repeat_interleave(2, 1)


def reach(side_px: float, lag: int) -> float:
    """The largest distance in pixels that a correlation of frames of `side_px` looks for."""
    return min(FARTHEST_PX * lag, REACH * side_px)
