"""The front of the graph: from the bytes of an RGB or grey image to what the network takes."""

from typing import Any

import numpy as np
from onnx import TensorProto

from trtjob.converters.keras.network import Network, Value
from trtjob.converters.pixels import Pixels
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import ConversionError

CHOICES = (
    "--preprocess none (pixels of 0 to 255 as they are), unit (0 to 1), tf (-1 to 1), torch or caffe (ImageNet's "
    "mean), or with --mean and --std"
)


def unknown_pixels(request: ConversionRequest) -> ConversionError:
    """Return the error of a model that does not say what it expects of a pixel."""
    return ConversionError(
        f"'{request.model}': what the model expects of a pixel is not written in it, nor do its layers tell. "
        f"Say how it was trained with {CHOICES}"
    )


def add_front(net: Network, pixels: Pixels, hw: tuple[int, int], channels: int) -> Value:
    """Append what makes float32 [N, channels, height, width] of `images`."""
    # TensorRT takes bytes only where a cast follows at once.
    floats = net.graph.add("Cast", INPUT_NAME, to=TensorProto.FLOAT)
    x = Value(net.graph.add("Transpose", floats, perm=[0, 3, 1, 2]), (*hw, channels))
    if pixels.color == "bgr":
        x = net.add("Gather", x, net.graph.integers(2, 1, 0), axis=1)
    if any(pixels.mean):
        x = net.add("Sub", x, net.per_channel(x, np.array(pixels.mean), "mean"))
    if set(pixels.std) != {1.0}:
        x = net.add("Div", x, net.per_channel(x, np.array(pixels.std), "std"))
    return x


def prepared(images: UInt8Array, pixels: Pixels) -> FloatArray:
    """Return what the original takes for uint8 [N, H, W, channels]."""
    ordered: Any = images[..., ::-1] if pixels.color == "bgr" else images
    return pixels.normalised(ordered)
