"""Layers that pool."""

from typing import Any

from trtjob.converters.keras.layers.convolution import output_size, same_pads
from trtjob.converters.keras.network import Network, Translate, Value, expect, expect_channels_last


def pooling2d(op: str, **attributes: Any) -> Translate:
    """Return the translation of a pooling by windows. A mean leaves out what padding adds, as TensorFlow's does."""

    def translate(net: Network, layer: Any, x: Value) -> Value:
        expect_channels_last(layer)
        expect(layer.padding in {"same", "valid"}, f"its padding is '{layer.padding}'")
        sizes, strides, hw = layer.pool_size, layer.strides, x.shape[:2]
        pads = same_pads(hw, sizes, strides) if layer.padding == "same" else (0, 0, 0, 0)
        height, width = (output_size(hw[i] + pads[i] + pads[i + 2], sizes[i], strides[i]) for i in range(2))
        return net.add(
            op, x, shape=(height, width, x.shape[2]), kernel_shape=sizes, strides=strides, pads=pads, **attributes
        )

    return translate


def global_pooling2d(op: str) -> Translate:
    """Return the translation of a pooling over all places."""

    def translate(net: Network, layer: Any, x: Value) -> Value:
        expect_channels_last(layer)
        channels = x.shape[2]
        pooled = net.add(op, x, shape=(1, 1, channels))
        if layer.keepdims:
            return pooled
        return Value(net.graph.add("Flatten", pooled.name, axis=1), (channels,))

    return translate
