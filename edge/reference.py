"""The reference model: a small fixed network that every session times in turn with the models.

A model's time divided by the reference's, both taken within milliseconds of each other, holds still when the machine
does not.
"""

import functools
import hashlib
import itertools

import numpy as np

CHANNELS = (16, 16, 32, 64)
STRIDES = (1, 1, 2)
PIXELS = 41


def _weights(random: np.random.PCG64, *shape: int) -> np.ndarray:
    """Uniform weights with the variance 2 / fan-in (He et al. 2015), from the generator's raw bits: numpy keeps the
    stream of a bit generator for ever, but not that of its distributions."""
    count = int(np.prod(shape))
    unit = (random.random_raw(count) >> np.uint64(40)).astype(np.float64) / 2**24
    fan_in = count / shape[0]
    return ((2 * unit - 1) * np.sqrt(6 / fan_in)).astype(np.float32).reshape(shape)


@functools.cache
def reference_model() -> bytes:
    """The reference as ONNX, the same bytes every time: uint8 [1, 16, 41, 41] to float32 [1, 2], three convolutions (20
    MMAC) and a dense layer. 0.36 ms on one core of an AMD EPYC server. Opset 13, so that old runtimes on devices load
    it."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.PCG64(20250530)
    nodes = [
        helper.make_node("Cast", ["clip"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sqrt", ["float"], ["layer0"]),
    ]
    weights = []
    for i, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        weights.append(numpy_helper.from_array(_weights(random, after, before, 3, 3), f"kernel{i}"))
        inputs = [f"layer{i}", f"kernel{i}"]
        nodes.append(helper.make_node("Conv", inputs, [f"sum{i}"], strides=[STRIDES[i]] * 2, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"sum{i}"], [f"layer{i + 1}"]))
    weights.append(numpy_helper.from_array(_weights(random, 2, CHANNELS[-1]), "dense"))
    nodes += [
        helper.make_node("GlobalAveragePool", [f"layer{len(STRIDES)}"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["features"]),
        helper.make_node("Gemm", ["features", "dense"], ["target"], transB=1),
    ]
    clip = helper.make_tensor_value_info("clip", TensorProto.UINT8, [1, CHANNELS[0], PIXELS, PIXELS])
    target = helper.make_tensor_value_info("target", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(nodes, "reference", [clip], [target], weights)
    model = helper.make_model(
        graph, producer_name="edgeloop", ir_version=7, opset_imports=[helper.make_opsetid("", 13)]
    )
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


@functools.cache
def reference_sha256() -> str:
    """The sha256 of `reference_model()`: records with different references must not be compared."""
    return hashlib.sha256(reference_model()).hexdigest()
