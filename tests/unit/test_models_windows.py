"""Shifted-window attention against a slow version that knows nothing of rolling, padding or masks."""

import itertools
import math

import pytest
import torch

from edgeloop.models.windows import Size, WindowAttention, Windows, region_mask, relative_positions

MAPS = [
    ((2, 4, 4), (2, 2, 2)),
    ((4, 6, 6), (2, 3, 3)),
    ((3, 5, 7), (2, 3, 3)),
    ((2, 3, 3), (8, 7, 7)),
    ((4, 7, 5), (2, 7, 3)),
]


def slow_attention(layer: WindowAttention, x: torch.Tensor, windows: Windows, largest: Size) -> torch.Tensor:
    """Every token attends to the tokens of its window on the shifted grid, found by their coordinates."""
    coordinates = list(itertools.product(*map(range, windows.size)))

    def cell(token):
        # Windows of the shifted grid start at -(window - shift), without wrapping around.
        return tuple(
            (c + w - s) // w if s else c // w for c, w, s in zip(token, windows.window, windows.shift, strict=True)
        )

    def bias_row(query, key):
        row = 0
        for q, k, w in zip(query, key, largest, strict=True):
            row = row * (2 * w - 1) + (q - k + w - 1)
        return row

    result, width = torch.zeros_like(x), layer.width // layer.heads
    for query in coordinates:
        neighbours = [key for key in coordinates if cell(key) == cell(query)]
        keys = torch.stack([x[0][key] for key in neighbours])
        q = layer.query_key_value(x[0][query])[: layer.width]
        kv = layer.query_key_value(keys)
        heads = []
        for head in range(layer.heads):
            part = slice(head * width, (head + 1) * width)
            k, v = kv[:, layer.width : 2 * layer.width][:, part], kv[:, 2 * layer.width :][:, part]
            rows = [bias_row(query, key) for key in neighbours]
            logits = k @ q[part] / math.sqrt(width) + layer.position_bias[rows, head]
            heads.append(logits.softmax(0) @ v)
        result[0][query] = layer.projection(torch.cat(heads))
    return result


@pytest.mark.parametrize("shifted", [False, True], ids=["plain", "shifted"])
@pytest.mark.parametrize(("size", "window"), MAPS, ids=str)
@torch.no_grad()
def test_attention_within_windows_is_what_its_definition_says(size, window, shifted):
    torch.manual_seed(1)
    windows = Windows.of(size, window, shifted)
    layer = WindowAttention(6, 2, window)
    torch.nn.init.normal_(layer.position_bias)
    x = torch.randn(1, *size, 6)
    mask = region_mask(windows.regions()) if windows.masked else None
    found = windows.merge(layer(windows.split(x), relative_positions(windows.window, window), mask))
    torch.testing.assert_close(found, slow_attention(layer, x, windows, window), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("size", "window"), MAPS, ids=str)
def test_cutting_into_windows_and_back_changes_nothing(size, window):
    x = torch.randn(3, *size, 5)
    for shifted in (False, True):
        windows = Windows.of(size, window, shifted)
        torch.testing.assert_close(windows.merge(windows.split(x)), x, atol=0, rtol=0)


def test_a_window_that_spans_the_map_is_not_shifted():
    windows = Windows.of((8, 14, 7), (8, 7, 7), shifted=True)
    assert windows.shift == (0, 3, 0) and windows.masked
    assert Windows.of((4, 5, 5), (8, 7, 7), shifted=True) == Windows((4, 5, 5), (4, 5, 5), (0, 0, 0))
