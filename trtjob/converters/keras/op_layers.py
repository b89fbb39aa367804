"""Operations of a graph inside a model, as TensorFlow 2.0 to 2.3 saved them, as the functions that later versions call.

`x / 127.5` was a TensorFlowOpLayer then: the node of a graph, and beside it those of its inputs that are constants.
"""

from dataclasses import dataclass, field
from typing import Any

OP_LAYER = "TensorFlowOpLayer"
CONSTANT = "_CONSTANT_VALUE"  # stands for a layer's name, before an argument that no layer makes
_TYPES = {"DT_FLOAT": "float32", "DT_HALF": "float16", "DT_DOUBLE": "float64"}


@dataclass(frozen=True, slots=True)
class _Function:
    """A function's name below `tf.`, the names of its arguments in the order of the node's inputs, and of attributes.

    is_list: its first argument is a list of all inputs that have no name here.
    """

    name: str
    inputs: tuple[str, ...] = ("x",)
    attributes: dict[str, str] = field(default_factory=dict)
    is_list: bool = False


def _of_two(name: str) -> _Function:
    return _Function(name, ("x", "y"))


def _reduced(name: str) -> _Function:
    return _Function(name, ("input_tensor", "axis"), {"keep_dims": "keepdims"})


_MASKS = {f"{what}_mask": f"{what}_mask" for what in ("begin", "ellipsis", "end", "new_axis", "shrink_axis")}
OPERATIONS: dict[str, _Function] = {
    "Abs": _Function("math.abs"),
    "Add": _of_two("math.add"),
    "AddV2": _of_two("math.add"),
    "BiasAdd": _Function("nn.bias_add", ("value", "bias")),
    "Cast": _Function("cast", ("x",), {"DstT": "dtype"}),
    "ConcatV2": _Function("concat", ("axis",), is_list=True),
    "Exp": _Function("math.exp"),
    "ExpandDims": _Function("expand_dims", ("input", "axis")),
    "Identity": _Function("identity", ("input",)),
    "Max": _reduced("math.reduce_max"),
    "Maximum": _of_two("math.maximum"),
    "Mean": _reduced("math.reduce_mean"),
    "Min": _reduced("math.reduce_min"),
    "Minimum": _of_two("math.minimum"),
    "Mul": _of_two("math.multiply"),
    "Neg": _Function("math.negative"),
    "Pack": _Function("stack", (), {"axis": "axis"}, is_list=True),
    "Pad": _Function("pad", ("tensor", "paddings")),
    "Pow": _of_two("math.pow"),
    "RealDiv": _of_two("math.truediv"),
    "Relu": _Function("nn.relu", ("features",)),
    "Relu6": _Function("nn.relu6", ("features",)),
    "Reshape": _Function("reshape", ("tensor", "shape")),
    "Rsqrt": _Function("math.rsqrt"),
    "Shape": _Function("shape", ("input",)),
    "Sigmoid": _Function("math.sigmoid"),
    "Softmax": _Function("nn.softmax", ("logits",)),
    "Sqrt": _Function("math.sqrt"),
    "Square": _Function("math.square"),
    "Squeeze": _Function("squeeze", ("input",), {"squeeze_dims": "axis"}),
    "StridedSlice": _Function("strided_slice", ("input_", "begin", "end", "strides"), _MASKS),
    "Sub": _of_two("math.subtract"),
    "Sum": _reduced("math.reduce_sum"),
    "Tanh": _Function("math.tanh"),
    "Transpose": _Function("transpose", ("a", "perm")),
}


def operation_of(config: Any) -> Any:
    """Return the name of the operation that a layer's settings describe."""
    return _node(config).get("op") if isinstance(config, dict) else None


def is_computation(operation: object) -> bool:
    """Tell whether an operation does nothing but compute."""
    return operation in OPERATIONS


def as_function(layer: dict[str, Any]) -> dict[str, Any]:
    """Return a layer of a model as the call of a function that later versions of Keras 2 would have written."""
    config = layer["config"]
    node = _node(config)
    function = OPERATIONS[node["op"]]
    attributes = node.get("attr", {})
    named = {ours: _value(attributes[name]) for name, ours in function.attributes.items() if name in attributes}
    constants = sorted((int(index), value) for index, value in (config.get("constants") or {}).items())
    calls = [_call(function, call, constants, named) for call in layer["inbound_nodes"]]
    fresh = {"name": layer["name"], "function": function.name}
    return layer | {"class_name": "TFOpLambda", "config": fresh, "inbound_nodes": calls}


def _call(function: _Function, call: list[Any], constants: list[tuple[int, Any]], named: dict[str, Any]) -> Any:
    inputs = [place[:3] for place in call]
    for index, value in constants:
        inputs.insert(index, [CONSTANT, -1, value])
    count = len(inputs) - len(function.inputs) if function.is_list else 1
    firsts = inputs[:count]
    names = function.inputs if function.is_list else function.inputs[1:]
    for argument, place in zip(names, inputs[count:], strict=False):
        named = named | {argument: place[2] if place[1] == -1 else place}
    firsts = [[*place, named] for place in firsts]
    return firsts if function.is_list else firsts[0]


def _node(config: dict[str, Any]) -> dict[str, Any]:
    """Return the node, which is a message as JSON, or its bytes as text."""
    node = config.get("node_def")
    if isinstance(node, dict):
        return node
    from google.protobuf.json_format import MessageToDict
    from google.protobuf.message import DecodeError
    from tensorflow.core.framework.node_def_pb2 import NodeDef

    try:
        return dict(MessageToDict(NodeDef.FromString(str(node).encode()), preserving_proto_field_name=True))
    except DecodeError:
        return {}


def _value(attribute: dict[str, Any]) -> Any:
    """Return an attribute's value. Whole numbers are texts in JSON."""
    ((kind, value),) = attribute.items()
    if kind == "list":
        return [int(number) for number in value.get("i", [])] or None
    if kind == "type":
        return _TYPES.get(value, value.removeprefix("DT_").lower())
    return int(value) if kind == "i" else value
