"""Layers with several inputs."""

from collections.abc import Sequence
from functools import reduce
from typing import Any

from trtjob.converters.keras.network import Network, Translate, Value, expect


def elementwise(op: str) -> Translate:
    """Return the translation of what joins equal shapes, or maps with vectors of one place."""

    def translate(net: Network, _layer: Any, *inputs: Value) -> Value:
        return reduce(lambda a, b: _joined(net, op, a, b), inputs)

    return translate


def _joined(net: Network, op: str, a: Value, b: Value) -> Value:
    expect(len(a.shape) == len(b.shape), "its inputs differ in their number of axes")
    shape = tuple(map(max, a.shape, b.shape))
    return net.add(op, a, net.settled(b).name, shape=shape)


def average(net: Network, layer: Any, *inputs: Value) -> Value:
    """Average the inputs."""
    total = elementwise("Add")(net, layer, *inputs)
    return net.add("Div", total, net.number(len(inputs)))


def concatenate(net: Network, layer: Any, *inputs: Value) -> Value:
    """Join the inputs along their channels."""
    return joined(net, inputs, layer.axis)


def joined(net: Network, inputs: Sequence[Value], axis: int) -> Value:
    """Append what joins values along an axis of Keras's, the last."""
    expect(axis in {-1, len(inputs[0].shape)}, "its axis is not the last")
    first, *others = (net.settled(x) for x in inputs)
    shape = (*first.shape[:-1], sum(x.shape[-1] for x in inputs))
    return net.add("Concat", first, *(x.name for x in others), shape=shape, axis=first.channel_axis)


def custom_scale(net: Network, layer: Any, *inputs: Value) -> Value:
    """InceptionResNetV2's: the first plus the second times a number."""
    first, second = inputs
    return _joined(net, "Add", first, net.add("Mul", second, net.number(layer.scale)))
