"""Export: one self-contained file that computes what PyTorch does."""

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from test_models import BASELINE, SMALL, clips, name, random_architecture
from torch import nn

from edgeloop.export import BATCH, INPUT, OUTPUT, TOLERANCE, export, export_untrained
from edgeloop.models import registry
from edgeloop.models.moments import SHAPES
from edgeloop.models.preprocess import Targets


def exported(architecture: dict, path) -> dict:
    torch.manual_seed(0)
    model = registry.build(architecture)
    # As after training: statistics of batch normalisation that are not 0 and 1.
    model(torch.from_numpy(clips(4, registry.input_frames(architecture), seed=1)))
    return export(model, path, frames=registry.input_frames(architecture), clips=clips(3))


@pytest.mark.parametrize("architecture", SMALL, ids=name)
def test_each_family_exports_and_agrees_with_pytorch_at_any_batch(architecture, tmp_path):
    path = tmp_path / "model.onnx"
    record = exported(architecture, path)
    assert record["status"] == "ok", record
    assert record["max_abs_difference"] <= TOLERANCE and record["compared_clips"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    assert record["bytes"] == path.stat().st_size
    assert "BatchNormalization" not in record["operators"]  # folded into what is before it, or two small operators
    session = onnxruntime.InferenceSession(path)
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == (INPUT, "tensor(uint8)", [BATCH, 16, 41, 41])
    assert (given.name, given.type) == (OUTPUT, "tensor(float)")
    alone = [session.run(None, {INPUT: clip[None]})[0][0] for clip in clips(3)]
    np.testing.assert_allclose(alone, record["outputs"], atol=1e-5)


@pytest.mark.parametrize("frame_thresholds", [0, 2])
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize(
    "family", [{"family": "moments", "offsets": True}, {"family": "motion"}, {"family": "motion", "directed": True}]
)
def test_where_nothing_is_bright_onnxruntime_computes_the_same(family, shapes, frame_thresholds, tmp_path):
    # The converter drops what is added if it is nearly nothing, and sigmoids differ in the dark.
    model = registry.build({**family, "shapes": shapes, "frame_thresholds": frame_thresholds})
    if hasattr(model, "expected"):
        torch.nn.init.constant_(model.expected.weight, 0.1)  # untrained, it expects nothing
    for statistic in model.head.norm.running_var, model.head.norm.weight:
        torch.nn.init.constant_(statistic, 0.1)  # as strict as training makes it
    dark = np.random.default_rng(0).poisson(4, (20, 16, 41, 41)).astype(np.uint8)
    record = export(model, tmp_path / "model.onnx", frames=16, clips=np.concatenate([dark, np.zeros_like(dark[:1])]))
    assert record["status"] == "ok" and record["max_abs_difference"] < TOLERANCE / 10


@pytest.mark.parametrize("family", sorted(registry.FAMILIES))
def test_random_points_of_a_family_export_and_agree(family, tmp_path):
    rng = np.random.default_rng(11)
    for _ in range(2):
        architecture = random_architecture(family, rng)
        assert exported(architecture, tmp_path / "model.onnx")["status"] == "ok", architecture


def test_a_small_network_costs_a_cast_and_a_square_root_before_its_convolutions(tmp_path):
    record = exported(SMALL[0], tmp_path / "model.onnx")
    assert record["operators"] == {"Cast": 1, "Conv": 3, "Gemm": 1, "ReduceMean": 1, "Relu": 3, "Sqrt": 1}


def test_a_strided_convolution_of_one_pixel_is_exported_as_one_operator(tmp_path):
    record = exported({"family": "conv2d", "widths": [8, 16], "kernel": 1}, tmp_path / "model.onnx")
    assert record["operators"] == {"Cast": 1, "Conv": 2, "Gemm": 1, "ReduceMean": 1, "Relu": 2, "Sqrt": 1}


def test_untrained_networks_have_the_graph_of_trained_ones_and_are_the_same_twice(tmp_path):
    first = export_untrained(SMALL[1], tmp_path / "one.onnx")
    second = export_untrained(SMALL[1], tmp_path / "two.onnx")
    assert first["model_sha256"] == second["model_sha256"]
    assert first["operators"] == exported(SMALL[1], tmp_path / "trained.onnx")["operators"]
    onnx.checker.check_model(str(tmp_path / "one.onnx"))


class Deceiver(nn.Module):
    """Computes something else when it is exported."""

    def __init__(self, by: float):
        super().__init__()
        self.by, self.head = by, Targets(1)

    def forward(self, clip):
        x = self.head(clip.float().mean((1, 2, 3))[:, None] / 255)
        return x + self.by if torch.compiler.is_exporting() else x


@pytest.mark.parametrize("by", [2e-4, float("nan")])
def test_a_file_that_computes_something_else_gives_a_failed_record(by, tmp_path):
    record = export(Deceiver(by), tmp_path / "model.onnx", frames=16, clips=clips(2))
    assert record["status"] == "failed" and "onnxruntime and PyTorch differ by" in record["reason"]


class Unspeakable(nn.Module):
    """Uses what ONNX has no operator for."""

    def forward(self, clip):
        return torch.linalg.eigvals(clip.float().mean(1)).abs()[:, :2]


def test_a_network_that_onnx_cannot_express_gives_a_failed_record(tmp_path):
    record = export(Unspeakable(), tmp_path / "model.onnx", frames=16, clips=clips(2))
    assert record["status"] == "failed"
    assert record["reason"].startswith("the network cannot be exported to ONNX: ")
    assert not list(tmp_path.iterdir())


def test_clips_that_cannot_be_compared_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"are uint8 \[2, 8, 41, 41\]: expected uint8 \[n, at least 16, 41, 41\]"):
        export(registry.build(SMALL[0]), tmp_path / "model.onnx", frames=16, clips=clips(2, 8))


def test_the_export_is_silent_about_packages_that_we_do_not_need(tmp_path, caplog, recwarn):
    with caplog.at_level(logging.WARNING):
        export_untrained(SMALL[3], tmp_path / "model.onnx")
    assert not caplog.records and not [str(w.message) for w in recwarn]


def test_the_baseline_at_224_pixels_exports_below_120_mb(tmp_path):
    model = registry.build(BASELINE)
    counted = registry.count(model, BASELINE)
    assert counted["parameters"] == 28_232_336 and 43.7e9 < counted["macs"] < 43.75e9
    record = export(model, tmp_path / "model.onnx", frames=16, clips=clips(1))
    assert record["status"] == "ok", record
    assert record["max_abs_difference"] <= TOLERANCE and record["bytes"] < 120e6
