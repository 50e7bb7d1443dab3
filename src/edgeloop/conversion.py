"""From a network in fp32, as ONNX, to the same in fp16 or int8."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from edgeloop.data.cache import Split, batches
from edgeloop.models.preprocess import CLIP_PIXELS

CALIBRATION_CLIPS, FEWEST_CLIPS = 256, 16
MAX_GMAC = 400
"""A slow network is calibrated on fewer clips: 400 GMAC take a core about ten seconds."""
AT_ONCE = 16
FEW_WEIGHTS = 64
QUANTISED = ("Conv", "Gemm", "MatMul", "Relu", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""What computes with weights, and what can pass bytes on as they are."""


class ConversionError(ValueError):
    """A network that cannot be had in another precision."""


def calibration_clips(train: Split, frames: int, macs: int) -> np.ndarray:
    """Clips of the training split, uint8 [n, frames, 41, 41], the same for all networks of `macs` multiply-accumulates.

    They are among those that `training.clips` leaves of the split, unless it leaves fewer.
    """
    count = int(min(CALIBRATION_CLIPS, max(FEWEST_CLIPS, MAX_GMAC * 1e9 // macs)))
    return next(batches(train, count, rng=None, frames=frames, limit=count))[0]


def noise(frames: int) -> np.ndarray:
    """The same clips every time, uint8 [2, frames, 41, 41]."""
    shape = (2, frames, CLIP_PIXELS, CLIP_PIXELS)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def parts(clips: np.ndarray) -> Iterator[np.ndarray]:
    """`clips`, a few at a time."""
    for start in range(0, len(clips), AT_ONCE):
        yield np.ascontiguousarray(clips[start : start + AT_ONCE])


def convert(graph: onnx.ModelProto, precision: str, calibration: np.ndarray | None) -> onnx.ModelProto:
    """`graph`, which computes in fp32, in another precision; input and output stay as they are.

    `calibration` is uint8 [n, frames, 41, 41], from which int8 takes the ranges of what the layers put out; None for
    noise, which is enough for a network without weights of its own, whose graph is all that counts. The same arguments
    give the same bytes. Raises ConversionError for what the converter cannot do.
    """
    if precision not in _CONVERTERS:
        raise ValueError(f"there is no precision {precision!r} to convert to; expected {' or '.join(_CONVERTERS)}")
    try:
        return _CONVERTERS[precision](graph, calibration)
    except (OSError, MemoryError):
        raise  # of this machine, not of the network
    except Exception as error:  # whatever a converter raises on a graph that it was not written for
        told = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ConversionError(told) from error


def _to_fp16(graph: onnx.ModelProto, calibration: np.ndarray | None) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    # Counts and their square roots, up to 255, have room in fp16. Resize and the like stay in fp32, between casts.
    return convert_float_to_float16(copy, keep_io_types=True)


def _to_int8(graph: onnx.ModelProto, calibration: np.ndarray | None) -> onnx.ModelProto:
    from onnxruntime import quantization

    (taken,) = graph.graph.input
    if calibration is None:
        calibration = noise(taken.type.tensor_type.shape.dim[1].dim_value)
    name = taken.name

    class Clips(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.parts = parts(calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {name: part}

    with tempfile.TemporaryDirectory(prefix="edgeloop-int8-") as folder:
        plain, prepared, made = (Path(folder) / f"{name}.onnx" for name in ("fp32", "prepared", "int8"))
        onnx.save_model(_each_with_its_own_weights(graph), plain)
        # Without onnxruntime's optimisation, which is done where the network runs: it would write the masks of a Swin
        # transformer into the file.
        quantization.quant_pre_process(plain, prepared, skip_symbolic_shape=True, skip_optimization=True)
        quantization.quantize_static(
            prepared,
            made,
            Clips(),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=_left_in_float(graph.graph),
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return onnx.load(made)


def _each_with_its_own_weights(graph: onnx.ModelProto) -> onnx.ModelProto:
    """`graph`, in which no two products have the same weights: quantised ones onnxruntime 1.31 refuses to load, with
    "Attempt to replace the existing tensor"."""
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    weights, taken = {entry.name: entry for entry in copy.graph.initializer}, set()
    for node in copy.graph.node:
        for place, name in enumerate(node.input):
            if node.op_type in ("Gemm", "MatMul") and name in weights and name in taken:
                own = copy.graph.initializer.add()
                own.CopyFrom(weights[name])
                own.name = node.input[place] = f"{name}_of_{node.output[0]}"
            taken.add(name)
    return copy


def _left_in_float(graph: onnx.GraphProto) -> list[str]:
    """The last layer, whose outputs could otherwise not leave the range of the clips; products of two activations;
    those whose weights are on the left, which onnxruntime has no kernel for where each channel has its own scale; those
    with FEW_WEIGHTS, where the conversions take longer than the product; and what mixes the frames of each pixel
    (`edgeloop.models.moments.mixed`): a texture's differences are less than a step of eight bits.

    With both products of attention quantised, outputs of onnxruntime 1.31 differ by up to 0.08 from those of the same
    file without its optimisation; with either in float they do not. Presumably it fuses the softmax in between.
    """
    shapes, (given,) = {entry.name: entry.dims for entry in graph.initializer}, graph.output

    def in_float(node: onnx.NodeProto) -> bool:
        if node.op_type == "Conv":
            return list(shapes[node.input[1]][2:]) == [1]
        return node.op_type in ("Gemm", "MatMul") and math.prod(shapes.get(node.input[1], (0,))) < FEW_WEIGHTS

    return [node.name for node in graph.node if given.name in node.output or in_float(node)]


_CONVERTERS = {"fp16": _to_fp16, "int8": _to_int8}
