"""A small picture of an image, for pages that show many."""

import cv2
import numpy as np
from cv2.typing import MatLike

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.encode import encode_image

_QUALITY = 70
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}


def thumbnail(image: UInt8Array, px: int) -> bytes:
    """Return an image, uint8 [H, W, 3] BGR, as a JPEG whose longer side has so many pixels, or the image's if fewer.

    Bilinear without averaging: of a photograph of 12 megapixels, averaging takes a hundred times as long.

    >>> import numpy as np
    >>> small = cv2.imdecode(np.frombuffer(thumbnail(np.zeros((480, 640, 3), np.uint8), 320), np.uint8), 1)
    >>> small.shape
    (240, 320, 3)
    """
    return _resized(image, (image.shape[0], image.shape[1]), px)


def thumbnail_of_jpeg(data: UInt8Array, hw: tuple[int, int], px: int) -> bytes:
    """Return the thumbnail of a JPEG file of such a size, decoded no larger than it takes; empty where it cannot be."""
    shrink = next((by for by in _REDUCED if max(hw) >= by * px), 1)
    image = cv2.imdecode(data, _REDUCED.get(shrink, cv2.IMREAD_COLOR))
    return b"" if image is None else _resized(image, hw, px)


def _resized(image: MatLike, hw: tuple[int, int], px: int) -> bytes:
    """hw: the size that the image has, or had before it was decoded smaller."""
    height, width = hw
    shrink = min(1.0, px / max(hw))
    small = cv2.resize(image, (max(1, round(width * shrink)), max(1, round(height * shrink))))
    return encode_image(np.asarray(small, np.uint8), ".jpg", jpeg_quality=_QUALITY)
