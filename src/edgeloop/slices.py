"""One Slice where an exported graph has two: a runtime takes as long for one of many axes as for one of one."""

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

BOUNDS = ("starts", "ends", "axes", "steps")


def merge(graph: onnx.GraphProto) -> None:
    """In place: a Slice of a Slice, of other axes, becomes a single one, where nothing else reads what is in between.

    A graph with subgraphs, which may read anything, is left as it is; so are axes that are counted from the end.
    """
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return
    constants = {tensor.name: tensor for tensor in graph.initializer}
    readers = Counter(name for node in graph.node for name in node.input)
    readers.update(value.name for value in graph.output)
    slices: dict[str, onnx.NodeProto] = {}  # by what they give
    for node in list(graph.node):
        if node.op_type != "Slice" or len(node.input) != 5 or not all(name in constants for name in node.input[1:]):
            continue
        before = slices.get(node.input[0]) if readers[node.input[0]] == 1 else None
        if before is not None and _apart(_axes(before, constants), _axes(node, constants)):
            for place, bound in enumerate(BOUNDS, 1):
                both = [numpy_helper.to_array(constants[each.input[place]]) for each in (before, node)]
                tensor = numpy_helper.from_array(np.concatenate(both), f"{node.output[0]}_{bound}")
                graph.initializer.append(tensor)
                constants[tensor.name] = tensor
                node.input[place] = tensor.name
            node.input[0] = before.input[0]
            graph.node.remove(before)
        slices[node.output[0]] = node
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)


def _apart(some: set[int], others: set[int]) -> bool:
    return not some & others and min(some | others) >= 0


def _axes(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> set[int]:
    return set(numpy_helper.to_array(constants[node.input[3]]).tolist())
