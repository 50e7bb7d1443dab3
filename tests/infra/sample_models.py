"""Models for tests on devices."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.reference import reference_model


def make_model(path: Path, note: str = "a model") -> Path:
    """uint8 [1, 16, 41, 41] to float32 [1, 2]: the reference, as a file of its own by its `note`."""
    model = onnx.load_from_string(reference_model())
    model.doc_string = note
    onnx.save(model, path)
    return path


def big_model(path: Path, megabytes: float, seed: int = 0) -> Path:
    """float32 [1] to float32 [megabytes / 4 million]: so large a file that sending it takes a while."""
    values = np.random.default_rng(seed).standard_normal(round(megabytes * 250_000)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "weights"], ["y"])],
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [len(values)])],
        [numpy_helper.from_array(values, "weights")],
    )
    onnx.save(helper.make_model(graph, ir_version=7, opset_imports=[helper.make_opsetid("", 13)]), path)
    return path


def refused_model(path: Path) -> Path:
    """A model with an operator that no runtime has."""
    graph = helper.make_graph(
        [helper.make_node("Teleport", ["x"], ["y"], domain="nowhere")],
        path.stem,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("nowhere", 1)]
    onnx.save(helper.make_model(graph, ir_version=7, opset_imports=opsets), path)
    return path
