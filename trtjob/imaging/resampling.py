"""Which pixels of an image make each pixel of the network's input, in numbers: for who resizes without OpenCV."""

from typing import NamedTuple

import numpy as np

from trtjob.engines.spec import ModelSpec, ResizeMode, Sampling
from trtjob.imaging.resize import Placement, middle, place


class Resampling(NamedTuple):
    """The image lies in columns left to right - 1 and rows top to bottom - 1 of the input, the rest is padding.

    There the pixel (x, y) is the mean of the image's pixels around (first_x + x step_x, first_y + y step_y), weighted
    by 1 - distance / reach in either direction, as far as that is above 0.
    """

    height: int
    width: int
    left: int
    top: int
    right: int
    bottom: int
    first_x: float
    first_y: float
    step_x: float
    step_y: float
    reach_x: float
    reach_y: float


# The same as it travels between processes, and to the GPU.
RESAMPLING = np.dtype([(name, "<i4" if kind is int else "<f4") for name, kind in Resampling.__annotations__.items()])


def resampling(hw: tuple[int, int], spec: ModelSpec, mode: ResizeMode) -> tuple[Resampling, Placement] | None:
    """Return how an image of a size, (height, width), is resized; None where the CPU must: bicubically, or after its
    ends are cut off."""
    (height, width), (input_h, input_w) = hw, spec.input_hw
    if spec.sampling is Sampling.BICUBIC:
        return None
    if mode is ResizeMode.CROP and middle(hw, spec.covered_hw) != (slice(0, height), slice(0, width)):
        return None
    window, placement = place(hw, spec, mode)
    first_x, step_x, reach_x = _line(width, window.width, window.left, spec.sampling)
    first_y, step_y, reach_y = _line(height, window.height, window.top, spec.sampling)
    found = Resampling(
        height,
        width,
        max(0, window.left),
        max(0, window.top),
        min(input_w, window.left + window.width),
        min(input_h, window.top + window.height),
        first_x,
        first_y,
        step_x,
        step_y,
        reach_x,
        reach_y,
    )
    return found, placement


def _line(side: int, new_side: int, start: int, sampling: Sampling) -> tuple[float, float, float]:
    """Return first, step and reach along one side. start: where the resized image begins in the input."""
    if sampling is Sampling.ALIGN_CORNERS:
        step = (side - 1) / max(1, new_side - 1)
        return -start * step, step, 1.0
    step = side / new_side
    return (0.5 - start) * step - 0.5, step, max(1.0, step) if sampling is Sampling.ANTIALIAS else 1.0
