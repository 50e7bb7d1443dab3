"""Swin3D is the published one: a plain, slow version gives the same numbers, a formula the same parameters."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from points import draw, train_and_export
from test_models import BASELINE, clips

from edgeloop import config
from edgeloop.models import registry
from edgeloop.models.preprocess import MEAN, STD

SPACE = config.load_space(Path(__file__).parents[2] / "config/spaces/swin3d.yaml")
WINDOW = (8, 7, 7)
SMALLEST = 3
"""So many of 20: at 224 px the others take a minute each."""
PAPER = {
    "precision": ("fp32",),
    "training:optimizer": ("adam",),
    "training:schedule": ("step",),
    "training:lr": (1e-4, 1.0),
    "training:step_size": (10, 20, 40),
    "training:gamma": (0.1, 0.9),
    "training:batch_size": (8,),
    "swin3d:frames": (16,),
    "swin3d:pixels": (224,),
    **{f"swin3d:patch.{axis}": (2, 4) for axis in range(3)},
    "swin3d:embed": (24, 48),
    "swin3d:heads": ([3], [3, 6], [3, 6, 12], [3, 6, 12, 24]),
    **{f"swin3d:depths.{stage}": (1, 2, 4) for stage in range(4)},
    "swin3d:mlp_ratio": (1, 2, 3, 4),
}
"""Table of Aach et al. (2025): every gene, and what it may be."""


def test_the_space_of_the_paper_is_the_papers():
    genes = {name: gene for name, gene in SPACE.genes.items() if name != "family"}
    assert {name: gene.choices or gene.bounds for name, gene in genes.items()} == PAPER
    assert [name for name, gene in genes.items() if gene.log] == ["training:lr"]
    for stage in range(1, 4):
        deep_enough = tuple(heads for heads in PAPER["swin3d:heads"] if len(heads) > stage)
        assert genes[f"swin3d:depths.{stage}"].when["swin3d:heads"] == deep_enough


def published_parameters(genes: dict) -> int:
    """Of the Video Swin Transformer (Liu et al., 2106.13230) on one input channel, with the paper's head."""
    width = genes["embed"]
    total = width * math.prod(genes["patch"]) + width
    for stage, (depth, heads) in enumerate(zip(genes["depths"], genes["heads"], strict=True)):
        if stage:
            width *= 2
            total += 2 * (2 * width) + (2 * width) * width  # norm of four neighbours, their reduction without bias
        hidden = int(width * genes["mlp_ratio"])
        attention = 3 * width * (width + 1) + width * (width + 1) + math.prod(2 * w - 1 for w in WINDOW) * heads
        mlp = hidden * (width + 1) + width * (hidden + 1)
        total += depth * (4 * width + attention + mlp)
    return total + 2 * width + 400 * (width + 1) + 200 * (400 + 1) + 2 * (200 + 1)


def test_the_baseline_has_the_published_number_of_parameters():
    assert published_parameters(BASELINE) == registry.size(BASELINE)["parameters"] == 28_232_336


def test_points_of_the_papers_space_have_the_published_number_of_parameters():
    rng = np.random.default_rng(0)
    drawn = [SPACE.sample(rng)["architecture"] for _ in range(200)]
    assert {len(architecture["depths"]) for architecture in drawn} == {1, 2, 3, 4}
    for architecture in drawn:
        with torch.device("meta"):
            model = registry.build(architecture)
        counted = sum(parameter.numel() for parameter in model.parameters())
        assert counted == published_parameters(architecture), architecture


class Reference:
    """The network of `genes` in NumPy, by its definition: window for window, pair for pair.

    Published, padding of a map is a token like any other; here nothing attends to it (`edgeloop.models.windows`).
    """

    def __init__(self, genes: dict, model: torch.nn.Module):
        self.genes = genes
        self.weights = {key: value.double().numpy() for key, value in model.state_dict().items()}

    def __call__(self, clip: np.ndarray) -> np.ndarray:
        x = self.patches(clip)
        for stage, (depth, heads) in enumerate(zip(self.genes["depths"], self.genes["heads"], strict=True)):
            x = self.merged(x, f"merges.{stage}") if stage else x
            for number in range(depth):
                name = f"stages.{stage}.blocks.{number}"
                x = x + self.attention(self.norm(x, f"{name}.norm1"), f"{name}.attention", heads, number % 2 == 1)
                x = x + self.mlp(self.norm(x, f"{name}.norm2"), f"{name}.mlp")
        x = self.norm(x, "norm").mean((0, 1, 2))
        *hidden, last = [name for name in ("head.1", "head.2", "head.3", "head.4") if f"{name}.weight" in self.weights]
        for name in hidden:
            x = self.linear(x, name)
        x = np.maximum(x, 0) if hidden else x
        return self.linear(x, last) * self.weights[f"{last}.target_std"] + self.weights[f"{last}.target_mean"]

    def linear(self, x: np.ndarray, name: str) -> np.ndarray:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def mlp(self, x: np.ndarray, name: str) -> np.ndarray:
        x = self.linear(x, f"{name}.0")
        return self.linear(x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2, f"{name}.2")

    def patches(self, clip: np.ndarray) -> np.ndarray:
        """Patches that overhang the clip see darkness, more of it before than behind."""
        first = (41 - self.genes["pixels"]) // 2
        inside = slice(first, first + self.genes["pixels"])
        x = (np.sqrt(clip[:, inside, inside] / 255) - MEAN) / STD
        missing = [-n % p for n, p in zip(x.shape, self.genes["patch"], strict=True)]
        x = np.pad(x, [(m - m // 2, m // 2) for m in missing], constant_values=-MEAN / STD)
        weight, bias = self.weights["embed.projection.weight"][:, 0], self.weights["embed.projection.bias"]
        grid = [range(n // p) for n, p in zip(x.shape, self.genes["patch"], strict=True)]
        result = np.empty((*map(len, grid), len(bias)))
        for place in itertools.product(*grid):
            cut = tuple(slice(i * p, (i + 1) * p) for i, p in zip(place, self.genes["patch"], strict=True))
            result[place] = (weight * x[cut]).sum((1, 2, 3)) + bias
        return result

    def merged(self, x: np.ndarray, name: str) -> np.ndarray:
        frames, rows, columns, channels = x.shape
        x = np.pad(x, [(0, 0), (0, rows % 2), (0, columns % 2), (0, 0)])
        result = np.empty((frames, x.shape[1] // 2, x.shape[2] // 2, 4 * channels))
        for t, i, j in np.ndindex(result.shape[:3]):
            corners = [x[t, 2 * i + di, 2 * j + dj] for di, dj in ((0, 0), (1, 0), (0, 1), (1, 1))]
            result[t, i, j] = np.concatenate(corners)
        return self.linear(self.norm(result, f"{name}.norm"), f"{name}.reduction")

    def attention(self, x: np.ndarray, name: str, heads: int, shifted: bool) -> np.ndarray:
        size, largest = x.shape[:3], self.genes["window"]
        window = [min(s, w) for s, w in zip(size, largest, strict=True)]
        shift = [w // 2 if shifted and s > w else 0 for s, w in zip(size, window, strict=True)]
        padded = [math.ceil(s / w) * w for s, w in zip(size, window, strict=True)]
        table = self.weights[f"{name}.position_bias"].reshape(*(2 * w - 1 for w in largest), heads)
        query, key, value = np.split(self.linear(x, f"{name}.query_key_value"), 3, axis=-1)
        width = x.shape[-1] // heads
        result = np.zeros_like(x)

        def region(place):
            """The slices of the published mask: [0, P - w), [P - w, P - s), [P - s, P) of each axis."""
            sizes = zip(place, padded, window, shift, strict=True)
            return [int(i >= p - w) + int(s > 0 and i >= p - s) for i, p, w, s in sizes]

        def token(place):
            """Which token stands at a place of the map after the cyclic shift."""
            return tuple((i + s) % p for i, s, p in zip(place, shift, padded, strict=True))

        for corner in itertools.product(*(range(0, p, w) for p, w in zip(padded, window, strict=True))):
            places = itertools.product(*(range(c, c + w) for c, w in zip(corner, window, strict=True)))
            places = [place for place in places if all(i < s for i, s in zip(token(place), size, strict=True))]
            for mine in places:
                seen = [place for place in places if region(place) == region(mine)]
                for head in range(heads):
                    part = slice(head * width, (head + 1) * width)
                    logits = []
                    for other in seen:
                        apart = tuple(i - j + w - 1 for i, j, w in zip(mine, other, largest, strict=True))
                        product = query[token(mine)][part] @ key[token(other)][part]
                        logits.append(product / math.sqrt(width) + table[(*apart, head)])
                    shares = np.exp(logits) / np.exp(logits).sum()
                    values = [value[token(other)][part] for other in seen]
                    result[token(mine)][part] = sum(share * v for share, v in zip(shares, values, strict=True))
        return self.linear(result, f"{name}.projection")


ODD = {"family": "swin3d", "embed": 4, "heads": [1, 2], "depths": [2, 2], "mlp_ratio": 2, "stochastic_depth": 0.3}


@pytest.mark.parametrize(
    "genes",
    [
        {"frames": 5, "pixels": 13, "patch": [2, 2, 2], "window": [2, 3, 3], "head": [6, 5]},
        {"frames": 4, "pixels": 21, "patch": [1, 3, 4], "window": [3, 5, 2], "head": []},
        {"frames": 6, "pixels": 12, "patch": [2, 2, 2], "window": [8, 3, 7], "head": [6]},
    ],
    ids=["odd", "oblong", "windows-larger-than-the-map"],
)
def test_the_network_computes_what_a_plain_and_slow_one_does(genes):
    torch.manual_seed(3)
    genes = ODD | genes
    model = registry.build(genes).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms begin as 0 and 1, the rest small
            parameter.copy_(torch.randn_like(parameter) * 0.4)
        clip = clips(1, genes["frames"], seed=5)
        found = model(torch.from_numpy(clip))[0].numpy()
    np.testing.assert_allclose(found, Reference(genes, model)(clip[0]), atol=2e-5, rtol=2e-5)


def test_drawn_points_of_the_papers_space_are_built_and_the_smallest_trained_and_exported(tmp_path):
    drawn = draw("swin3d", 20, seed=2)
    by_size = sorted(drawn, key=lambda genotype: registry.size(genotype["architecture"])["macs"])
    for genotype in by_size[:SMALLEST]:
        # The paper's learning rates reach 1, where a training may diverge.
        gentle = genotype["training"] | {"lr": min(genotype["training"]["lr"], 1e-3)}
        train_and_export(genotype | {"training": gentle}, tmp_path)
