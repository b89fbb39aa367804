"""Lines at any angle, and dots: each in its colour, all on a dark rim that keeps them apart from the background."""

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.captions import Color
from trtjob.imaging.detections import Point

IntArray = NDArray[np.int32]
Stroke = tuple[Sequence[Point], Color]

_FRACTION_BITS = 4
_FARTHEST = 32_767  # pixels: what lies beyond is pulled in, for OpenCV takes whole numbers of 32 bits
_BLACK: Color = (0, 0, 0)


def stroke(image: UInt8Array, strokes: Sequence[Stroke], width: int, *, rim: int, closed: bool) -> None:
    """Draw lines through as many points each, in place; one point is a dot. Of two colours, the last begun is on top.

    image: uint8 [H, W, 3] BGR and contiguous; width, rim: pixels. OpenCV is called for each colour, not for each line.
    """
    if not strokes:
        return
    by_color: defaultdict[Color, list[Sequence[Point]]] = defaultdict(list)
    for points, color in strokes:
        by_color[color].append(points)
    lines = {color: list(_fixed_point(same)) for color, same in by_color.items()}
    if rim:
        every = [line for same in lines.values() for line in same]
        _draw(image, every, _BLACK, width + 2 * rim, closed)
    for color, same in lines.items():
        _draw(image, same, color, width, closed)


def _draw(image: UInt8Array, lines: Sequence[IntArray], color: Color, width: int, closed: bool) -> None:
    # OpenCV's thick lines are a pixel wider than they are asked to be.
    cv2.polylines(image, lines, closed, color, max(1, width - 1), cv2.LINE_AA, _FRACTION_BITS)


def _fixed_point(lines: Sequence[Sequence[Point]]) -> IntArray:
    """Return lines as int32 [lines, points, 2], in fractions of a pixel."""
    pixels = np.clip(np.array(lines, np.float64), -_FARTHEST, _FARTHEST)
    return np.rint(pixels * (1 << _FRACTION_BITS)).astype(np.int32)
