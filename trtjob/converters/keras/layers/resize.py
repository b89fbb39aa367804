"""Layers that give a map another height and width."""

from typing import Any

import numpy as np

from trtjob.converters.keras.network import Network, Value, expect, expect_channels_last

# As tf.image.resize has them, with the centres of pixels half a pixel in.
_INTERPOLATIONS = {
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "tf_half_pixel_for_nn",
        "nearest_mode": "floor",
    },
}


def upsampling2d(net: Network, layer: Any, x: Value) -> Value:
    """Make rows and columns more by whole factors."""
    expect_channels_last(layer)
    rows, columns = layer.size
    return _resized(net, x, (x.shape[0] * rows, x.shape[1] * columns), layer.interpolation)


def resizing(net: Network, layer: Any, x: Value) -> Value:
    """Stretch to a size, or cut to its shape before."""
    expect_channels_last(layer)
    expect(not layer.antialias, "it smooths")
    expect(not layer.pad_to_aspect_ratio, "it pads")
    hw = layer.height, layer.width
    if layer.crop_to_aspect_ratio:
        x = _of_shape(net, x, hw)
    return _resized(net, x, hw, layer.interpolation)


def center_crop(net: Network, layer: Any, x: Value) -> Value:
    """Cut to a size; what is smaller is stretched to it."""
    expect_channels_last(layer)
    (height, width), hw = x.shape[:2], (layer.height, layer.width)
    if height >= hw[0] and width >= hw[1]:
        return cropped(net, x, ((height - hw[0]) // 2, (width - hw[1]) // 2), hw)
    return _resized(net, _of_shape(net, x, hw), hw, "bilinear")


def cropped(net: Network, x: Value, start: tuple[int, int], hw: tuple[int, int]) -> Value:
    """Append what cuts a rectangle out of a map. start: its row and column."""
    ends = net.graph.integers(start[0] + hw[0], start[1] + hw[1])
    return net.add("Slice", x, net.graph.integers(*start), ends, net.graph.integers(2, 3), shape=(*hw, x.shape[2]))


def _of_shape(net: Network, x: Value, hw: tuple[int, int]) -> Value:
    """Append what cuts the largest rectangle of a shape out of a map's middle, as keras.ops.image.resize does."""
    height, width = x.shape[:2]
    size = max(min(height, width * hw[0] // hw[1]), 1), max(min(width, height * hw[1] // hw[0]), 1)
    return cropped(net, x, ((height - size[0]) // 2, (width - size[1]) // 2), size)


def _resized(net: Network, x: Value, hw: tuple[int, int], interpolation: str) -> Value:
    expect(interpolation in _INTERPOLATIONS, f"its interpolation is '{interpolation}'")
    scales = [1, 1, *map(_scale, x.shape[:2], hw)]
    # By `sizes` of these axes alone it would be clearer, but ONNX Runtime 1.32 mistakes them behind a transpose.
    factors = net.constant(np.array(scales), "scales")
    return net.add("Resize", x, "", factors, shape=(*hw, x.shape[2]), **_INTERPOLATIONS[interpolation])


def _scale(size: int, wanted: int) -> np.float32:
    """Return a factor whose product with a size is not a hair below the size that is wanted."""
    scale = np.float32(wanted / size)
    return scale if float(scale) * size >= wanted else np.nextafter(scale, np.float32(np.inf))
