"""Bring an image to the input of a network, and boxes back to the image."""

from dataclasses import dataclass
from functools import cache
from math import ceil

import cv2
import numpy as np

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling

_COLOR_CODES = {"rgb": cv2.COLOR_BGR2RGB, "gray": cv2.COLOR_BGR2GRAY, "bgr": None}
_MOST_WARPED = 64  # columns or rows of the input, in the search for a place from which on cv2.resize does the rest
SAME_SAMPLE_PX = 0.02  # pixels apart: five levels of 255 where black meets white, much less than two decoders differ
_LONGEST = 16  # times what is needed: far beyond any photograph or panorama, and no more than megabytes


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the image lies in the network's input: image = (input - offset) * scale, each as (x, y) in pixels."""

    offset: tuple[float, float]
    scale: tuple[float, float]

    def to_image(self, xyxy: FloatArray) -> FloatArray:
        """Return boxes in pixels of the image. xyxy: float32 [N, 4], pixels of the network's input."""
        moved = xyxy - np.array(self.offset * 2, np.float32)
        return np.asarray(moved * np.array(self.scale * 2, np.float32), np.float32)


@dataclass(frozen=True, slots=True)
class Window:
    """Where a resized image lies in the network's input, in whole pixels; what juts out is cut off."""

    left: int
    top: int
    width: int
    height: int


def place(hw: tuple[int, int], spec: ModelSpec, mode: ResizeMode) -> tuple[Window, Placement]:
    """Return where an image of a size comes to lie in the network's input. hw: its height and width.

    >>> spec = ModelSpec(task="detect", labels=("cat",), input_hw=(416, 416))
    >>> window, placement = place((480, 640), spec, ResizeMode.LETTERBOX)
    >>> window
    Window(left=0, top=52, width=416, height=312)
    >>> placement.to_image(np.float32([[0, 52, 416, 364]])).round().tolist()
    [[0.0, 0.0, 640.0, 480.0]]
    """
    (height, width), (input_h, input_w) = hw, spec.input_hw
    if mode is ResizeMode.LETTERBOX:
        new_h, new_w = _INNER_SIZES[spec.sampling](hw, spec.input_hw)
        left, top = (input_w - new_w) // 2, (input_h - new_h) // 2
        # Darknet corrects boxes by half of the border, be it odd or not (correct_yolo_boxes in yolo_layer.c).
        offset = ((input_w - new_w) / 2, (input_h - new_h) / 2)
        if spec.sampling is not Sampling.ALIGN_CORNERS:
            offset = (float(left), float(top))
        return Window(left, top, new_w, new_h), Placement(offset, (width / new_w, height / new_h))
    if mode is ResizeMode.CORNER:
        ratio = min(input_h / height, input_w / width)
        # Rounded down, while boxes are divided by the ratio itself (preproc and demo_postprocess in YOLOX).
        new_h, new_w = max(1, int(height * ratio)), max(1, int(width * ratio))
        return Window(0, 0, new_w, new_h), Placement((0.0, 0.0), (1 / ratio, 1 / ratio))
    if mode is ResizeMode.CROP:
        covered_h, covered_w = spec.covered_hw
        if spec.sampling is Sampling.ALIGN_CORNERS:
            ratio = max(covered_h / height, covered_w / width)
            new_h, new_w = max(covered_h, round(height * ratio)), max(covered_w, round(width * ratio))
            left, top = -((new_w - input_w) // 2), -((new_h - input_h) // 2)
        else:
            new_h, new_w = _covering_size(hw, spec.covered_hw)
            left, top = -round((new_w - input_w) / 2), -round((new_h - input_h) / 2)
        return Window(left, top, new_w, new_h), Placement((left, top), (width / new_w, height / new_h))
    return Window(0, 0, input_w, input_h), Placement((0.0, 0.0), (width / input_w, height / input_h))


def prepare(
    image: UInt8Array, spec: ModelSpec, mode: ResizeMode, tensor: UInt8Array | None = None
) -> tuple[UInt8Array, Placement]:
    """Return the network's input, uint8 [H, W, channels] in the spec's colour order, and where the image lies in it.

    image: uint8 [h, w, 3], BGR; tensor: where the input is written, None for an array of its own.

    >>> spec = ModelSpec(task="detect", labels=("cat",), input_hw=(416, 416))
    >>> tensor, placement = prepare(np.zeros((480, 640, 3), np.uint8), spec, ResizeMode.LETTERBOX)
    >>> tensor.shape, placement.offset
    ((416, 416, 3), (0.0, 52.0))
    """
    if tensor is None:
        tensor = np.empty((*spec.input_hw, spec.channels), np.uint8)
    if mode is ResizeMode.CROP:
        return tensor, _crop(image, spec, tensor)
    part, placement = inner_part(tensor, (image.shape[0], image.shape[1]), spec, mode)
    _fill(part, image, spec)
    return tensor, placement


def inner_part(
    tensor: UInt8Array, hw: tuple[int, int], spec: ModelSpec, mode: ResizeMode
) -> tuple[UInt8Array, Placement]:
    """Return the part of a network's input that an image of a size fills, with a border around it; and where the image
    lies. mode: any but `crop`."""
    window, placement = place(hw, spec, mode)
    if mode in (ResizeMode.LETTERBOX, ResizeMode.CORNER):
        tensor[:] = spec.pad_value
    return tensor[window.top : window.top + window.height, window.left : window.left + window.width], placement


def _fill(into: UInt8Array, image: UInt8Array, spec: ModelSpec) -> None:
    """Resize an image into a part of the network's input, [h, w, channels], in the spec's colour order."""
    _convert(into, resize(image, into.shape[:2], spec.sampling, None if _COLOR_CODES[spec.color] else into), spec)


def _convert(into: UInt8Array, image: UInt8Array, spec: ModelSpec) -> None:
    """Write an image of the size of `into` there, in the spec's colour order."""
    code = _COLOR_CODES[spec.color]
    if code is not None:
        cv2.cvtColor(image, code, dst=into[..., 0] if spec.channels == 1 else into)
    elif image is not into:
        into[:] = image


def _darknets_inner_size(hw: tuple[int, int], input_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image inside its letterbox, its sides rounded down (letterbox_image in image.c)."""
    (height, width), (input_h, input_w) = hw, input_hw
    if input_w * height < input_h * width:
        return max(1, height * input_w // width), input_w
    return input_h, max(1, width * input_h // height)


def _nearest_inner_size(hw: tuple[int, int], input_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size of an image inside its letterbox, rounded to the nearest (Ultralytics, data/augment.py)."""
    ratio = min(input_hw[0] / hw[0], input_hw[1] / hw[1])
    return max(1, round(hw[0] * ratio)), max(1, round(hw[1] * ratio))


_INNER_SIZES = {
    Sampling.ALIGN_CORNERS: _darknets_inner_size,
    Sampling.HALF_PIXEL: _nearest_inner_size,
    Sampling.ANTIALIAS: _nearest_inner_size,
    Sampling.BICUBIC: _nearest_inner_size,
}


def _crop(image: UInt8Array, spec: ModelSpec, tensor: UInt8Array) -> Placement:
    """Bring an image's shorter side to the input's, or to more by the spec's crop ratio, and cut the middle out."""
    input_h, input_w = spec.input_hw
    # Of a thread of 1 x 60,000 pixels, enlarged as a whole, the ends that are cut off would fill the memory.
    rows, columns = middle((image.shape[0], image.shape[1]), spec.covered_hw)
    image = image[rows, columns]
    window, placement = place((image.shape[0], image.shape[1]), spec, ResizeMode.CROP)
    resized = resize(image, (window.height, window.width), spec.sampling)
    _convert(tensor, resized[-window.top : input_h - window.top, -window.left : input_w - window.left], spec)
    (offset_x, offset_y), (scale_x, scale_y) = placement.offset, placement.scale
    return Placement((offset_x - columns.start / scale_x, offset_y - rows.start / scale_y), placement.scale)


def middle(hw: tuple[int, int], covered_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns of an image that a crop can need: all, unless a side is many times the other."""
    ratio = max(covered_hw[0] / hw[0], covered_hw[1] / hw[1])
    return _middle(hw[0], covered_hw[0] / ratio), _middle(hw[1], covered_hw[1] / ratio)


def _covering_size(hw: tuple[int, int], covered_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the size at which an image just covers another, rounded down (Resize in torchvision's transforms)."""
    (height, width), (input_h, input_w) = hw, covered_hw
    if input_w * height < input_h * width:
        return input_h, max(input_w, width * input_h // height)
    return max(input_h, height * input_w // width), input_w


def _middle(side: int, needed: float) -> slice:
    """Return the part around the middle of a side that is many times longer than what is needed of it, else all."""
    kept = min(side, _LONGEST * ceil(needed))
    kept += (side - kept) % 2  # so that the middle stays the middle
    return slice((side - kept) // 2, (side + kept) // 2)


def resize(image: UInt8Array, hw: tuple[int, int], sampling: Sampling, into: UInt8Array | None = None) -> UInt8Array:
    """Resize bilinearly, each pixel from its four nearest, as detectors were trained: no averaging when shrinking.

    `antialias` and `bicubic` do average, and are Pillow's. `align_corners` is resize_image in Darknet's image.c: the
    corner pixels' centres stay where they are. image: [h, w] or [h, w, 3]; into: an array of the result's shape, which
    may be written and returned; the result is in it only where it is what is returned.
    """
    height, width = hw
    if image.shape[:2] == hw:
        return image
    if sampling is Sampling.HALF_PIXEL:
        return _uint8(cv2.resize(image, (width, height), dst=into, interpolation=cv2.INTER_LINEAR))
    if sampling in (Sampling.ANTIALIAS, Sampling.BICUBIC):
        from PIL import Image

        is_bicubic = sampling is Sampling.BICUBIC
        resample = Image.Resampling.BICUBIC if is_bicubic else Image.Resampling.BILINEAR
        return np.asarray(Image.fromarray(image).resize((width, height), resample), np.uint8)
    into = np.empty((height, width, *image.shape[2:]), np.uint8) if into is None else into
    across, down = _Aligned.of(image.shape[1], width), _Aligned.of(image.shape[0], height)
    x, y = across.first, down.first
    if x < width and y < height:
        part = image[down.skipped :, across.skipped :]
        cv2.resize(part, None, into[y:, x:], 1 / across.step, 1 / down.step, cv2.INTER_LINEAR)
    _warp(image, into[:y], across.step, down.step)
    _warp(image, into[y:, :x], across.step, down.step, y * down.step)
    return into


@dataclass(frozen=True, slots=True)
class _Aligned:
    """A way along one side to align corners with cv2.resize, which aligns pixel areas and is four times as fast as
    cv2.warpAffine: from the pixel `first` on, where both take the same samples once `skipped` of the image are left
    out. step: from one sample to the next.
    """

    step: float
    first: int
    skipped: int

    @classmethod
    @cache
    def of(cls, side: int, new_side: int) -> "_Aligned":
        step = (side - 1) / max(1, new_side - 1)
        for first in range(1, min(_MOST_WARPED, new_side)):
            # cv2.resize samples at (x + 1/2) step - 1/2 of what is left; wanted is (first + x) step of all.
            exact = (first - 0.5) * step + 0.5
            skipped = round(exact)
            is_there = step >= 1 and abs(exact - skipped) < SAME_SAMPLE_PX and skipped < side
            if is_there and round((side - skipped) / step) == new_side - first:
                return cls(step, first, skipped)
        return cls(step, new_side, 0)  # none: enlarged, or a step for which there is no such place


def _warp(image: UInt8Array, into: UInt8Array, step_x: float, step_y: float, first_y: float = 0.0) -> None:
    """Sample an image from its corner, or from a line below it, on. Unlike cv2.remap, warpAffine weighs exactly."""
    height, width = into.shape[:2]
    if height and width:
        new_to_old = np.array([[step_x, 0, 0], [0, step_y, first_y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(image, new_to_old, (width, height), into, flags, cv2.BORDER_REPLICATE)


def _uint8(image: object) -> UInt8Array:
    return np.asarray(image, np.uint8)
