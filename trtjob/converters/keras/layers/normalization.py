"""Layers that shift and scale."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.keras.network import Network, Value, expect, weights_of


def batch_normalization(net: Network, layer: Any, x: Value) -> Value:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta; nothing where the layer before has taken it in."""
    if any(norm is layer for norm in net.norms.values()):
        return x
    expect(_is_last(layer.axis, x), "its axis is not the last")
    size = x.shape[-1]
    gamma = weights_of(layer.gamma) if layer.scale else np.ones(size)
    beta = weights_of(layer.beta) if layer.center else np.zeros(size)
    constants = (gamma, beta, weights_of(layer.moving_mean), weights_of(layer.moving_variance))
    names = [
        net.constant(array, name) for array, name in zip(constants, ("gamma", "beta", "mean", "variance"), strict=True)
    ]
    expect(len(x.shape) in {1, 3}, "its input is neither a map nor a vector")
    return net.add("BatchNormalization", x, *names, epsilon=layer.epsilon)


def scale_and_offset(layer: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what a batch normalisation multiplies by, and then adds."""
    mean, variance = (weights_of(v).astype(np.float64) for v in (layer.moving_mean, layer.moving_variance))
    scale = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        scale = scale * weights_of(layer.gamma)
    offset = -mean * scale
    if layer.center:
        offset = offset + weights_of(layer.beta)
    return scale, offset


def layer_normalization(net: Network, layer: Any, x: Value) -> Value:
    """Over the channels of each place. ONNX has it for the last axis alone."""
    axis = layer.axis
    expect(len(axis) == 1 if isinstance(axis, list | tuple) else True, "it has more than one axis")
    expect(_is_last(axis[0] if isinstance(axis, list | tuple) else axis, x), "its axis is not the last")
    expect(layer.scale, "it has no scale")
    x = net.as_keras_has_it(x)
    names = [net.constant(weights_of(layer.gamma), "gamma")]
    if layer.center:
        names.append(net.constant(weights_of(layer.beta), "beta"))
    y = net.add("LayerNormalization", x, *names, axis=-1, epsilon=layer.epsilon)
    return net.as_graph_has_it(y)


def rescaling(net: Network, layer: Any, x: Value) -> Value:
    """X * scale + offset, a number each or one for every channel."""
    for op, value, neutral in (("Mul", layer.scale, 1), ("Add", layer.offset, 0)):
        array = np.asarray(value, np.float32)
        expect(array.size in {1, x.shape[-1]}, "it has neither one number nor one for each channel")
        if (array != neutral).any():
            x = net.add(op, x, net.per_channel(x, array, op.lower()))
    return x


def normalization(net: Network, layer: Any, x: Value) -> Value:
    """(x - mean) / deviation, of the training images or as given."""
    mean, variance = (np.asarray(value, np.float32) for value in (layer.mean, layer.variance))
    expect(not layer.invert, "it is inverted")
    expect({mean.size, variance.size} <= {1, x.shape[-1]}, "it has numbers for more than the channels")
    deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))  # keras.config.epsilon()
    x = net.add("Sub", x, net.per_channel(x, mean, "mean"))
    return net.add("Div", x, net.per_channel(x, deviation, "deviation"))


def layer_scale(net: Network, layer: Any, x: Value) -> Value:
    """ConvNeXt's: a factor for each channel."""
    return net.add("Mul", x, net.per_channel(x, weights_of(layer.gamma), "gamma"))


def _is_last(axis: int, x: Value) -> bool:
    return axis in {-1, len(x.shape)}
