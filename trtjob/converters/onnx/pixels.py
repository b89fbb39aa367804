"""The front of a foreign graph: from the bytes of an image to what it takes, in the graph and in NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.session import numpy_type
from trtjob.converters.onnx.signature import ImageInput
from trtjob.converters.onnx.surgery import FRONT
from trtjob.converters.pixels import Pixels, pixels_asked_for
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import ConversionError


def pixels_from(request: ConversionRequest, image: ImageInput) -> Pixels | None:
    """Return what a request says of a pixel, None where it says nothing. Raises ConversionError."""
    pixels = pixels_asked_for(request, image.channels)
    if pixels is not None and image.elem_type == TensorProto.UINT8 and not pixels.is_plain:
        raise ConversionError(
            f"'{request.model}' takes uint8, pixels as they are, so nothing can be done to them. Use --preprocess none"
        )
    return pixels


def feed(pixels: Pixels, images: UInt8Array, image: ImageInput) -> NDArray[Any]:
    """Return what a foreign model takes for uint8 [N, H, W, channels]."""
    values = pixels.normalised(images).astype(numpy_type(image.elem_type))
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if image.is_nchw else values


def add_front(graph: Graph, pixels: Pixels, image: ImageInput) -> None:
    """Append what makes the foreign graph's input of `images`."""
    graph.scope = FRONT
    # TensorRT takes bytes only where a cast follows at once.
    x = INPUT_NAME
    if image.elem_type != TensorProto.UINT8:
        x = graph.add("Cast", x, to=TensorProto.FLOAT)
    if any(pixels.mean):
        x = graph.add("Sub", x, graph.constant(np.array(pixels.mean, np.float32), "mean"))
    if set(pixels.std) != {1.0}:
        x = graph.add("Div", x, graph.constant(np.array(pixels.std, np.float32), "std"))
    if image.is_nchw:
        x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
    if image.elem_type in {TensorProto.FLOAT, TensorProto.UINT8}:
        graph.add("Identity", x, output=image.name)
    else:
        graph.add("Cast", x, output=image.name, to=image.elem_type)
