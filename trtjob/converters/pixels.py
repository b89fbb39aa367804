"""What a model expects of a pixel: how the bytes of an image become its input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray, UInt8Array
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

    def ordered(self, request: ConversionRequest) -> "Pixels":
        """Return the same for a model that takes its colours in the order that is asked for. Raises ConversionError."""
        if request.color is None or request.color == self.color:
            return self
        if self.color == "gray":
            raise ConversionError(f"--color {request.color}: this model takes grey images. Leave --color out")
        return Pixels(self.mean[::-1], self.std[::-1], request.color)

    @property
    def is_plain(self) -> bool:
        """Tell whether a pixel stays as it is."""
        return not any(self.mean) and set(self.std) == {1.0}


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


def pixels_asked_for(request: ConversionRequest, channels: int) -> Pixels | None:
    """Return what a request says of a pixel, None where it says nothing. Raises ConversionError."""
    given = request.mean is not None or request.std is not None
    if request.preprocess is not None and given:
        raise ConversionError("--preprocess and --mean or --std say the same in two ways. Use one of them")
    if request.preprocess is not None:
        return pixels_of_mode(request.preprocess, channels)
    return _given(request, channels) if given else None


def pixels_of_mode(mode: str, channels: int) -> Pixels:
    """Return what `--preprocess` calls so. Raises ConversionError where grey images have no such mean."""
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
    color = request.color if request.color is not None and channels == 3 else _color(channels)
    return Pixels(mean, std, color)


def _for_channels(option: str, values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) not in {1, channels} or not np.isfinite(values).all():
        shown = ",".join(f"{value:g}" for value in values)
        raise ConversionError(f"{option} {shown}: expected one number, or one for each of {channels} channels")
    return values * channels if len(values) == 1 else values
