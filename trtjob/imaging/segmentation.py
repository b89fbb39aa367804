"""Masks of what was detected: sums of a few images that a network gives, its prototypes, cut to the boxes.

As Ultralytics' predict assembles them with `retina_masks` (process_mask_native in ultralytics/utils/ops.py, 8.4): the
sum is brought to the network's input bilinearly, from there to the image, and is of the object where it is above 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import cv2
import numpy as np

from trtjob.engines.protocol import FloatArray
from trtjob.imaging.masks import Mask
from trtjob.imaging.resize import Placement
from trtjob.imaging.rle import Runs, compressed, runs_between

_SUMS = 16  # objects whose sums are computed at once: a megabyte or two, which stay in a core's cache
PIXELS_AT_ONCE = 1 << 20  # of an object that are worked on at once: images may have hundreds of millions


def masks_from(
    coefficients: FloatArray,
    prototypes: FloatArray,
    boxes: FloatArray,
    placement: Placement,
    *,
    input_hw: tuple[int, int],
    hw: tuple[int, int],
) -> list[Mask | None]:
    """Return each object's mask, of the image's size; None where no pixel is the object's.

    coefficients: [N, count], by how much each prototype counts; prototypes: [count, h, w], whose sides divide those of
    the network's input, input_hw; boxes: [N, 4], xyxy in pixels of the image, clipped to it; hw: of the image.

    >>> whole = Placement(offset=(0, 0), scale=(1, 1))
    >>> prototypes, boxes = np.ones((1, 2, 2), np.float32), np.float32([[1, 1, 3, 4]])
    >>> [mask] = masks_from(np.float32([[1]]), prototypes, boxes, whole, input_hw=(4, 4), hw=(4, 4))
    >>> mask.decode().astype(int).tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    """
    count, rows, columns = prototypes.shape
    across = _Way(columns, input_hw[1], hw[1], placement.offset[0], placement.scale[0])
    down = _Way(rows, input_hw[0], hw[0], placement.offset[1], placement.scale[1])
    flat = prototypes.reshape(count, -1)
    found: list[Mask | None] = []
    for start in range(0, len(boxes), _SUMS):
        with np.errstate(invalid="ignore", over="ignore"):  # what is no number is of no object
            sums = coefficients[start : start + _SUMS] @ flat
        for total, box in zip(sums.reshape(-1, rows, columns), boxes[start : start + _SUMS], strict=True):
            edges = [part for part in _edges(total, box, across, down) if part.size]
            runs = runs_between(np.concatenate(edges), hw[0] * hw[1]) if edges else None
            found.append(None if runs is None else Mask(hw, compressed(runs)))
    return found


@dataclass(frozen=True, slots=True)
class _Way:
    """The way along one side, from the prototypes to the network's input and to the image; offset, scale: of the
    placement."""

    side: int
    input_side: int
    image_side: int
    offset: float
    scale: float

    @property
    def times(self) -> int:
        """How many pixels of the input are one of the prototypes."""
        return self.input_side // self.side

    def at(self, pixel: float) -> float:
        """Where the image's pixel lies in the input: both count from their first pixel's centre."""
        return (pixel + 0.5) / self.scale + self.offset - 0.5

    def needed(self, first: int, end: int) -> tuple[slice, slice]:
        """Return which pixels of the input a part of the image is made of, and which of the prototypes those are.

        Beyond the image's own part of the input there are none: its border stands for what is outside.
        """
        least = max(0, round(self.offset))
        most = max(least, min(self.input_side, round(self.offset + self.image_side / self.scale)) - 1)
        start = min(max(floor(self.at(first)), least), most)
        last = min(max(floor(self.at(end - 1)) + 1, least), most)
        low, high = (floor((pixel + 0.5) / self.times - 0.5) for pixel in (start, last))
        return slice(start, last + 1), slice(max(low, 0), min(high + 1, self.side - 1) + 1)


def _edges(total: FloatArray, box: FloatArray, across: _Way, down: _Way) -> Iterator[Runs]:
    """Yield where, column by column, the object begins and ends by turns, a few columns at a time.

    total: [h, w], of the prototypes' size. A pixel is in the box where its first corner is.
    """
    left, top, right, bottom = (ceil(value) for value in box.tolist())
    height = bottom - top
    if height <= 0:
        return
    step = max(1, PIXELS_AT_ONCE // height)
    for first in range(left, right, step):
        end = min(first + step, right)
        columns = _resampled(total, (first, end), (top, bottom), across, down)
        bordered = np.zeros((end - first, height + 2), np.bool_)
        np.greater(columns, 0, out=bordered[:, 1:-1])
        flat = bordered.reshape(-1)
        x, y = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]) + 1, height + 2)
        yield (x + first) * down.image_side + (y - 1 + top)


def _resampled(
    total: FloatArray, columns: tuple[int, int], rows: tuple[int, int], across: _Way, down: _Way
) -> FloatArray:
    """Return a part of the sum at the image's size, [columns, rows]. columns, rows: first and end."""
    input_x, x = across.needed(*columns)
    input_y, y = down.needed(*rows)
    part = np.ascontiguousarray(total[y, x].T)
    size = (part.shape[1] * down.times, part.shape[0] * across.times)
    enlarged = cv2.resize(part, size, interpolation=cv2.INTER_LINEAR)
    start_x, start_y = x.start * across.times, y.start * down.times
    enlarged = enlarged[
        input_x.start - start_x : input_x.stop - start_x, input_y.start - start_y : input_y.stop - start_y
    ]
    at_x, at_y = across.at(columns[0]) - input_x.start, down.at(rows[0]) - input_y.start
    shape = (columns[1] - columns[0], rows[1] - rows[0])
    if (at_x, at_y, across.scale, down.scale) == (0, 0, 1, 1) and min(np.subtract(enlarged.shape, shape)) >= 0:
        return np.asarray(enlarged[: shape[0], : shape[1]], np.float32)
    new_to_old = np.array([[1 / down.scale, 0, at_y], [0, 1 / across.scale, at_x]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped: Any = cv2.warpAffine(enlarged, new_to_old, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)
