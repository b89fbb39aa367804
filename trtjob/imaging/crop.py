"""The part of an image that an object is in."""

import math

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.detections import Detection, RotatedBox

Pixels = tuple[int, int, int, int]  # x1, y1, x2, y2: those from the first corner on, to before the second


def crop_pixels(found: Detection, margin: float, hw: tuple[int, int]) -> Pixels:
    """Return the pixels that an upright box touches, with a margin, cut at the edges of an image of (height, width).

    margin: to each side, as a share of the box's own sides.

    >>> crop_pixels(Detection("dog", 1, 0.9, (10.2, 20.0, 30.0, 60.5)), 0.5, (100, 100))
    (0, 0, 40, 81)
    """
    x1, y1, x2, y2 = found.box
    across, down = margin * (x2 - x1), margin * (y2 - y1)
    left, top = max(0, math.floor(x1 - across)), max(0, math.floor(y1 - down))
    right, bottom = min(hw[1], math.ceil(x2 + across)), min(hw[0], math.ceil(y2 + down))
    # Of a box without an area, or on the last edge, the nearest pixel.
    left, top = min(left, hw[1] - 1), min(top, hw[0] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def crop(image: UInt8Array, found: Detection, margin: float) -> UInt8Array:
    """Return an object's part of an image, uint8 [H, W, 3]. A box that stands at an angle is turned upright; what of it
    lies outside of the image is black.

    margin: as of `crop_pixels`.
    """
    if found.rotated is not None:
        return _upright(image, found.rotated, margin)
    x1, y1, x2, y2 = crop_pixels(found, margin, (image.shape[0], image.shape[1]))
    return image[y1:y2, x1:x2]


def rotated_size(rotated: RotatedBox, margin: float) -> tuple[int, int]:
    """Return the width and height of a rotated box's crop."""
    corner, right, _, below = (np.array(point) for point in rotated.corners)
    width, height = np.linalg.norm(right - corner), np.linalg.norm(below - corner)
    return max(1, round(width * (1 + 2 * margin))), max(1, round(height * (1 + 2 * margin)))


def _upright(image: UInt8Array, rotated: RotatedBox, margin: float) -> UInt8Array:
    width, height = rotated_size(rotated, margin)
    corners = np.array(rotated.corners, np.float32)
    centre, along, down = corners.mean(0), corners[1] - corners[0], corners[3] - corners[0]
    grown = [centre + (1 + 2 * margin) * (x * along + y * down) / 2 for x, y in ((-1, -1), (1, -1), (-1, 1))]
    # Where the corners of pixels lie, not their centres.
    source = np.array(grown, np.float32) - 0.5
    target = np.array([[0, 0], [width, 0], [0, height]], np.float32) - 0.5
    return np.asarray(cv2.warpAffine(image, cv2.getAffineTransform(source, target), (width, height)), np.uint8)
