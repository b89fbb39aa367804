"""Masks on an image: colours that it shows through."""

from collections.abc import Sequence

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.captions import Color
from trtjob.imaging.masks import Mask

_OPACITY = 0.45
_MOST = 255  # masks in one pass: a byte tells them apart, and 0 is none of them


def tint(image: UInt8Array, masks: Sequence[tuple[Mask, Color]]) -> None:
    """Tint the pixels of each mask, in place; where masks overlap, the last one's colour counts.

    image: uint8 [H, W, 3] BGR and contiguous. Raises ValueError where a mask is of another size or damaged.
    """
    for first in range(0, len(masks), _MOST):
        _tint(image, masks[first : first + _MOST])


def _tint(image: UInt8Array, masks: Sequence[tuple[Mask, Color]]) -> None:
    """Tint as many masks as a byte tells apart. Pixels are mixed once, not once for each mask."""
    height, width = image.shape[:2]
    columns = np.zeros((width, height), np.uint8)  # as masks lie in memory
    colors = np.zeros((_MOST + 1, 1, 3), np.uint8)
    for number, (mask, color) in enumerate(masks, start=1):
        np.copyto(columns, number, where=mask.decode().T)
        colors[number] = color
    numbers = cv2.transpose(columns)
    mixed = cv2.applyColorMap(numbers, colors)
    cv2.addWeighted(mixed, _OPACITY, image, 1 - _OPACITY, 0, dst=mixed)
    cv2.copyTo(mixed, numbers, image)
