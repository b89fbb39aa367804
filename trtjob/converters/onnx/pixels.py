"""What a model expects of a pixel: how the bytes of an image become its input, in the graph and in NumPy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.session import numpy_type
from trtjob.converters.onnx.signature import ImageInput
from trtjob.converters.onnx.surgery import FRONT
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import INPUT_NAME
from trtjob.errors import ConversionError

Color = Literal["rgb", "bgr", "gray"]

# Of ImageNet, in RGB order: the mean and deviation of pixels from 0 to 1 that torchvision's models were trained with,
# and the mean of pixels from 0 to 255 that Caffe's were.
_TORCH_MEAN, _TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True, slots=True)
class Pixels:
    """A pixel of 0 to 255 becomes (pixel - mean) / std; a number for each channel, in the order of `color`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    color: Color

    def normalised(self, images: UInt8Array) -> FloatArray:
        """Return float32 of uint8 [N, H, W, channels]."""
        mean, std = (np.array(values, np.float32) for values in (self.mean, self.std))
        return np.asarray((images.astype(np.float32) - mean) / std, np.float32)

    def feed(self, images: UInt8Array, image: ImageInput) -> NDArray[Any]:
        """Return what a foreign model takes for uint8 [N, H, W, channels]."""
        values = self.normalised(images).astype(numpy_type(image.elem_type))
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if image.is_nchw else values

    @property
    def is_plain(self) -> bool:
        return not any(self.mean) and set(self.std) == {1.0}


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


def unit_pixels(channels: int) -> Pixels:
    """Pixels from 0 to 1."""
    return Pixels((0.0,) * channels, (255.0,) * channels, _color(channels))


def torch_pixels() -> Pixels:
    """Pixels from 0 to 1, less ImageNet's mean, by its deviation."""
    mean, std = (tuple(255 * value for value in values) for values in (_TORCH_MEAN, _TORCH_STD))
    return Pixels(mean, std, "rgb")


_MODES: dict[str, Callable[[int], Pixels]] = {
    "none": lambda channels: Pixels((0.0,) * channels, (1.0,) * channels, _color(channels)),
    "unit": unit_pixels,
    "tf": lambda channels: Pixels((127.5,) * channels, (127.5,) * channels, _color(channels)),
    "torch": lambda _channels: torch_pixels(),
    "caffe": lambda _channels: Pixels(_CAFFE_MEAN_BGR, (1.0,) * 3, "bgr"),
}
_OF_COLOURS = frozenset({"torch", "caffe"})


def _color(channels: int) -> Color:
    return "gray" if channels == 1 else "rgb"


def pixels_from(request: ConversionRequest, image: ImageInput) -> Pixels | None:
    """Return what a request says of a pixel, None where it says nothing. Raises ConversionError."""
    given = request.mean is not None or request.std is not None
    if request.preprocess is None and not given:
        return None
    if request.preprocess is not None and given:
        raise ConversionError("--preprocess and --mean or --std say the same in two ways. Use one of them")
    pixels = _named(request.preprocess, image.channels) if request.preprocess else _given(request, image.channels)
    if image.elem_type == TensorProto.UINT8 and not pixels.is_plain:
        raise ConversionError(
            f"'{request.model}' takes uint8, pixels as they are, so nothing can be done to them. Use --preprocess none"
        )
    return pixels


def _named(mode: str, channels: int) -> Pixels:
    if mode in _OF_COLOURS and channels == 1:
        raise ConversionError(
            f"--preprocess {mode} has a mean for each of three colours, but this model takes grey images. "
            "Give --mean and --std"
        )
    return _MODES[mode](channels)


def _given(request: ConversionRequest, channels: int) -> Pixels:
    mean = _for_channels("--mean", request.mean or (0.0,), channels)
    std = _for_channels("--std", request.std or (1.0,), channels)
    if not all(std):
        raise ConversionError("--std: nothing can be divided by 0. Give 1 where pixels are not to be divided")
    return Pixels(mean, std, _color(channels))


def _for_channels(option: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) not in {1, channels} or not np.isfinite(values).all():
        shown = ",".join(f"{value:g}" for value in values)
        raise ConversionError(f"{option} {shown}: expected one number, or one for each of {channels} channels")
    return values * channels if len(values) == 1 else values
