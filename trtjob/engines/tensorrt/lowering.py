"""Rewrite a graph for the parser of TensorRT 8.6, which takes every opset for one that it knows, without a word.

That parser ends at opset 17. Of a later graph it reads each node by the old rules: the axes of a ReduceMax, which opset
18 made an input, it does not see, and reduces over all of them. So such a graph is brought down to opset 17, node by
node: what means the same there stays, what can be said in the old way is said so, and the rest is refused by name.

Only a copy for the builder is rewritten, models stay as they are.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

from trtjob.engines.graph_walk import external_locations, inner_graphs
from trtjob.engines.tensorrt.int8_activations import free_activations
from trtjob.engines.tensorrt.int8_weights import with_float_weights
from trtjob.engines.tensorrt.opset17 import NEWEST, OPSET, CannotLowerError, Lowering, lower_node
from trtjob.errors import EngineError

_IR_VERSION = 8  # that goes with opset 17

# Types of values that TensorRT 8.6 has none of.
_UNKNOWN_TYPES = {
    TensorProto.BFLOAT16: "bf16",
    **{
        kind: name.lower()
        for name, kind in TensorProto.DataType.items()
        if name.startswith(("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2"))
    },
}

# Types of constants that can be axes, pads, sizes or scales.
_NUMBERS = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT})


@contextmanager
def lowered(model: Path) -> Iterator[Path]:
    """Give a file that TensorRT 8.6 reads as the model is meant: the model itself, or a copy for the block's length.

    Raises EngineError that names the node for which there is none.
    """
    proto = onnx.load(model, load_external_data=False)  # the weights beside it may be gigabytes, and stay there
    if not lower(proto, model.name):
        yield model
        return
    with TemporaryDirectory(prefix="trtjob-lowered-") as folder:
        for location in set(external_locations(proto.graph)):
            _link(model, location, Path(folder))
        path = Path(folder) / model.name
        path.write_bytes(proto.SerializeToString())
        del proto
        yield path


def lower(model: ModelProto, name: str) -> bool:
    """Bring a model to opset 17, and its int8 into the form that 8.6 takes, in place. Returns whether anything changed.

    name: of the model, for messages. Raises EngineError.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), OPSET)
    _expect_types(model.graph, name)
    is_other_int8 = free_activations(model.graph) | with_float_weights(model.graph, name)
    if opset <= OPSET:
        return is_other_int8
    if opset > NEWEST:
        raise EngineError(f"'{name}' is of ONNX opset {opset}: TensorRT 8.6 can be given models of up to {NEWEST}")
    if model.functions:
        raise _refusal(f"'{name}' has functions of its own ('{model.functions[0].name}')")
    try:
        _lower_graph(Lowering.of(model), model.graph, opset, {})
    except CannotLowerError as err:
        raise _refusal(f"'{name}', {err}") from err
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = OPSET
    model.ir_version = min(model.ir_version, _IR_VERSION)
    return True


def _refusal(what: str) -> EngineError:
    return EngineError(
        f"TensorRT 8.6 would misread {what}. Use TensorRT 10 or later where the GPU allows it, or --engine cuda"
    )


def _lower_graph(lowering: Lowering, graph: GraphProto, opset: int, outer: Mapping[str, NDArray[Any]]) -> None:
    """Lower a graph and those inside its nodes. outer: constants of the graphs around it."""
    known = {**outer, **_constants_of(graph)}
    nodes = []
    lowering.constants = known
    for node in graph.node:
        for inner in inner_graphs(node):
            own, lowering.added = lowering.added, []
            _lower_graph(lowering, inner, opset, known)
            lowering.added, lowering.constants = own, known
        nodes += lower_node(lowering, node, opset)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(lowering.added)
    lowering.added = []


def node_at(path: Path, index: int) -> str:
    """Return which node of a model is the one of a number, from 0: its name and operator; empty where there is none."""
    nodes = onnx.load(path, load_external_data=False).graph.node
    if not 0 <= index < len(nodes):
        return ""
    return f"'{nodes[index].name or nodes[index].output[0]}' ({nodes[index].op_type})"


def float_values(path: Path) -> frozenset[str] | None:
    """Return the names of what a model computes in float32 from what is no half either; None where nothing is half.

    Of a weakly typed network TensorRT 8.6 does not know: each value has float32 there, also what a cast to half gives.
    """
    graph = onnx.shape_inference.infer_shapes(onnx.load(path, load_external_data=False)).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kinds[value.name] = value.type.tensor_type.elem_type
    if TensorProto.FLOAT16 not in kinds.values():
        return None
    return frozenset(
        name
        for node in graph.node
        if node.op_type not in ("Cast", "Constant", "QuantizeLinear", "DequantizeLinear")
        and not any(kinds.get(name) == TensorProto.FLOAT16 for name in (*node.input, *node.output))
        for name in node.output
        if kinds.get(name) == TensorProto.FLOAT
    )


# -- what is in a graph ------------------------------------------------------------------------------------------------


def _constants_of(graph: GraphProto) -> dict[str, NDArray[Any]]:
    """Return the constants of a graph that can be axes, pads, sizes or scales, but for those in other files."""
    found = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in graph.initializer
        if len(tensor.dims) <= 1 and not _is_external(tensor) and tensor.data_type in _NUMBERS
    }
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if (value := _constant_value(attribute)) is not None:
                    found[node.output[0]] = value
    return found


def _constant_value(attribute: AttributeProto) -> NDArray[Any] | None:
    if attribute.name == "value" and not _is_external(attribute.t):
        return numpy_helper.to_array(attribute.t)
    if attribute.name in ("value_int", "value_ints"):
        return np.array(helper.get_attribute_value(attribute), np.int64)
    if attribute.name in ("value_float", "value_floats"):
        return np.array(helper.get_attribute_value(attribute), np.float32)
    return None


def _expect_types(graph: GraphProto, name: str) -> None:
    """Raise EngineError where a graph computes in a type that TensorRT 8.6 does not have."""
    for tensor in graph.initializer:
        _expect_type(tensor.data_type, f"constant '{tensor.name}'", name)
    for value in (*graph.input, *graph.output):
        _expect_type(value.type.tensor_type.elem_type, f"'{value.name}'", name)
    for node in graph.node:
        if node.op_type == "Cast":
            kind = next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)
            _expect_type(kind, f"node '{node.name or node.output[0]}'", name)
        for attribute in node.attribute:
            _expect_type(attribute.t.data_type, f"node '{node.name}'", name)
        for inner in inner_graphs(node):
            _expect_types(inner, name)


def _expect_type(kind: int, where: str, name: str) -> None:
    if kind in _UNKNOWN_TYPES:
        shown = _UNKNOWN_TYPES[kind]
        raise EngineError(
            f"'{name}' computes in {shown} ({where}), which TensorRT has from version 10 on. "
            "Convert the model with --precision fp16, or int8"
        )


def _is_external(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL


def _link(model: Path, location: str, folder: Path) -> None:
    """Have a file beside the model found beside its copy, too."""
    home, data = model.parent.resolve(), (model.parent / location).resolve()
    if not data.is_relative_to(home) or not (folder / location).resolve().is_relative_to(folder.resolve()):
        raise EngineError(f"'{model.name}' keeps constants in '{location}', outside its folder. Convert it again")
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).symlink_to(data)
