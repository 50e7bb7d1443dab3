"""The 3D Swin transformer with the genes of the paper (Aach et al. 2025, 2505.19995).

Its human-designed baseline is the point frames 16, pixels 224, patch [2, 4, 4], embed 96, depths [2, 2, 6, 2],
heads [3, 6, 12, 24] with everything else at its default: 28.23 million parameters.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeloop.models.genes import Genes, frames_gene, gene, pixels_gene
from edgeloop.models.preprocess import FirstConv3d, Preprocess, Targets
from edgeloop.models.windows import Size, WindowAttention, Windows, region_mask, relative_positions


@dataclass(frozen=True)
class Swin3d(Genes):
    """Stages of shifted-window attention; between two of them 2x2 pixels merge and the width doubles.

    patch, window: [frames, rows, columns]. embed: width of the first stage. heads: of each stage, as depths.
    head: widths of the linear layers before the targets, with one ReLU after the last (as in the paper).
    """

    embed: int = gene(minimum=4, maximum=512)
    depths: tuple[int, ...] = gene(minimum=1, maximum=24)
    heads: tuple[int, ...] = gene(minimum=1, maximum=64)
    patch: tuple[int, ...] = gene((2, 4, 4), minimum=1, maximum=32, length=3)
    window: tuple[int, ...] = gene((8, 7, 7), minimum=1, maximum=32, length=3)
    mlp_ratio: float = gene(4.0, minimum=0.25, maximum=8)
    stochastic_depth: float = gene(0.3, minimum=0.0, maximum=0.9)
    dropout: float = gene(0.5, minimum=0.0, maximum=0.9)
    head: tuple[int, ...] = gene((400, 200), minimum=1, maximum=4096)
    frames: int = frames_gene()
    pixels: int = pixels_gene()

    def validate(self) -> None:
        if not self.depths or len(self.depths) != len(self.heads):
            raise ValueError(
                f"depths {list(self.depths)} and heads {list(self.heads)} differ in length: "
                "expected one depth and one number of heads for each stage"
            )
        if self.patch[0] > self.frames:
            raise ValueError(f"patch {list(self.patch)} is longer than the clip of {self.frames} frames")
        for stage, heads in enumerate(self.heads):
            width = self.embed * 2**stage
            if width % heads:
                raise ValueError(
                    f"heads {heads} does not divide the width {width} of stage {stage + 1}: expected a divisor "
                    f"(the width is embed {self.embed}, doubled by each stage)"
                )
        for stage, size in enumerate(self.sizes()[:-1]):
            if size[1] < 2 or size[2] < 2:
                raise ValueError(
                    f"stage {stage + 1} has a map of {size[1]}x{size[2]}, which leaves nothing to merge for stage "
                    f"{stage + 2}: expected fewer stages, a smaller patch than {list(self.patch)} or more pixels "
                    f"than {self.pixels}"
                )

    def sizes(self) -> list[Size]:
        """The map [frames, rows, columns] of each stage. What a patch or a merge does not divide is padded."""
        t, h, w = (-(-n // p) for n, p in zip((self.frames, self.pixels, self.pixels), self.patch, strict=True))
        sizes = [(t, h, w)]
        for _ in self.depths[1:]:
            t, h, w = t, -(-h // 2), -(-w // 2)
            sizes.append((t, h, w))
        return sizes

    def network(self) -> nn.Module:
        """The module."""
        return Swin3dNetwork(self)


class Swin3dNetwork(nn.Module):
    """See Swin3d."""

    def __init__(self, genes: Swin3d):
        super().__init__()
        self.preprocess = Preprocess(genes.frames, genes.pixels)
        self.embed = PatchEmbedding(genes)
        self.merges, self.stages = nn.ModuleList(), nn.ModuleList()
        rates = torch.linspace(0, genes.stochastic_depth, sum(genes.depths), device="cpu").tolist()
        for stage, (size, depth, heads) in enumerate(zip(genes.sizes(), genes.depths, genes.heads, strict=True)):
            width, drops = genes.embed * 2**stage, rates[:depth]
            del rates[:depth]
            self.merges.append(PatchMerging(width // 2) if stage else nn.Identity())
            self.stages.append(Stage(width, heads, size, genes.window, genes.mlp_ratio, drops))
        self.norm = nn.LayerNorm(width)
        head: list[nn.Module] = [nn.Dropout(genes.dropout)]
        for outputs in genes.head:
            head.append(nn.Linear(width, outputs))
            width = outputs
        self.head = nn.Sequential(*head, *[nn.ReLU()] * bool(genes.head), Targets(width))
        for module in self.stages.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, clip: Tensor) -> Tensor:
        x = self.embed(self.preprocess(clip))
        for merge, stage in zip(self.merges, self.stages, strict=True):
            x = stage(merge(x))
        return self.head(self.norm(x).mean((1, 2, 3)))


class PatchEmbedding(nn.Module):
    """[N, frames, P, P] to channels-last patches [N, T, H, W, embed]; patches that overhang see darkness."""

    def __init__(self, genes: Swin3d):
        super().__init__()
        shape, patch = (genes.frames, genes.pixels, genes.pixels), genes.patch
        # Half of what is missing, rounded up, on either side: the convolution drops what is too much.
        padding = tuple((-n % p + 1) // 2 for n, p in zip(shape, patch, strict=True))
        self.projection = FirstConv3d(1, genes.embed, patch, patch, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x[:, None]).permute(0, 2, 3, 4, 1)


class PatchMerging(nn.Module):
    """2x2 neighbours to one token of twice the width: [N, T, H, W, C] to [N, T, H/2, W/2, 2C]. Not in time."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        nn.init.trunc_normal_(self.reduction.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:4]
        if height % 2 or width % 2:
            x = functional.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        corners = [x[:, :, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, -1)))


class Stage(nn.Module):
    """Blocks of one resolution, every second one shifted; their masks and positions are made once."""

    def __init__(self, width: int, heads: int, size: Size, window: Size, ratio: float, drops: list[float]):
        super().__init__()
        cuts = [Windows.of(size, window, shifted) for shifted in (False, True)]
        self.blocks = nn.ModuleList(
            Block(width, heads, window, cuts[i % 2], ratio, drop) for i, drop in enumerate(drops)
        )
        # Derived from the genes, so they are no part of the saved weights.
        self.register_buffer("positions", relative_positions(cuts[0].window, window), persistent=False)
        for name, cut in zip(("regions", "shifted_regions"), cuts, strict=True):
            self.register_buffer(name, cut.regions() if cut.masked else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        regions = (self.regions, self.shifted_regions)
        masks = [None if region is None else region_mask(region) for region in regions[: len(self.blocks)]]
        for i, block in enumerate(self.blocks):
            x = block(x, self.positions, masks[i % 2])
        return x


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)), each branch dropped at times in training."""

    def __init__(self, width: int, heads: int, window: Size, windows: Windows, ratio: float, drop: float):
        super().__init__()
        self.windows, self.drop = windows, drop
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = WindowAttention(width, heads, window)
        hidden = max(1, int(width * ratio))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor | None) -> Tensor:
        inside = self.attention(self.windows.split(self.norm1(x)), positions, mask)
        x = x + self._kept(self.windows.merge(inside))
        return x + self._kept(self.mlp(self.norm2(x)))

    def _kept(self, branch: Tensor) -> Tensor:
        """Stochastic depth (Huang et al., 1603.09382): whole clips drop the branch, the others make up for it."""
        if not self.training or not self.drop:
            return branch
        keep = torch.rand(branch.shape[0], 1, 1, 1, 1, device=branch.device) >= self.drop
        return branch * keep / (1 - self.drop)
