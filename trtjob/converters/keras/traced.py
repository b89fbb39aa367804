"""TensorFlow's own graph of a function, by tf2onnx, made the same whatever ran before it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, numpy_helper

from trtjob.converters.artefact import OPSET
from trtjob.converters.keras import packages
from trtjob.converters.keras.messages import last_line
from trtjob.converters.keras.network import Network, Value
from trtjob.converters.request import ConversionRequest
from trtjob.errors import ConversionError, MissingDependencyError

_INPUT = "image"


def trace(net: Network, function: Callable[[Any], Any], image: Value, request: ConversionRequest) -> Value:
    """Append the graph of a function from float32 [N, H, W, channels] to [N, classes] and return its output.

    Raises ConversionError where it holds what ONNX has not.
    """
    tensorflow, tf2onnx = packages.tensorflow(), packages.tf2onnx()
    signature = [tensorflow.TensorSpec([None, *image.shape], tensorflow.float32, name=_INPUT)]
    try:
        with packages.quiet():
            whole = _with_its_constants(tensorflow.function(function), signature)
            model, _ = tf2onnx.convert.from_function(whole, signature, opset=OPSET, inputs_as_nchw=[f"{_INPUT}:0"])
    except MissingDependencyError:
        raise
    except Exception as err:  # tf2onnx and TensorFlow raise errors of many kinds
        raise ConversionError(f"'{request.model}': its graph cannot be converted to ONNX: {last_line(err)}") from err
    return _appended(net, model, image, request)


def _with_its_constants(function: Any, signature: list[Any]) -> Any:
    """Return a function that holds the tensors that it captured; tf2onnx would take each for one more input."""
    tensorflow = packages.tensorflow()
    concrete = function.get_concrete_function(*signature)
    if all(captured.dtype == tensorflow.resource for captured in concrete.captured_inputs):
        return function
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(concrete)
    return tensorflow.function(lambda image: frozen(image)[0])


def _appended(net: Network, model: ModelProto, image: Value, request: ConversionRequest) -> Value:
    graph = model.graph
    if len(graph.output) != 1 or len(graph.input) != 1:
        raise ConversionError(f"'{request.model}' has {len(graph.output)} outputs: expected one. Use --output NAME")
    shape = [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    names = {graph.input[0].name: image.name, "": ""}
    for node in _in_order(graph, request):
        net.graph.scope = f"{net.count:03d}_{node.op_type.lower()}"
        net.count += 1
        for name in node.input:
            if name not in names:
                names[name] = net.graph.constant(numpy_helper.to_array(constants[name]), "weights")
        copy = NodeProto()
        copy.CopyFrom(node)
        fresh = [f"{net.graph.scope}/{index}" for index in range(len(node.output))]
        names.update(zip(node.output, fresh, strict=True))
        copy.name, copy.doc_string = net.graph.scope, ""
        copy.input[:], copy.output[:] = [names[name] for name in node.input], fresh
        net.graph.nodes.append(copy)
    return Value(names[graph.output[0].name], tuple(shape[1:]))


def _in_order(graph: GraphProto, request: ConversionRequest) -> list[NodeProto]:
    """Return the nodes in an order that depends on nothing but what they compute from what."""
    makers = {name: node for node in graph.node for name in node.output}
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    ordered: list[NodeProto] = []
    pending = [graph.output[0].name]
    while pending:
        if pending[-1] in known:
            pending.pop()
            continue
        node = makers[pending[-1]]
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ConversionError(
                f"'{request.model}': a graph with loops or branches ({node.op_type}) is not supported"
            )
        if missing := [name for name in node.input if name not in known]:
            pending.extend(reversed(missing))
            continue
        known.update(node.output)
        ordered.append(node)
    return ordered


def float_array(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return what TensorFlow gives as NumPy has it."""
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value, np.float32)
