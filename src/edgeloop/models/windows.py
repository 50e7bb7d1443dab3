"""Attention within shifted windows of a video's feature map (Liu et al., Video Swin Transformer, 2106.13230).

Maps are channels last, [N, T, H, W, C]. A window never exceeds the map; a map that it does not divide is
padded at the far ends, and padding is attended to by padding alone, so that what a token sees does not
depend on how the map was padded.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

MASKED = -1e4
"""Added to the logits of pairs in different regions: exp() of it is 0, and half precision can hold it."""

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Windows:
    """How a map of `size` is cut into windows of `window`, after a cyclic shift by `shift` (each T, H, W)."""

    size: Size
    window: Size
    shift: Size

    @classmethod
    def of(cls, size: Size, window: Size, shifted: bool) -> "Windows":
        """Windows shrunk to the map; shifted by half of them, but not where one window spans the map."""
        shrunk = tuple(min(s, w) for s, w in zip(size, window, strict=True))
        half = tuple(w // 2 if shifted and s > w else 0 for s, w in zip(size, shrunk, strict=True))
        return cls(size, shrunk, half)

    @cached_property
    def padded(self) -> Size:
        """The map's size as a multiple of the window."""
        return tuple(-(-s // w) * w for s, w in zip(self.size, self.window, strict=True))

    @property
    def tokens(self) -> int:
        """Tokens of one window."""
        return prod(self.window)

    @property
    def masked(self) -> bool:
        """Whether a window can hold tokens of more than one region."""
        return any(self.shift) or self.padded != self.size

    def split(self, x: Tensor) -> Tensor:
        """[N, T, H, W, C] to [N * windows, tokens, C]: pad, shift, cut."""
        pad = [p - s for p, s in zip(self.padded, self.size, strict=True)]
        if any(pad):
            x = functional.pad(x, (0, 0, 0, pad[2], 0, pad[1], 0, pad[0]))
        x = _roll(x, [-s for s in self.shift])
        (t, h, w), (a, b, c), channels = self.padded, self.window, x.shape[-1]
        x = x.reshape(-1, t // a, a, h // b, b, w // c, c, channels)
        return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, self.tokens, channels)

    def merge(self, x: Tensor) -> Tensor:
        """[N * windows, tokens, C] to [N, T, H, W, C]: what `split` did, undone."""
        (t, h, w), (a, b, c), channels = self.padded, self.window, x.shape[-1]
        x = x.reshape(-1, t // a, h // b, w // c, a, b, c, channels)
        x = x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(-1, t, h, w, channels)
        x = _roll(x, self.shift)
        for axis, (size, padded) in enumerate(zip(self.size, self.padded, strict=True), start=1):
            if size != padded:
                x = x.narrow(axis, 0, size)
        return x

    def regions(self) -> Tensor:
        """Which region each token is of: int32 [windows, tokens]. Only tokens of one region attend.

        After the cyclic shift the last window of an axis holds the map's end and its beginning, which are no
        neighbours: they, and padding, are regions of their own.
        """
        region = torch.zeros(1, *self.padded, 1, dtype=torch.int32)
        sizes = zip(self.size, self.padded, self.shift, strict=True)
        for axis, (size, padded, shift) in enumerate(sizes, start=1):
            # In shifted order, position i holds token (i + shift) % padded.
            position = torch.arange(padded)
            token = (position + shift) % padded
            wrapped = position >= padded - shift if shift else torch.zeros(padded, dtype=torch.bool)
            label = torch.where(token >= size, 2, wrapped.to(torch.int64)).to(torch.int32)
            shape = [1] * 5
            shape[axis] = padded
            region = region * 3 + label.reshape(shape)
        (t, h, w), (a, b, c) = self.padded, self.window
        cut = region.reshape(t // a, a, h // b, b, w // c, c).permute(0, 2, 4, 1, 3, 5)
        return cut.reshape(-1, self.tokens)


def _roll(x: Tensor, shift: list[int] | Size) -> Tensor:
    axes = [axis for axis, by in enumerate(shift, start=1) if by]
    return torch.roll(x, [shift[axis - 1] for axis in axes], axes) if axes else x


def relative_positions(window: Size, largest: Size) -> Tensor:
    """Row of the bias table for each pair of tokens of a window: int32 [tokens * tokens].

    The table is that of the `largest` window, of which a small map's `window` uses a part.
    """
    grid = torch.cartesian_prod(*[torch.arange(w) for w in window]).reshape(-1, 3)
    offset = grid[:, None] - grid[None, :]
    index = torch.zeros(offset.shape[:2], dtype=torch.int64)
    for axis, w in enumerate(largest):
        index = index * (2 * w - 1) + offset[..., axis] + w - 1
    return index.flatten().to(torch.int32)


def region_mask(regions: Tensor) -> Tensor:
    """[windows, tokens] of regions to float32 [windows, 1, tokens, tokens]: 0 within a region, else MASKED.

    Made while the network runs, once for each resolution: as constants the masks of the paper's baseline
    would add 50 MB to its file.
    """
    differ = regions[:, :, None] != regions[:, None, :]
    return (differ.to(torch.float32) * MASKED)[:, None]


class WindowAttention(nn.Module):
    """Multi-head attention within windows, with a learned bias for each relative position and head.

    The table of biases is as large as `window` needs, also where the map is smaller: so it is published.
    """

    def __init__(self, width: int, heads: int, window: Size):
        super().__init__()
        self.heads, self.width = heads, width
        self.query_key_value = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.position_bias = nn.Parameter(torch.zeros(prod(2 * w - 1 for w in window), heads))
        nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        """[M, tokens, C] to the same; `mask` [windows, 1, tokens, tokens], where M = N * windows."""
        tokens = x.shape[1]
        qkv = self.query_key_value(x).reshape(-1, tokens, 3, self.heads, self.width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        logits = (query * (self.width // self.heads) ** -0.5) @ key.transpose(-2, -1)
        bias = self.position_bias.index_select(0, positions).reshape(tokens, tokens, self.heads)
        logits = logits + bias.permute(2, 0, 1)
        if mask is not None:
            grouped = logits.reshape(-1, mask.shape[0], self.heads, tokens, tokens) + mask
            logits = grouped.reshape(-1, self.heads, tokens, tokens)
        x = logits.softmax(-1) @ value
        return self.projection(x.transpose(1, 2).reshape(-1, tokens, self.width))
