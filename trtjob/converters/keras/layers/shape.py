"""Layers that move numbers, or nothing at all."""

from math import prod
from typing import Any

from trtjob.converters.keras.layers.resize import cropped
from trtjob.converters.keras.network import Network, Value, expect, expect_channels_last


def nothing(_net: Network, _layer: Any, x: Value) -> Value:
    """What acts in training alone."""
    return x


def zero_padding2d(_net: Network, layer: Any, x: Value) -> Value:
    """Surround with zeros."""
    expect_channels_last(layer)
    (top, bottom), (left, right) = layer.padding
    expect(min(top, bottom, left, right) >= 0, "its padding is negative")
    return x.padded(top, left, bottom, right)


def cropping2d(net: Network, layer: Any, x: Value) -> Value:
    """Cut rows and columns off."""
    expect_channels_last(layer)
    (top, bottom), (left, right) = layer.cropping
    height, width = x.shape[:2]
    return cropped(net, x, (top, left), (height - top - bottom, width - left - right))


def flatten(net: Network, layer: Any, x: Value) -> Value:
    """Make one row of a map, in Keras's order."""
    expect_channels_last(layer)
    if len(x.shape) == 1:
        return x
    height_width = prod(x.shape[:2])
    flat = net.settled(x) if x.is_map and height_width == 1 else net.as_keras_has_it(x)
    return Value(net.graph.add("Flatten", flat.name, axis=1), (prod(x.shape),))


def reshape(net: Network, layer: Any, x: Value) -> Value:
    """Give the same numbers another shape, in Keras's order."""
    shape = tuple(layer.compute_output_shape((None, *x.shape))[1:])
    expect(None not in shape, "the shape it gives is not known")
    if shape == x.shape:
        return x
    channels = x.shape[-1]
    if all(prod(s) == channels == s[-1] for s in (x.shape, shape)):  # [N, C] <-> [N, C, 1, 1]
        sizes = (0, channels, 1, 1) if len(shape) == 3 else (0, *shape)
        return net.add("Reshape", x, net.graph.integers(*sizes), shape=shape)
    moved = net.as_keras_has_it(x)
    y = Value(net.graph.add("Reshape", moved.name, net.graph.integers(0, *shape)), shape)
    return net.as_graph_has_it(y)
