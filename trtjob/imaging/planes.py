"""Bring a video's frame to the input of a network from its planes: they are resized first, and colours made of what is
left. Made of the whole frame, they took as long as a third of decoding it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling
from trtjob.imaging.resize import Placement, inner_part, resize

# Of red and blue in the brightness, by FFmpeg's numbers of matrices (AVColorSpace): what is not said is BT.601 to it.
_BT601, _BT709 = (0.299, 0.114), (0.2126, 0.0722)
_WEIGHTS = {1: _BT709, 2: _BT601, 5: _BT601, 6: _BT601}
IntArray = NDArray[np.int64]
_FULL = 2  # AVCOL_RANGE_JPEG
_GRAY = np.array([0.114, 0.587, 0.299])  # as cv2.COLOR_BGR2GRAY


@dataclass(frozen=True, slots=True)
class Planes:
    """A frame in 4:2:0, 8 bits.

    y: [h, w]; u, v: [ceil(h / 2), ceil(w / 2)]; to_bgr: 3 x 4, from y, u, v and 1.
    """

    y: UInt8Array
    u: UInt8Array
    v: UInt8Array
    to_bgr: FloatArray


def planes_of(frame: Any) -> Planes | None:
    """Return a frame's planes, as they lie in it; None where it has others or its colours are told in another way."""
    weights = _WEIGHTS.get(frame.colorspace)
    if frame.format.name not in ("yuv420p", "yuvj420p") or weights is None:
        return None
    if any(plane.line_size < plane.width for plane in frame.planes):  # from below
        return None
    y, u, v = map(_plane, frame.planes)
    return Planes(y, u, v, _to_bgr(weights, frame.color_range == _FULL or frame.format.name == "yuvj420p"))


def _plane(plane: Any) -> UInt8Array:
    rows = np.frombuffer(plane, np.uint8)[: plane.height * plane.line_size]
    return rows.reshape(plane.height, plane.line_size)[:, : plane.width]


@cache
def _to_bgr(weights: tuple[float, float], is_full: bool) -> FloatArray:
    """Return what makes colours of brightness and the two differences (ITU-R BT.601-7, 2.5; BT.709-6, 3 and 4)."""
    red, blue = weights
    green = 1 - red - blue
    of_y, of_c, black = (1, 1, 0) if is_full else (255 / 219, 255 / 224, 16)
    u, v = 2 * (1 - blue) * of_c, 2 * (1 - red) * of_c
    matrix = np.array([[of_y, u, 0], [of_y, -u * blue / green, -v * red / green], [of_y, 0, v]])
    return np.hstack([matrix, matrix @ [[-black], [-128], [-128]]]).astype(np.float32)


def takes_planes(spec: ModelSpec, mode: ResizeMode) -> bool:
    """Whether `prepare_planes` makes this network's input: not where it averages, which Pillow does, or is cut out."""
    return mode is not ResizeMode.CROP and spec.sampling in (Sampling.HALF_PIXEL, Sampling.ALIGN_CORNERS)


def prepare_planes(planes: Planes, spec: ModelSpec, mode: ResizeMode, tensor: UInt8Array) -> Placement:
    """Write the network's input as `prepare` does, and return where the frame lies in it.

    Not to the bit: where colours meet, those of the nearest pixel are taken, and not of four; and FFmpeg rounds down.
    """
    part, placement = inner_part(tensor, planes.y.shape[:2], spec, mode)
    hw = part.shape[:2]
    rows, columns = (
        _nearest(side, new_side, is_aligned=spec.sampling is Sampling.ALIGN_CORNERS)
        for side, new_side in zip(planes.y.shape, hw, strict=True)
    )
    colours = [plane[rows][:, columns] for plane in (planes.u, planes.v)]
    small = cv2.merge([resize(planes.y, hw, spec.sampling), *colours])
    if spec.color == "gray":
        cv2.transform(small, (_GRAY @ planes.to_bgr)[None], dst=part[..., 0])
    else:
        cv2.transform(small, planes.to_bgr if spec.color == "bgr" else planes.to_bgr[::-1].copy(), dst=part)
    return placement


@cache
def _nearest(side: int, new_side: int, *, is_aligned: bool) -> IntArray:
    """Return where the colour of the pixel nearest to each sample of `resize` along a side lies in its plane."""
    numbers = np.arange(new_side)
    samples = numbers * (side - 1) / max(1, new_side - 1) if is_aligned else (numbers + 0.5) * side / new_side - 0.5
    return np.asarray(samples.round().clip(0).astype(np.int64) >> 1)
