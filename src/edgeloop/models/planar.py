"""What the families that convolve in the image plane share: genes and stages."""

from dataclasses import dataclass

from torch import nn

from edgeloop.models.genes import Genes, frames_gene, gene, pixels_gene
from edgeloop.models.layers import (
    ACTIVATIONS,
    CONVOLUTIONS,
    POOLINGS,
    Residual,
    TemporalShift,
    convolution,
    halved,
    odd,
    per_stage,
)


@dataclass(frozen=True)
class Planar(Genes):
    """Stages of 2D convolutions, each stage at half the resolution of the one before it.

    widths: channels of each stage. depths: convolutions of each stage (one number counts for all); those
    after the first are residual. convolution: dense, or depthwise and pointwise, but for the first one.
    pooling: how the last map becomes features. head: widths of hidden layers before the targets.
    """

    widths: tuple[int, ...] = gene(minimum=1, maximum=2048)
    depths: tuple[int, ...] = gene((1,), minimum=1, maximum=16)
    kernel: int = gene(3, minimum=1, maximum=11)
    stem_stride: int = gene(2, minimum=1, maximum=4)
    convolution: str = gene("dense", choices=CONVOLUTIONS)
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
        odd("kernel", self.kernel)

    def side(self) -> int:
        """Side in pixels of the last stage's map."""
        size = halved(self.pixels, self.stem_stride)
        for _ in self.widths[1:]:
            size = halved(size, 2)
        return size

    def stages(self, channels: int) -> nn.Sequential:
        """The convolutions: [N, channels, pixels, pixels] to [N, widths[-1], side, side]."""
        parts: list[nn.Module] = []
        depths = per_stage("depths", self.depths, len(self.widths))
        for stage, (width, depth) in enumerate(zip(self.widths, depths, strict=True)):
            if stage == 0:
                kernel, stride = (self.kernel,) * 2, (self.stem_stride,) * 2
                parts.append(convolution(2, channels, width, kernel, stride, self.activation, first=True))
            else:
                parts.append(self._block(channels, width, 2, self.activation))
            for _ in range(depth - 1):
                parts.append(Residual(self._block(width, width, 1, None), self.activation))
            channels = width
        return nn.Sequential(*parts)

    def _block(self, inputs: int, outputs: int, stride: int, activation: str | None) -> nn.Module:
        kernel, strides = (self.kernel,) * 2, (stride,) * 2
        if self.convolution == "separable":
            return nn.Sequential(
                convolution(2, inputs, inputs, kernel, strides, self.activation, groups=inputs),
                convolution(2, inputs, outputs, (1, 1), (1, 1), activation),
            )
        dense = convolution(2, inputs, outputs, kernel, strides, activation)
        if self.convolution == "temporal_shift":
            return nn.Sequential(TemporalShift(self.frames, inputs), dense)
        return dense
