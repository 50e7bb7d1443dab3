"""Slices of slices become one where that is the same, and nowhere else."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeloop import slices

X = np.arange(5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)


def graph(*steps, more_outputs=()):
    """A graph that slices x by `steps`, each [(axis, start, end)], one after the other: s0, s1, ..."""
    nodes, tensors, name = [], [], "x"
    for number, parts in enumerate(steps):
        bounds = {"axes": [p[0] for p in parts], "starts": [p[1] for p in parts], "ends": [p[2] for p in parts]}
        bounds["steps"] = [1] * len(parts)
        for bound, values in bounds.items():
            tensors.append(numpy_helper.from_array(np.array(values, dtype=np.int64), f"{bound}{number}"))
        inputs = [name, *(f"{bound}{number}" for bound in slices.BOUNDS)]
        name = f"s{number}"
        nodes.append(helper.make_node("Slice", inputs, [name]))
    outputs = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [None] * 3) for each in (name, *more_outputs)]
    taken = helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)
    made = helper.make_graph(nodes, "slices", [taken], outputs, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def results(model):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})


@pytest.mark.parametrize(
    ("steps", "more_outputs", "left"),
    [
        ([[(1, 1, 5)], [(2, 2, 6)]], (), 1),
        ([[(1, 1, 5)], [(0, 0, -1)], [(2, 0, 1)]], (), 1),
        ([[(0, 1, 3), (1, 0, 2)], [(2, 2, 6)]], (), 1),
        # The second one's numbers count from where the first one starts.
        ([[(1, 1, 5)], [(1, 1, 3)]], (), 2),
        ([[(1, 1, 5)], [(-2, 1, 3)]], (), 2),
        # Somebody reads what is in between.
        ([[(1, 1, 5)], [(2, 2, 6)]], ("s0",), 2),
    ],
)
def test_slices_of_slices_are_merged_where_that_is_the_same(steps, more_outputs, left):
    model = graph(*steps, more_outputs=more_outputs)
    before = results(model)
    slices.merge(model.graph)
    assert len(model.graph.node) == left
    assert {tensor.name for tensor in model.graph.initializer} == {
        n for node in model.graph.node for n in node.input[1:]
    }
    for one, other in zip(results(model), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_slice_that_two_read_stays_for_both():
    model = graph([(1, 1, 5)], [(2, 2, 6)])
    model.graph.node.add().CopyFrom(model.graph.node[1])
    model.graph.node[2].output[0] = "twin"
    model.graph.output.append(helper.make_tensor_value_info("twin", TensorProto.FLOAT, [None] * 3))
    before = results(model)
    slices.merge(model.graph)
    assert len(model.graph.node) == 3
    np.testing.assert_array_equal(results(model), before)
