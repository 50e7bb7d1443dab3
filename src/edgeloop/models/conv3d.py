"""3D convolutions over time and the image plane."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgeloop.models.genes import Genes, frames_gene, gene, pixels_gene
from edgeloop.models.layers import (
    ACTIVATIONS,
    CONVOLUTIONS,
    POOLINGS,
    Pool,
    Residual,
    convolution,
    halved,
    head,
    odd,
    per_stage,
)
from edgeloop.models.preprocess import Preprocess


@dataclass(frozen=True)
class Conv3d(Genes):
    """Stages of 3D convolutions, each at half the resolution in the image plane of the one before it.

    widths: channels of each stage. depths: convolutions of each stage, those after the first residual.
    convolution: dense, or depthwise and pointwise, but for the first one. kernel, kernel_time: sizes in the
    plane and in time. temporal_strides: by how much each stage shortens
    time. (For depths and temporal_strides one number counts for all.) downsample: by the stride of the
    stage's first convolution, or by a maximum after it. pooling: how the last map becomes features.
    """

    widths: tuple[int, ...] = gene(minimum=1, maximum=1024)
    depths: tuple[int, ...] = gene((1,), minimum=1, maximum=16)
    convolution: str = gene("dense", choices=CONVOLUTIONS)
    kernel: int = gene(3, minimum=1, maximum=11)
    kernel_time: int = gene(3, minimum=1, maximum=11)
    stem_stride: int = gene(2, minimum=1, maximum=4)
    temporal_strides: tuple[int, ...] = gene((2,), minimum=1, maximum=4)
    downsample: str = gene("stride", choices=("stride", "max_pool"))
    activation: str = gene("relu", choices=tuple(ACTIVATIONS))
    pooling: str = gene("mean", choices=POOLINGS)
    head: tuple[int, ...] = gene((), minimum=1, maximum=4096)
    dropout: float = gene(0.0, minimum=0.0, maximum=0.9)
    frames: int = frames_gene()
    pixels: int = pixels_gene()

    def validate(self) -> None:
        if not self.widths:
            raise ValueError("widths is empty: expected the width of at least one stage")
        per_stage("depths", self.depths, len(self.widths))
        per_stage("temporal_strides", self.temporal_strides, len(self.widths))
        odd("kernel", self.kernel)
        odd("kernel_time", self.kernel_time)

    def strides(self) -> list[tuple[int, int, int]]:
        """[frames, rows, columns] of each stage."""
        times = per_stage("temporal_strides", self.temporal_strides, len(self.widths))
        planes = (self.stem_stride,) + (2,) * (len(self.widths) - 1)
        return [(t, s, s) for t, s in zip(times, planes, strict=True)]

    def size(self) -> tuple[int, int, int]:
        """[frames, rows, columns] of the last stage's map."""
        time, side = self.frames, self.pixels
        for by_time, by_side, _ in self.strides():
            time, side = halved(time, by_time), halved(side, by_side)
        return time, side, side

    def network(self) -> nn.Module:
        """The module."""
        return Conv3dNetwork(self)


class Conv3dNetwork(nn.Module):
    """See Conv3d."""

    def __init__(self, genes: Conv3d):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels)
        self.body = nn.Sequential(*stages(genes))
        self.pool = Pool(genes.pooling, genes.widths[-1], genes.size())
        self.head = head(self.pool.features, genes.head, genes.activation, genes.dropout)

    def forward(self, clip: Tensor) -> Tensor:
        return self.head(self.pool(self.body(self.preprocess(clip)[:, None])))


def stages(genes: Conv3d) -> list[nn.Module]:
    """The convolutions, [N, 1, frames, pixels, pixels] in."""
    parts: list[nn.Module] = []
    depths = per_stage("depths", genes.depths, len(genes.widths))
    channels = 1
    for stage, (width, depth, stride) in enumerate(zip(genes.widths, depths, genes.strides(), strict=True)):
        pooled = genes.downsample == "max_pool"
        step = (1, 1, 1) if pooled else stride
        parts.append(block(genes, channels, width, step, genes.activation, first=stage == 0))
        if pooled and max(stride) > 1:
            # Sizes and padding that give the same map as the strided convolution does.
            size, padding = tuple(s // 2 * 2 + 1 for s in stride), tuple(s // 2 for s in stride)
            parts.append(nn.MaxPool3d(size, stride, padding))
        for _ in range(depth - 1):
            parts.append(Residual(block(genes, width, width, (1, 1, 1), None), genes.activation))
        channels = width
    return parts


def block(
    genes: Conv3d, inputs: int, outputs: int, stride: Sequence[int], activation: str | None, *, first: bool = False
) -> nn.Sequential:
    """One convolution as `genes.convolution` says. The first one is dense: a clip has one channel."""
    kernel = (genes.kernel_time, genes.kernel, genes.kernel)
    if first or genes.convolution == "dense":
        return convolution(3, inputs, outputs, kernel, stride, activation, first=first)
    return nn.Sequential(
        convolution(3, inputs, inputs, kernel, stride, genes.activation, groups=inputs),
        convolution(3, inputs, outputs, (1, 1, 1), (1, 1, 1), activation),
    )
