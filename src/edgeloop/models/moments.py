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
MOST_CHANGE = 4.0
"""Up to how much thresholds of change are laid, in sqrt(counts)."""
SPARKS = 6.0
"""Up to where thresholds of single frames are laid, in sqrt(counts). At 2 to 3 are droplets, and where the glow of the
pool ends: how much that differs from frame to frame tells more of the power than all that is brighter."""
FLOOR = 1e-3
"""Added to what the logarithm is taken of: less than a single bright pixel has. Near zero, runtimes differ."""
STEADY = 3e-2
"""Added to how much a logarithm differs from frame to frame, before its own logarithm. Of masks that cover the whole
picture, that is rounding alone: with 1e-3 runtimes came to outputs that differed by 1e-4, for the same errors."""
FEW_FRAMES = 8
"""Masks of so many frames and of their mean come from one convolution, though most of its weights are zero; those of
more frames from two."""
NEAR = 2e-2
"""Added to offsets, in UNIT_PX, before the logarithm: a fifth of a pixel, about as sure as a soft mask's middle is."""
EPSILON = 1e-2
"""Of the normalisation of logarithms: a tenth of a feature is as much as it may take for a standard deviation."""

FORMS = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, ROUND],
        [0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.5, -0.5, 0.0],
        [0.0, 0.0, 0.0, 0.5, 0.0, 0.0, -0.5, -0.5, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, -0.5, 0.0, 0.0, -0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0, -0.5, 0.0, 0.0, 0.5, 0.5, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0],
    ]
)
"""From the products of `monomials` to three vectors, whose lengths are area^2, half of the trace of the covariance and
half of the difference of its eigenvalues (two numbers, and ROUND), all of them times area^2. One small product instead
of a dozen of sums, quotients and differences, each of which takes a runtime as long."""
EIGENVALUES = torch.tensor([[1.0, 0.0, ROUND], [0.0, 1.0, 1.0], [0.0, 1.0, -1.0]])
"""From these lengths to area^2 and the eigenvalues, the smaller one no less than zero for all ROUND."""


class Masks(nn.Module):
    """Soft masks of pictures whose pixels are up to `brightest`, by their levels."""

    def __init__(self, thresholds: int, brightest: float = COUNTS**0.5):
        super().__init__()
        step = brightest / (thresholds + 1)
        self.threshold = nn.Parameter(step * torch.arange(1.0, thresholds + 1))
        self.slope = nn.Parameter(torch.full((thresholds,), 2.0 * COUNTS**0.5 / brightest))

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [..., 1, pixels * pixels] to slope * (x - threshold), [..., thresholds, pixels * pixels]."""
        return x * self.slope[:, None] + self.black()[:, None]

    def black(self) -> Tensor:
        """[thresholds]: the level of a black pixel."""
        return -self.slope * self.threshold


@dataclass(frozen=True)
class Outline:
    """What `Shape` sees. features: [N, features] for a head. masks: those of the mean frame, and maybe others after
    them, [N, thresholds or more, pixels * pixels]. sums: those of the mean frame over `monomials`, [N, thresholds, 14].
    """

    features: Tensor
    masks: Tensor
    sums: Tensor

    def centroids(self) -> Tensor:
        """[N, thresholds, 2]: where the middles of the masks are, in UNIT_PX to the right and down."""
        return centroids(self.sums)


class Shape(nn.Module):
    """The logarithms of the `forms` of masks: of the mean frame; with `change`, of how much each pixel changes, too;
    with `frame_thresholds`, of the frames one by one, as means over the frames and logarithms of how much they differ
    from each to the next; with `offsets`, of how far the middle of each mask of the mean is from the next one's.

    Plume and flicker remember: over 16 frames they go through few of their ups and downs, so that the deviation from
    the mean is a poor measure of how strong they are. Their steps are 15 draws. The faster the heat is left behind, the
    further back are the middles of darker levels; length and width of each level hardly tell.

    side, pitch: of the pictures, as `Preprocess` has them.
    """

    def __init__(
        self,
        frames: int,
        side: int,
        thresholds: int,
        change: bool,
        frame_thresholds: int,
        offsets: bool = False,
        pitch: float = 1.0,
    ):
        super().__init__()
        self.frames = frames
        self.of_change = Masks(thresholds, MOST_CHANGE) if change else None
        self.of_mean = Masks(thresholds)
        self.of_frames = Masks(frame_thresholds, SPARKS) if frame_thresholds else None
        # Masks of the mean, of the frames, of the change.
        self.counts = [thresholds, frames * frame_thresholds, *([thresholds] if change else [])]
        self.features = 3 * (thresholds * (1 + change) + 2 * frame_thresholds) + (thresholds - 1) * offsets
        # Derived from the genes, so they are no part of the saved weights.
        self.register_buffer("monomials", monomials(side, pitch), persistent=False)
        self.register_buffer("steps", steps(frames), persistent=False)
        self.register_buffer("neighbours", differences(thresholds) if offsets else None, persistent=False)

    def forward(self, x: Tensor, apart: Tensor) -> Outline:
        """Of frames of sqrt(counts), and of how far they are from their mean as `Spread` has it, both [N, frames,
        pixels * pixels]."""
        # Piecewise linear: zero in the dark, where runtimes differ in how small a sigmoid is, and where it adds up.
        masks = [functional.hardsigmoid(levels) for levels in self.levels(x, apart)]
        sums = [each @ self.monomials for each in masks]
        logs = forms(torch.cat(sums, 1), FLOOR).log().reshape(-1, 3 * sum(self.counts))
        of_mean, features = sums[0][:, : len(self.of_mean.slope)], self.steady(logs)
        if self.neighbours is not None:
            offsets = torch.linalg.vector_norm(self.neighbours @ centroids(of_mean), dim=2)
            features.append((offsets + NEAR).log())
        return Outline(torch.cat(features, 1), masks[0], of_mean)

    def levels(self, x: Tensor, apart: Tensor) -> list[Tensor]:
        """[N, masks, pixels * pixels] each: of the mean, of the frames, of the change. Those of the first frame by each
        frame threshold come first. Once trained, those of the mean and of few frames are one."""
        if self.training:
            levels = [self.of_mean(x.mean(1, keepdim=True))]
            if self.of_frames is not None:
                levels.append(self.of_frames(x[:, :, None]).flatten(1, 2))
            if self.of_change is not None:
                levels.append(self.of_change(apart.square().sum(1, keepdim=True).sqrt()))
            return levels
        slope, black = self.of_mean.slope[:, None].expand(-1, self.frames) / self.frames, self.of_mean.black()
        if self.of_frames is None:
            levels = [mixed(x, slope, black)]
        else:
            slopes, blacks = (of_one.repeat(self.frames) for of_one in (self.of_frames.slope, self.of_frames.black()))
            if self.frames <= FEW_FRAMES:
                own = torch.eye(self.frames).to(x).repeat_interleave(len(self.of_frames.slope), 0)
                levels = [mixed(x, torch.cat([slope, own * slopes[:, None]]), torch.cat([black, blacks]))]
            else:
                levels = [mixed(x, slope, black), mixed(x, slopes[:, None], blacks, groups=self.frames)]
        if self.of_change is not None:
            # As a norm it is a single operator, which takes onnxruntime longer than these three.
            change = mixed(apart.square(), torch.ones(1, self.frames).to(x)).sqrt()
            levels.append(mixed(change, self.of_change.slope[:, None], self.of_change.black()))
        return levels

    def steady(self, logs: Tensor) -> list[Tensor]:
        """Of [N, 3 * masks] parts of the features: what the frames have one by one comes down to mean and steps."""
        if self.of_frames is None:
            return [logs]
        still, moving, *change = logs.split([3 * count for count in self.counts], 1)
        moving = moving.unflatten(1, (self.frames, -1))
        unsteady = (torch.linalg.vector_norm(self.steps @ moving, dim=1) + STEADY).log()
        return [still, *change, moving.mean(1), unsteady]


class Spread(nn.Module):
    """Frames [N, frames, pixels * pixels] to how far they are from their mean, over the square root of their number."""

    def __init__(self, frames: int):
        super().__init__()
        self.register_buffer("centring", centring(frames), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.centring @ x if self.training else mixed(x, self.centring)


def mixed(x: Tensor, weight: Tensor, bias: Tensor | None = None, groups: int = 1) -> Tensor:
    """weight [outputs, inputs] @ x [N, inputs, pixels] + bias [outputs], as a convolution: to runtimes this is a single
    operator, together with the clamp that may follow. To PyTorch it is slower than a product, so not for training."""
    return functional.conv1d(x, weight[..., None], bias, groups=groups)


def centring(frames: int) -> Tensor:
    """[frames, frames], which takes the mean away, and divides by the square root of the number."""
    return (torch.eye(frames) - 1 / frames) / frames**0.5


def steps(frames: int) -> Tensor:
    """[frames - 1, frames], which takes the difference of each frame and the one before. Scaled: the root of the sum of
    the squares is the standard deviation of frames that have nothing to do with each other."""
    later = differences(frames)
    return later / (2 * later.shape[0]) ** 0.5


def differences(count: int) -> Tensor:
    """[count - 1, count], which takes the difference of each and the one before."""
    return torch.eye(count)[1:] - torch.eye(count)[:-1]


SHAPES = ("mean", "mean_and_change")


@dataclass(frozen=True)
class Moments(Genes):
    """Soft masks of a picture, each above a learned threshold, and their moments.

    thresholds: how many masks. shapes: of which pictures, the mean frame alone, or how much each pixel changes, too.
    frame_thresholds: how many masks of each frame. offsets: whether how far the middle of each mask of the mean is from
    the next one's counts, too. stem_stride: with 2, of every second pixel, blurred. head: widths of hidden layers
    before the targets.
    """

    thresholds: int = gene(8, minimum=1, maximum=256)
    shapes: str = gene("mean", choices=SHAPES)
    frame_thresholds: int = gene(0, minimum=0, maximum=64)
    offsets: bool = gene(False)
    activation: str = gene("relu", choices=tuple(ACTIVATIONS))
    head: tuple[int, ...] = gene((32,), minimum=1, maximum=4096)
    dropout: float = gene(0.0, minimum=0.0, maximum=0.9)
    frames: int = frames_gene()
    pixels: int = pixels_gene()
    stem_stride: int = gene(1, minimum=1, maximum=2)

    def validate(self) -> None:
        if self.stem_stride > 1 and self.pixels > CLIP_PIXELS:
            raise ValueError(
                f"stem_stride is {self.stem_stride} and pixels {self.pixels}: expected at most {CLIP_PIXELS} pixels, "
                "which is what the camera's crop has; a picture is not enlarged to be halved"
            )
        if self.offsets and self.thresholds < 2:
            raise ValueError(
                "offsets is true and thresholds 1: expected at least two masks, whose middles are compared"
            )

    def shape(self, seen: Preprocess) -> Shape:
        """The part of the module that measures masks of what is `seen`."""
        change, one_by_one = self.shapes == "mean_and_change", self.frame_thresholds
        return Shape(self.frames, seen.side, self.thresholds, change, one_by_one, self.offsets, seen.pitch)

    def network(self) -> nn.Module:
        """The module."""
        return MomentsNetwork(self)


class MomentsNetwork(nn.Module):
    """See Moments."""

    def __init__(self, genes: Moments):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels, genes.stem_stride)
        self.spread = Spread(genes.frames)
        self.shape = genes.shape(self.preprocess)
        self.head = NormedHead(self.shape.features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.preprocess(clip).flatten(2)
        return self.head(self.shape(x, self.spread(x)).features)


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

    def forward(self, x: Tensor, sums: Tensor | None = None) -> Tensor:
        """sums [k, more]: the head sees the last k columns of x multiplied by it, too, as further features."""
        first, *others = (layer for layer in self.head if not isinstance(layer, nn.Dropout))
        if self.training or not others:
            return self.head(self.norm(x if sums is None else torch.cat([x, x[:, -len(sums) :] @ sums], 1)))
        x = folded(self.norm, first, x, sums)
        for layer in others:
            x = layer(x)
        return x


class NormedLinear(nn.Linear):
    """RunningNorm, then a dense layer; once trained, a dense layer."""

    def __init__(self, features: int, outputs: int):
        super().__init__(features, outputs)
        self.norm = RunningNorm(features, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x)) if self.training else folded(self.norm, self, x)


def folded(norm: RunningNorm, layer: nn.Linear, x: Tensor, sums: Tensor | None = None) -> Tensor:
    """What `layer` makes of what the trained `norm` makes of x, as one dense layer; `sums` as in NormedHead."""
    scale, shift = norm.scale_and_shift()
    weight, bias = layer.weight * scale, layer.bias + layer.weight @ shift
    if sums is not None:
        inputs = weight.shape[1] - sums.shape[1]
        weight = weight[:, :inputs] + functional.pad(weight[:, inputs:] @ sums.T, (inputs - len(sums), 0))
    return functional.linear(x, weight, bias)


def centroids(sums: Tensor) -> Tensor:
    """Sums of masks over `monomials` [..., 14] to the masks' middles [..., 2], in UNIT_PX to the right and down."""
    return sums[..., 4:6] / (sums[..., :1] + FLOOR)


def monomials(side: int, pitch: float = 1.0) -> Tensor:
    """[side * side, 14]: at each pixel of a square two times seven terms, whose sums over a mask `forms` multiplies.
    pitch: how many of the camera's pixels one of these is wide.

    Per unit of area: 1; x^2, y^2 and u^2; x, y and u. Then 1, 1, 1, 1; x, y and u. u is along the diagonal.
    """
    axis = (torch.arange(side) - (side - 1) / 2) * pitch / UNIT_PX
    y, x = (grid.flatten() for grid in torch.meshgrid(axis, axis, indexing="ij"))
    along = torch.stack([x, y, (x + y) / 2**0.5], 1)
    one = torch.ones_like(x)[:, None]
    return torch.cat([one, along.square(), along, one.expand(-1, 4), along], 1) * pitch**2 / UNIT_AREA_PX


def forms(sums: Tensor, floor: float = 0.0) -> Tensor:
    """Sums of masks over `monomials` [..., 14] to [masks, 3]: area, variance along and across of each, and `floor`.

    Each times the area, the variances twice: logarithms of products are sums, which a dense layer takes apart, so that
    there is no need to divide.
    """
    # To take squares, and products as their differences, would be an operator less, and five times the rounding error.
    left, right = sums.split(7, -1)
    lengths = torch.linalg.vector_norm(((left * right) @ FORMS.to(sums)).reshape(-1, 3, 3), dim=2)
    return torch.addmm(torch.full((3,), floor).to(sums), lengths, EIGENVALUES.to(sums))
