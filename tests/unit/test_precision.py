"""fp16 and int8: made of the trained network, deterministic, judged by what they compute themselves."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from onnx import numpy_helper
from test_training import TRAIN, VALIDATION, split

from edgeloop import conversion, parity
from edgeloop.data.cache import window
from edgeloop.export import BATCH, INPUT, OUTPUT, export, export_candidate, export_untrained, run
from edgeloop.models import registry
from edgeloop.precision import PRECISIONS, deployed, tolerances
from edgeloop.training import Settings, load, train

NETWORKS = {
    "conv2d": {"family": "conv2d", "widths": [8, 16], "head": [16]},
    "conv3d": {"family": "conv3d", "widths": [4, 8], "frames": 8, "downsample": "max_pool"},
    "per-frame-conv": {"family": "conv2d_temporal", "widths": [4, 8], "temporal": "conv", "frames": 8},
    "per-frame-gru": {"family": "conv2d_temporal", "widths": [4, 8], "temporal": "gru", "frames": 8},
    "per-frame-transformer": {"family": "conv2d_temporal", "widths": [4, 8], "temporal": "transformer", "frames": 8},
    "moments": {"family": "moments", "frames": 8},
    "moments-of-one-frame": {"family": "moments", "frames": 1, "frame_thresholds": 2},
    "motion": {"family": "motion", "frames": 4, "pixels": 33, "lag": 1, "frequencies": 6},
    "motion-and-change": {"family": "motion", "shapes": "mean_and_change", "thresholds": 4},
    "motion-directed": {"family": "motion", "thresholds": 4, "frame_thresholds": 2, "lags": 2, "directed": True},
    "motion-halved": {"family": "motion", "frames": 8, "stem_stride": 2, "frequencies": 8, "thresholds": 4},
    "swin3d": {"family": "swin3d", "embed": 12, "depths": [2], "heads": [3], "mlp_ratio": 1, "patch": [8, 8, 8],
               "dropout": 0.0, "stochastic_depth": 0.0},
}  # fmt: skip
CONVERTED = [precision for precision in PRECISIONS if precision != "fp32"]


def genotype(network, precision="fp32"):
    return {"architecture": NETWORKS[network], "precision": precision, "training": {"lr": 4e-3, "batch_size": 10}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A crop cache."""
    return write_data(tmp_path_factory.mktemp("data"))


def write_data(folder, train=TRAIN, validation=VALIDATION):
    for name, part in (("train", train), ("validation", validation)):
        np.save(folder / f"{name}.clips.npy", part.clips)
        np.save(folder / f"{name}.targets.npy", part.targets)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network after a short training, by name: its record and its weights."""
    folder, known = tmp_path_factory.mktemp("trained"), {}

    def of(network):
        if network not in known:
            path = folder / f"{network}.pt"
            known[network] = train(genotype(network), TRAIN, VALIDATION, Settings(epochs=6), weights_path=path), path
        return known[network]

    return of


def candidate(network, precision, trained, data, path):
    """The export record of a network that was trained."""
    record, weights = trained(network)
    clips = VALIDATION.clips[:5]
    return export_candidate(genotype(network, precision), record, weights, path, parity_clips=clips, data=data)


@pytest.mark.parametrize("precision", CONVERTED)
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_of_any_family_stays_as_good_at_any_batch(network, precision, trained, data, tmp_path):
    path = tmp_path / "model.onnx"
    record = candidate(network, precision, trained, data, path)
    assert record["status"] == "ok", record
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    frames = registry.input_frames(NETWORKS[network])
    assert (taken.name, taken.type, taken.shape) == (INPUT, "tensor(uint8)", [BATCH, frames, 41, 41])
    assert (given.name, given.type) == (OUTPUT, "tensor(float)")
    first = (16 - frames) // 2
    alone = [session.run(None, {INPUT: clip[None, first : first + frames]})[0][0] for clip in VALIDATION.clips[:5]]
    np.testing.assert_allclose(alone, record["outputs"], atol=2e-3)
    # Its own error, on all of the validation clips: not PyTorch's, but near it.
    pytorch = trained(network)[0]["val_rmse"]
    assert record["val_rmse"] != pytorch and record["val_rmse"] == pytest.approx(pytorch, rel=0.15)
    assert record["outputs"] != record["outputs_pytorch"] and record["max_abs_difference"] <= 1e-4
    difference = np.abs(np.subtract(record["outputs"], record["outputs_pytorch"])).max()
    assert record["converted_max_abs_difference"] == pytest.approx(difference)


@pytest.mark.parametrize("precision", CONVERTED)
@pytest.mark.parametrize("network", NETWORKS)
def test_onnxruntime_optimised_computes_what_the_file_says(network, precision, trained, data, tmp_path):
    """Not so of attention that is quantised throughout (onnxruntime 1.31)."""
    path, frames = tmp_path / "model.onnx", registry.input_frames(NETWORKS[network])
    candidate(network, precision, trained, data, path)
    options, clips = onnxruntime.SessionOptions(), np.ascontiguousarray(window(VALIDATION.clips, frames))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    plainly = onnxruntime.InferenceSession(path, options).run(None, {INPUT: clips})[0]
    np.testing.assert_allclose(run(path, clips), plainly, atol=0.02)


def test_fp32_has_nothing_that_a_conversion_adds(trained, data, tmp_path):
    record = candidate("conv2d", "fp32", trained, data, tmp_path / "model.onnx")
    plain = export(load(NETWORKS["conv2d"], trained("conv2d")[1]), tmp_path / "plain.onnx", frames=16,
                   clips=VALIDATION.clips[:5])  # fmt: skip
    assert record | {"export_s": 0} == plain | {"export_s": 0}
    assert not {"precision", "val_rmse", "outputs_pytorch"} & record.keys()


def test_weights_of_int8_are_bytes_with_a_scale_for_each_channel_and_activations_are_bytes(trained, data, tmp_path):
    candidate("conv2d", "int8", trained, data, tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    values = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 2
    for node in convolutions:
        weights, activations = makers[node.input[1]], makers[node.input[0]]
        assert weights.op_type == activations.op_type == "DequantizeLinear"
        assert values[weights.input[0]].dtype == np.int8
        assert values[weights.input[1]].shape == values[weights.input[0]].shape[:1]
        assert makers[activations.input[0]].op_type == "QuantizeLinear"
        assert values[activations.input[2]].dtype == np.uint8 and values[activations.input[1]].ndim == 0
    (root,) = (node for node in graph.node if node.op_type == "Sqrt")
    assert makers[root.input[0]].op_type == "Cast"  # the preprocessing stays float


def test_weights_of_fp16_take_half_the_room(trained, data, tmp_path):
    sizes = {p: candidate("conv2d", p, trained, data, tmp_path / f"{p}.onnx")["bytes"] for p in PRECISIONS}
    kinds = {entry.data_type for entry in onnx.load(tmp_path / "fp16.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds
    assert sizes["fp16"] < 0.75 * sizes["fp32"]


@pytest.mark.parametrize("precision", CONVERTED)
def test_the_same_weights_and_clips_give_the_same_bytes(precision, trained, data, tmp_path):
    for name in ("one", "two"):
        torch.manual_seed(hash(name) % 1000)
        candidate("per-frame-gru", precision, trained, data, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_int8_is_calibrated_on_training_clips_and_on_nothing_else(trained, data, tmp_path):
    def model(name, **splits):
        folder = tmp_path / name
        folder.mkdir()
        candidate("conv2d", "int8", trained, write_data(folder, **splits), folder / "model.onnx")
        return (folder / "model.onnx").read_bytes()

    known = model("known")
    assert model("validation", validation=split(40, 7)) == known
    assert model("train", train=split(101, 7)) != known


def test_a_slow_network_is_calibrated_on_fewer_clips_but_on_some_and_always_the_same():
    counts = [len(conversion.calibration_clips(split(300, 0), 8, macs)) for macs in (10**6, 10**10, 10**13)]
    assert counts == [conversion.CALIBRATION_CLIPS, 40, conversion.FEWEST_CLIPS]
    first, second = (conversion.calibration_clips(split(300, 0), 8, 10**10) for _ in range(2))
    assert np.array_equal(first, second) and first.shape[1:] == (8, 41, 41)


@pytest.mark.parametrize("precision", CONVERTED)
@pytest.mark.parametrize("network", NETWORKS)
def test_an_untrained_network_has_the_graph_of_the_trained_one(network, precision, trained, data, tmp_path):
    draft = export_untrained(NETWORKS[network], tmp_path / "draft.onnx", precision=precision)
    again = export_untrained(NETWORKS[network], tmp_path / "again.onnx", precision=precision)
    assert draft["model_sha256"] == again["model_sha256"]
    record = candidate(network, precision, trained, data, tmp_path / "model.onnx")
    assert draft["operators"] == record["operators"] and draft["status"] == "ok"

    def runs(path):
        # What onnxruntime makes of it is what takes the time.
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path.with_suffix(".optimised"))
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return sorted(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)

    assert runs(tmp_path / "draft.onnx") == runs(tmp_path / "model.onnx")


def test_a_network_that_is_measured_for_latency_only_has_no_quality_and_needs_no_data(tmp_path):
    model = registry.build(NETWORKS["conv2d"])
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    record = export_candidate(
        genotype("conv2d", "int8"), {"status": "ok", "trained": False, "macs": 10**6}, tmp_path / "weights.pt",
        tmp_path / "model.onnx", parity_clips=VALIDATION.clips[:5], data=tmp_path / "nowhere",
    )  # fmt: skip
    assert record["status"] == "ok" and "val_rmse" not in record


@pytest.mark.parametrize("broken", ["quantize_static", "quant_pre_process"])
def test_what_the_quantiser_cannot_do_is_a_failed_record(broken, trained, data, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise KeyError("an operator that nobody thought of")

    monkeypatch.setattr(f"onnxruntime.quantization.{broken}", refuse)
    record = candidate("conv2d", "int8", trained, data, tmp_path / "model.onnx")
    assert record["status"] == "failed"
    assert record["reason"] == "the network cannot be had in int8: 'an operator that nobody thought of'"
    assert not list(tmp_path.iterdir())  # the network in fp32 is not left there in its place
    drafted = export_untrained(NETWORKS["conv2d"], tmp_path / "draft.onnx", precision="int8")
    assert drafted["reason"] == record["reason"] and not list(tmp_path.iterdir())


def test_a_full_disk_is_no_failure_of_the_network(trained, data, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("onnxruntime.quantization.quantize_static", full)
    with pytest.raises(OSError, match="No space left"):
        candidate("conv2d", "int8", trained, data, tmp_path / "model.onnx")


def test_values_beyond_fp16_are_a_failed_record(trained, data, tmp_path, monkeypatch):
    def overflow(graph, _):
        for entry in graph.graph.initializer:
            if entry.data_type == onnx.TensorProto.FLOAT:
                array = numpy_helper.to_array(entry)
                entry.CopyFrom(numpy_helper.from_array(np.full_like(array, np.inf), entry.name))
        return graph

    monkeypatch.setitem(conversion._CONVERTERS, "fp16", overflow)
    record = candidate("conv2d", "fp16", trained, data, tmp_path / "model.onnx")
    assert record["status"] == "failed" and "values in fp16 that are not finite" in record["reason"]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="no precision 'int4' to convert to; expected fp16 or int8"):
        conversion.convert(onnx.ModelProto(), "int4", None)


def test_the_quality_of_what_is_deployed_is_that_of_the_file_where_it_has_one():
    train = {"status": "ok", "val_rmse": 0.1, "val_rmse_power_w": 21.5, "parameters": 7}
    assert deployed(train, {"status": "ok", "bytes": 1}) == train
    found = deployed(train, {"status": "ok", "val_rmse": 0.2, "val_rmse_power_w": 43.0, "outputs": []})
    assert found == train | {"val_rmse": 0.2, "val_rmse_power_w": 43.0}


def test_a_device_is_compared_with_the_file_and_pytorch_stands_beside_it():
    targets = np.array([[1.0, 1.0], [0.5, 1.5]])
    figures = parity.compare(targets + 0.1, targets + 0.11, targets, pytorch=targets)
    assert figures["parity_max_abs_difference"] == pytest.approx(0.01)
    assert figures["pytorch_max_abs_difference"] == pytest.approx(0.1) and figures["rmse_pytorch"] == 0
    assert "pytorch_max_abs_difference" not in parity.compare(targets, targets, targets)


def test_every_precision_has_a_tolerance_and_stands_in_the_schemas():
    schemas = Path(__file__).parents[2] / "workflow/schemas"
    config = yaml.safe_load((schemas / "config.schema.yaml").read_text())
    candidate = yaml.safe_load((schemas / "candidate.schema.yaml").read_text())
    assert tuple(candidate["$defs"]["precision"]["enum"]) == PRECISIONS
    assert tuple(config["$defs"]["baseline"]["properties"]["precision"]["enum"]) == PRECISIONS
    defaults = {key: part["default"] for key, part in config["properties"]["parity"]["properties"].items()}
    assert tuple(tolerances(defaults)) == PRECISIONS
