"""Operators between tensors, of Keras and of TensorFlow: what `x / 127.5 - 1` or `x[..., ::-1]` leaves in a model."""

import inspect
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from trtjob.converters.keras.activations import Activation, softmax
from trtjob.converters.keras.functions import short_name
from trtjob.converters.keras.layers.merge import joined
from trtjob.converters.keras.network import Network, Translate, UntranslatableError, Value, expect

Operand = Value | float | list[Any]


def operator(op: str) -> Translate:
    """Return the translation of an operator between two tensors, or a tensor and numbers."""

    def translate(net: Network, _layer: Any, x: Operand, y: Operand) -> Value:
        return binary(net, op, x, y)

    return translate


def binary(net: Network, op: str, x: Operand, y: Operand) -> Value:
    """Append an operator of two; one of them at least is a value of the graph."""
    like = next(operand for operand in (x, y) if isinstance(operand, Value))
    (first, first_shape), (second, second_shape) = (_operand(net, operand, like) for operand in (x, y))
    try:
        shape = np.broadcast_shapes(first_shape, second_shape)
    except ValueError as err:
        raise UntranslatableError(f"its inputs do not fit: {err}") from err
    return Value(net.graph.add(op, first, second), shape)


def _operand(net: Network, operand: Operand, like: Value) -> tuple[str, tuple[int, ...]]:
    """Return the name of an operand in the graph, and its shape for one image."""
    rank = len(like.shape)
    if isinstance(operand, Value):
        expect(len(operand.shape) == rank, "its inputs differ in their number of axes")
        return net.settled(operand).name, operand.shape
    array = _numbers(operand)
    return net.like(like, array), array.shape[-rank:]


def get_item(net: Network, _layer: Any, x: Value, key: Any) -> Value:
    """Choose channels, one or several, in any order."""
    parts = list(key) if isinstance(key, list | tuple) else [key]
    *others, last = parts if parts[0] is not Ellipsis else [slice(None)] * len(x.shape) + parts[1:]
    expect(len(others) == len(x.shape) and all(part == slice(None) for part in others), "it cuts more than channels")
    expect(isinstance(last, int | slice), "what it chooses is worked out")
    chosen = np.arange(x.shape[-1], dtype=np.int64)[last]
    expect(chosen.size > 0 and len(x.shape) > 1, "it leaves nothing")
    y = net.add("Gather", x, net.graph.constant(chosen, "channels"), axis=x.channel_axis)
    if chosen.ndim == 0:
        return Value(net.graph.add("Squeeze", y.name, net.graph.integers(x.channel_axis)), x.shape[:-1])
    return Value(y.name, (*x.shape[:-1], len(chosen)))


def stacked(net: Network, inputs: list[Value], axis: int) -> Value:
    """Make one tensor of several, its channels."""
    expect(axis in {-1, len(inputs[0].shape) + 1}, "its axis is not the last")
    shape = (*inputs[0].shape, len(inputs))
    channel_axis = Value("", shape).channel_axis
    axes = net.graph.integers(channel_axis)
    names = [net.graph.add("Unsqueeze", net.settled(x).name, axes) for x in inputs]
    return Value(net.graph.add("Concat", *names, axis=channel_axis), shape)


def stack(net: Network, layer: Any, inputs: list[Value]) -> Value:
    """Keras's Stack."""
    return stacked(net, inputs, layer.axis)


def cast(_net: Network, layer: Any, x: Value) -> Value:
    """Keras's Cast."""
    return _as_float32(x, layer.dtype)


def unary(activation: Activation) -> Translate:
    """Return the translation of an operator that an activation is, too."""
    return lambda net, _layer, x: activation(net, x)


def tensorflow_function(net: Network, layer: Any, *args: Any, **kwargs: Any) -> Value:
    """A function of TensorFlow."""
    translation = _FUNCTIONS.get(short_name(layer.function))
    if translation is None:
        raise UntranslatableError(f"the function tf.{layer.function} is not translated")
    kwargs.pop("name", None)
    try:
        inspect.signature(translation).bind(net, *args, **kwargs)
    except TypeError as err:
        raise UntranslatableError(f"tf.{layer.function} is called in another way: {err}") from err
    return translation(net, *args, **kwargs)


def _numbers(operand: Any) -> Any:
    array = np.asarray(operand.numpy() if hasattr(operand, "numpy") else operand)
    expect(array.dtype.kind in "fiub", "it is given something that is no number")
    return array.astype(np.float32)


def _as_float32(x: Value, dtype: Any) -> Value:
    expect(getattr(dtype, "name", dtype) == "float32", f"it makes {dtype} of its input")
    return x


def _of_two(op: str) -> Callable[..., Value]:
    return lambda net, x, y: binary(net, op, x, y)


def _of_one(activation: Activation) -> Callable[..., Value]:
    return lambda net, x: activation(net, x)


def _bias_add(net: Network, value: Value, bias: Operand, data_format: Any = None) -> Value:
    expect(data_format in {None, "NHWC"}, f"its data_format is {data_format}")
    return binary(net, "Add", value, bias)


def _get_item(net: Network, tensor: Value, slice_spec: Any) -> Value:
    return get_item(net, None, tensor, slice_spec)


def _stack(net: Network, values: list[Value], axis: int = 0) -> Value:
    return stacked(net, values, axis)


def _cast(_net: Network, x: Value, dtype: Any) -> Value:
    return _as_float32(x, dtype)


def _softmax(net: Network, logits: Value, axis: int | None = None) -> Value:
    expect(axis in {None, -1, len(logits.shape)}, "its axis is not the last")
    return softmax(net, logits)


def _clip(net: Network, t: Value, clip_value_min: float, clip_value_max: float) -> Value:
    return net.add("Clip", t, net.number(clip_value_min), net.number(clip_value_max))


def _add_n(net: Network, inputs: list[Value]) -> Value:
    return reduce(lambda a, b: binary(net, "Add", a, b), inputs)


OPERATORS = {"add": "Add", "divide": "Div", "maximum": "Max", "minimum": "Min", "multiply": "Mul", "subtract": "Sub"}
OPERATORS |= {"truediv": "Div", "true_divide": "Div"}

_FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{name: _of_two(op) for name, op in OPERATORS.items()},
    "__operators__.add": _of_two("Add"),
    "__operators__.getitem": _get_item,
    "add_n": _add_n,
    "bias_add": _bias_add,
    "cast": _cast,
    "clip_by_value": _clip,
    "concat": lambda net, values, axis: joined(net, values, axis),
    "identity": lambda _net, input: input,
    "relu": lambda net, features: net.add("Relu", features),
    "relu6": lambda net, features: net.add("Clip", features, net.number(0), net.number(6)),
    "sigmoid": _of_one(lambda net, x: net.add("Sigmoid", x)),
    "softmax": _softmax,
    "stack": _stack,
    "tanh": _of_one(lambda net, x: net.add("Tanh", x)),
}
