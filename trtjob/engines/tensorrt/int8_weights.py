"""Write int8 weights as float32 that are quantized in the graph, which is the only form that TensorRT 8 takes.

It has no int8 constants ("invalid weights type of Int8"); later versions have. Rounding the products of integers and
steps by the same steps gives the integers back, so the graph computes the same, bit for bit.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.errors import EngineError


def with_float_weights(graph: GraphProto, name: str) -> bool:
    """Have each DequantizeLinear of constants read float32 through a QuantizeLinear, in place. Returns whether any did.

    name: of the model, for messages. Raises EngineError where weights lie beside the model or their steps are computed.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[NodeProto] = []
    for node in graph.node:
        weights = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if weights is not None and weights.data_type == TensorProto.INT8:
            nodes.append(_quantized_in_graph(graph, node, _array(constants, weights.name, node, name), constants, name))
        nodes.append(node)
    if len(nodes) == len(graph.node):
        return False
    _replace(graph, nodes)
    return True


def _quantized_in_graph(
    graph: GraphProto,
    node: NodeProto,
    integers: NDArray[np.generic],
    constants: dict[str, TensorProto],
    name: str,
) -> NodeProto:
    """Add the weights in float32, and return the node that makes integers of them; `node` then reads its result."""
    steps = _array(constants, node.input[1], node, name).astype(np.float32)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    own = node.output[0]
    graph.initializer.append(
        numpy_helper.from_array(integers.astype(np.float32) * _along(steps, axis, integers.ndim), f"{own}/float")
    )
    if len(node.input) < 3 or not node.input[2]:  # left out it would be a zero of uint8
        graph.initializer.append(numpy_helper.from_array(np.zeros(steps.shape, np.int8), f"{own}/zero"))
        node.input[2:] = [f"{own}/zero"]
    made = helper.make_node(
        "QuantizeLinear", [f"{own}/float", *node.input[1:]], [f"{own}/quantized"], f"{own}/quantized", axis=axis
    )
    node.input[0] = made.output[0]
    return made


def _array(constants: dict[str, TensorProto], wanted: str, node: NodeProto, name: str) -> NDArray[np.generic]:
    tensor = constants.get(wanted)
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        raise EngineError(
            f"'{name}', node '{node.name or node.output[0]}': its int8 weights or their steps are not in the model "
            "itself, and TensorRT 8.6 needs them in another form. Convert the model again, or use --engine cuda"
        )
    return numpy_helper.to_array(tensor)


def _along(steps: NDArray[np.float32], axis: int, rank: int) -> NDArray[np.float32]:
    """Return steps so that they multiply along an axis; one step is for all."""
    if steps.size == 1:
        return steps.reshape(())
    shape = [1] * rank
    shape[axis] = -1
    return steps.reshape(shape)


def _replace(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Put other nodes in a graph, and leave out the integers that nobody reads any more."""
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in graph.node for name in node.input}
    if any(attribute.type == AttributeProto.GRAPH for node in graph.node for attribute in node.attribute):
        return  # they may be read in there
    kept = [tensor for tensor in graph.initializer if tensor.name in read or tensor.data_type != TensorProto.INT8]
    del graph.initializer[:]
    graph.initializer.extend(kept)
