"""Layers with a kernel. A batch normalisation behind one is taken into its weights, in double precision."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.keras.activations import activate
from trtjob.converters.keras.layers.normalization import scale_and_offset
from trtjob.converters.keras.network import Network, Value, expect, expect_channels_last, weights_of

Weights = NDArray[np.floating]  # float64 where a batch normalisation was taken in


def conv2d(net: Network, layer: Any, x: Value) -> Value:
    """Kernel: [height, width, inputs of a group, outputs]."""
    kernel = weights_of(layer.kernel).transpose(3, 2, 0, 1)
    return activate(net, layer, _convolved(net, layer, x, kernel, groups=layer.groups))


def depthwise_conv2d(net: Network, layer: Any, x: Value) -> Value:
    """Kernel: [height, width, inputs, outputs of each input]."""
    return activate(net, layer, _convolved(net, layer, x, _depthwise(layer.kernel), groups=x.shape[-1]))


def separable_conv2d(net: Network, layer: Any, x: Value) -> Value:
    """A depthwise convolution and then one of 1x1, with nothing between them."""
    spread = _convolved(net, layer, x, _depthwise(layer.depthwise_kernel), groups=x.shape[-1], has_bias=False)
    kernel = weights_of(layer.pointwise_kernel).transpose(3, 2, 0, 1)
    return activate(net, layer, _conv(net, layer, spread, kernel, _bias(layer, len(kernel))))


def dense(net: Network, layer: Any, x: Value) -> Value:
    """Kernel: [inputs, outputs]; of a map it is a convolution of 1x1."""
    matrix = weights_of(layer.kernel).T
    bias = _bias(layer, len(matrix))
    if x.is_map:
        return activate(net, layer, _conv(net, layer, x, matrix[:, :, None, None], bias))
    matrix, bias = _with_norm(net, layer, matrix, bias)
    shape = (*x.shape[:-1], len(matrix))
    bias_name = net.constant(bias, "bias")
    if len(x.shape) == 1:
        y = net.add("Gemm", x, net.constant(matrix, "weights"), bias_name, shape=shape, transB=1)
    else:
        y = net.add("Add", net.add("MatMul", x, net.constant(matrix.T, "weights"), shape=shape), bias_name)
    return activate(net, layer, y)


def _depthwise(variable: Any) -> Weights:
    kernel = weights_of(variable)
    height, width, inputs, multiplier = kernel.shape
    return kernel.transpose(2, 3, 0, 1).reshape(inputs * multiplier, 1, height, width)


def _bias(layer: Any, outputs: int) -> Weights:
    return weights_of(layer.bias) if layer.use_bias else np.zeros(outputs, np.float32)


def _with_norm(net: Network, layer: Any, kernel: Weights, bias: Weights) -> tuple[Weights, Weights]:
    """Return weights that give what the batch normalisation behind the layer would; outputs are the first axis."""
    if id(layer) not in net.norms:
        return kernel, bias
    scale, offset = scale_and_offset(net.norms[id(layer)])
    return kernel * scale.reshape(-1, *[1] * (kernel.ndim - 1)), bias * scale + offset


def _convolved(net: Network, layer: Any, x: Value, kernel: Weights, *, groups: int, has_bias: bool = True) -> Value:
    """Append the convolution of a layer as its settings have it."""
    expect_channels_last(layer)
    expect(layer.padding in {"same", "valid"}, f"its padding is '{layer.padding}'")
    if layer.padding == "same":
        x = net.settled(x)
        x = x.padded(*same_pads(x.shape[:2], kernel.shape[2:], layer.strides, layer.dilation_rate))
    bias = _bias(layer, len(kernel)) if has_bias else None
    return _conv(net, layer, x, kernel, bias, strides=layer.strides, dilations=layer.dilation_rate, group=groups)


def _conv(
    net: Network,
    layer: Any,
    x: Value,
    kernel: Weights,
    bias: Weights | None,
    *,
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    group: int = 1,
) -> Value:
    """Append a Conv, which adds the margins of its input itself. bias: None where another convolution follows."""
    constants = []
    if bias is not None:
        kernel, bias = _with_norm(net, layer, kernel, bias)
        constants = [net.constant(bias, "bias")]
    sizes = kernel.shape[2:]
    hw = [output_size(*side) for side in zip(x.shape[:2], sizes, strides, dilations, strict=True)]
    name = net.graph.add(
        "Conv",
        x.name,
        net.constant(kernel, "weights"),
        *constants,
        kernel_shape=sizes,
        strides=strides,
        dilations=dilations,
        pads=x.margins,
        group=group,
    )
    return Value(name, (*hw, len(kernel)))


def output_size(size: int, kernel: int, stride: int, dilation: int = 1) -> int:
    """Return how many places a kernel has on a side."""
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def same_pads(
    hw: tuple[int, ...], sizes: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...] = (1, 1)
) -> tuple[int, ...]:
    """Return TensorFlow's `same` padding (top, left, bottom, right): the odd pixel is put at the end.

    See https://www.tensorflow.org/api_docs/python/tf/nn#notes_on_padding_2.
    """
    totals = [
        max((-(-side // stride) - 1) * stride + (size - 1) * dilation + 1 - side, 0)
        for side, size, stride, dilation in zip(hw, sizes, strides, dilations, strict=True)
    ]
    return (*(total // 2 for total in totals), *(total - total // 2 for total in totals))
