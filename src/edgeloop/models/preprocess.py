"""What every network does first and last, inside its graph: raw counts in, physical targets out.

Between a camera's uint8 counts and the first convolution stand a cast, a square root (melt-pool radiance
spans decades: without it training stalls) and a normalisation. On a small network these cost as much as a
convolution, so the normalisation is folded into the weights of the first layer, and the scaling of the
targets into those of the last: the device runs a cast and a square root, and nothing else.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

CLIP_FRAMES = 16
CLIP_PIXELS = 41
RESIZE_LIMIT = 256
COUNTS = 255.0
"""The largest count of the camera."""
MEAN, STD = 0.25, 0.20
"""Of sqrt(count / 255) over clips of a melt pool, rounded. Fixed, so that a network needs no data to be built."""

SCALE = 1 / (math.sqrt(COUNTS) * STD)
SHIFT = MEAN / STD
BLUR = [0.25, 0.5, 0.25]
"""Along rows and columns, before every second pixel is taken: the binomial filter of Zhang, "Making convolutional
networks shift-invariant again" (ICML 2019)."""
MANY_FRAMES = 8
"""From so many frames on, onnxruntime blurs frame by frame faster than as one convolution whose weights are mostly
zero."""


class Preprocess(nn.Module):
    """Counts to square roots of counts, on the wanted square of pixels.

    uint8 [N, frames, 41, 41] to float32 [N, frames, side, side] in 0 ... sqrt(255). A centre crop where
    `pixels` < 41, a bilinear resize (half-pixel centres) where it is more. With `stride` 2 the counts are blurred, and
    every second pixel is left; such a picture cannot be enlarged. The layer after it normalises.

    side: of the picture in its pixels. pitch: how many of the camera's pixels one of them is wide.
    """

    def __init__(self, frames: int, pixels: int, stride: int = 1):
        super().__init__()
        self.frames, self.pixels, self.stride = frames, pixels, stride
        self.side, self.pitch = side(pixels, stride), stride * min(1.0, CLIP_PIXELS / pixels)
        self.register_buffer("blur", _blur(frames) if stride > 1 else None, persistent=False)

    def forward(self, clip: Tensor) -> Tensor:
        if tuple(clip.shape[1:]) != (self.frames, CLIP_PIXELS, CLIP_PIXELS) or clip.dtype != torch.uint8:
            raise ValueError(
                f"the clip is {clip.dtype} {list(clip.shape)}: this network expects "
                f"uint8 [N, {self.frames}, {CLIP_PIXELS}, {CLIP_PIXELS}]; cut the centre window of frames first"
            )
        if self.pixels < CLIP_PIXELS:
            start = (CLIP_PIXELS - self.pixels) // 2
            clip = clip[:, :, start : start + self.pixels, start : start + self.pixels]
        x = clip.to(torch.float32)
        if self.blur is not None:
            x = self.halved(x)
        # In place: a fresh map of floats costs more in training than its square roots do.
        x = x.sqrt_()
        if self.pixels > CLIP_PIXELS:
            size = [self.pixels, self.pixels]
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
        return x

    def halved(self, x: Tensor) -> Tensor:
        """Every second pixel, blurred: of pictures of P x P, (P - 1) // 2 squared."""
        if self.training:  # the same, and to PyTorch many times faster than a convolution of so few channels
            return functional.avg_pool2d(functional.avg_pool2d(x, 2, 1), 2)
        return functional.conv2d(x, self.blur, stride=self.stride, groups=self.frames // self.blur.shape[1])


def side(pixels: int, stride: int) -> int:
    """The side of the picture that `Preprocess` gives."""
    return pixels if stride == 1 else (pixels - len(BLUR)) // stride + 1


def _blur(frames: int) -> Tensor:
    """Weights of a convolution that blurs each frame by itself: [frames, frames or 1, 3, 3]."""
    row = torch.tensor(BLUR)
    blur = torch.outer(row, row).expand(frames, 1, -1, -1)
    return blur.contiguous() if frames >= MANY_FRAMES else blur * torch.eye(frames)[:, :, None, None]


def _folded(convolution: nn.Conv2d | nn.Conv3d) -> tuple[Tensor, Tensor]:
    """Weight and bias that give of sqrt(counts) what the layer's own give of normalised intensities."""
    weight = convolution.weight
    shift = -SHIFT * weight.flatten(1).sum(1)
    return weight * SCALE, shift if convolution.bias is None else convolution.bias + shift


class Conv2d(nn.Conv2d):
    """nn.Conv2d, which trains with a kernel of one pixel and a stride, too.

    There oneDNN's gradient of the weights writes past the end of its workspace where a channels-last input has
    fewer channels than a vector register holds (github.com/uxlfoundation/oneDNN/issues/6035; torch 2.13 dies of
    it). A stride in front of such a convolution is the same arithmetic; what is exported stays one operator.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """[N, in_channels, H, W] to [N, out_channels, rows, columns] by this layer's geometry and other weights."""
        stride = self.stride
        if self.training and self.kernel_size == (1, 1) and self.padding == (0, 0):
            x, stride = x[..., :: stride[0], :: stride[1]], (1, 1)
        return functional.conv2d(x, weight, bias, stride, self.padding, self.dilation, self.groups)


class FirstConv2d(Conv2d):
    """A Conv2d on (sqrt(count / 255) - MEAN) / STD, given sqrt(count). Its padding is dark, not average."""

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, *_folded(self))


class FirstConv3d(nn.Conv3d):
    """A Conv3d on (sqrt(count / 255) - MEAN) / STD, given sqrt(count). Its padding is dark, not average."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = _folded(self)
        return functional.conv3d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Targets(nn.Linear):
    """The last layer: standardised targets, brought to [speed/900, power/215] by its own weights.

    `target_mean` and `target_std`, each float32 [2], are those of the training split; they are saved with
    the weights. float32 [N, features] to float32 [N, 2].
    """

    def __init__(self, features: int):
        super().__init__(features, 2)
        self.register_buffer("target_mean", torch.ones(2))
        self.register_buffer("target_std", torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.target_std[:, None]
        return functional.linear(x, weight, self.bias * self.target_std + self.target_mean)


def standardise_targets(model: nn.Module, mean: Tensor, std: Tensor) -> None:
    """Give every `Targets` layer of `model` the mean and standard deviation of the training targets."""
    layers = [module for module in model.modules() if isinstance(module, Targets)]
    if not layers:
        raise ValueError("the network has no Targets layer: its last layer must be preprocess.Targets")
    for layer in layers:
        layer.target_mean.copy_(mean)
        layer.target_std.copy_(std)
