"""A graph in half as TensorRT's fastest kernels compute it: sums are rounded to half while they grow.

Tensor cores add the products of 16 numbers to a sum that is a half, so a long sum is rounded hundreds of times, where
ONNX Runtime rounds it once. Of a VGG16 that moves the classes' logits by a third of their spread.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from trtjob.engines.graph_walk import values_read

_MOST = 16  # numbers, or channels of a convolution, that are added without rounding


def round_sums(graph: GraphProto) -> bool:
    """Have the sums of convolutions and dense layers in half, whose weights are constants, rounded while they grow, in
    place. Returns whether there are any. For a batch of one image.
    """
    halves = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    nodes: list[NodeProto] = []
    replaced = set()
    for node in graph.node:
        weights = halves.get(node.input[1]) if len(node.input) > 1 else None
        made = None if weights is None else _in_pieces(graph, node, numpy_helper.to_array(weights))
        nodes += [node] if made is None else made
        if made is not None:
            replaced.add(node.input[1])
    if not replaced:
        return False
    replaced -= {name for node in nodes for name in values_read(node)}
    constants = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    return True


def _in_pieces(graph: GraphProto, node: NodeProto, weights: NDArray[np.float16]) -> list[NodeProto] | None:
    options = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Conv" and options.get("group", 1) == 1:
        return _convolution(graph, node, weights, options)
    if node.op_type == "MatMul" and weights.ndim == 2:
        return _product(graph, node, weights)
    if node.op_type == "Gemm" and not options.get("transA"):
        is_plain = options.get("alpha", 1.0) == options.get("beta", 1.0) == 1.0
        return _product(graph, node, weights.T if options.get("transB") else weights) if is_plain else None
    return None


def _convolution(
    graph: GraphProto, node: NodeProto, weights: NDArray[np.float16], options: dict[str, Any]
) -> list[NodeProto] | None:
    """Convolve groups of channels, all of them with all that is made of them: [1, pieces x outputs, ...]."""
    outputs, channels, *kernel = weights.shape
    pieces = _pieces(channels)
    if pieces == 1:
        return None
    grouped = weights.reshape(outputs, pieces, -1, *kernel).swapaxes(0, 1).reshape(pieces * outputs, -1, *kernel)
    name = node.output[0]
    shape = [pieces, outputs] + [0] * len(kernel)
    return [
        _cast(node.input[0], f"{name}/wide", TensorProto.FLOAT),
        helper.make_node(
            "Conv",
            [f"{name}/wide", _constant(graph, f"{name}/grouped", grouped.astype(np.float32))],
            [f"{name}/groups"],
            **options | {"group": pieces},
        ),
        helper.make_node(
            "Reshape", [f"{name}/groups", _constant(graph, f"{name}/shape", np.array(shape))], [f"{name}/pieces"]
        ),
        *_added(graph, name, f"{name}/pieces"),
        helper.make_node(
            "Unsqueeze", [f"{name}/sum", _constant(graph, f"{name}/first", np.array([0]))], [f"{name}/row"]
        ),
        *_with_bias(graph, node, [1, outputs] + [1] * len(kernel)),
    ]


def _product(graph: GraphProto, node: NodeProto, weights: NDArray[np.float16]) -> list[NodeProto] | None:
    """Multiply pieces of rows, [pieces, rows, numbers], with pieces of the weights."""
    numbers, outputs = weights.shape
    pieces = _pieces(numbers)
    if pieces == 1:
        return None
    name = node.output[0]
    shape = _constant(graph, f"{name}/shape", np.array([-1, pieces, numbers // pieces]))
    ends = [_constant(graph, f"{name}/{at}", np.array([end])) for at, end in (("begin", 0), ("last", -1))]
    stacked = _constant(graph, f"{name}/stacked", weights.reshape(pieces, -1, outputs).astype(np.float32))
    return [
        helper.make_node("Shape", [node.input[0]], [f"{name}/all"]),
        helper.make_node("Slice", [f"{name}/all", *ends], [f"{name}/outer"]),
        helper.make_node(
            "Concat",
            [f"{name}/outer", _constant(graph, f"{name}/outputs", np.array([outputs]))],
            [f"{name}/end"],
            axis=0,
        ),
        helper.make_node("Reshape", [node.input[0], shape], [f"{name}/rows"]),
        helper.make_node("Transpose", [f"{name}/rows"], [f"{name}/turned"], perm=[1, 0, 2]),
        _cast(f"{name}/turned", f"{name}/wide", TensorProto.FLOAT),
        helper.make_node("MatMul", [f"{name}/wide", stacked], [f"{name}/pieces"]),
        *_added(graph, name, f"{name}/pieces"),
        helper.make_node("Reshape", [f"{name}/sum", f"{name}/end"], [f"{name}/row"]),
        *_with_bias(graph, node),
    ]


def _pieces(count: int) -> int:
    return count // next(each for each in range(_MOST, 0, -1) if count % each == 0)


def _added(graph: GraphProto, name: str, pieces: str) -> Iterator[NodeProto]:
    """Add pieces along the first axis to `name`/sum, which is a half after each of them."""
    kinds = (("before", TensorProto.FLOAT16), ("piece", TensorProto.FLOAT))
    body = helper.make_graph(
        [
            _cast("before", "before_wide", TensorProto.FLOAT),
            helper.make_node("Add", ["before_wide", "piece"], ["after_wide"]),
            _cast("after_wide", "after", TensorProto.FLOAT16),
        ],
        "add",
        [helper.make_tensor_value_info(each, kind, None) for each, kind in kinds],
        [helper.make_tensor_value_info("after", TensorProto.FLOAT16, None)],
    )
    zero = numpy_helper.from_array(np.zeros(1, np.float16))
    first = _constant(graph, f"{name}/one", np.array(0))
    yield helper.make_node("Gather", [pieces, first], [f"{name}/piece"], axis=0)
    yield helper.make_node("Shape", [f"{name}/piece"], [f"{name}/of_sum"])
    yield helper.make_node("ConstantOfShape", [f"{name}/of_sum"], [f"{name}/zeros"], value=zero)
    yield helper.make_node("Scan", [f"{name}/zeros", pieces], [f"{name}/sum"], body=body, num_scan_inputs=1)


def _with_bias(graph: GraphProto, node: NodeProto, shape: list[int] | None = None) -> Iterator[NodeProto]:
    """Add a layer's bias, where it has one, to its rows; shape: that it needs, None for its own."""
    (output,) = node.output
    row = f"{output}/row"
    if len(node.input) < 3 or not node.input[2]:
        yield helper.make_node("Identity", [row], [output])
        return
    bias = node.input[2]
    if shape is not None:
        wanted = _constant(graph, f"{output}/bias_shape", np.array(shape))
        yield helper.make_node("Reshape", [bias, wanted], [bias := f"{output}/bias"])
    yield helper.make_node("Add", [row, bias], [output])


def _constant(graph: GraphProto, name: str, array: NDArray[np.generic]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
    return name


def _cast(value: str, name: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [value], [name], to=kind)
