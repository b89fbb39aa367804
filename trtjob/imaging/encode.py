"""Pixels -> the bytes of an image file."""

import cv2

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError

_JPEG = frozenset({".jpg", ".jpeg", ".jpe"})
# PNG: compression level 1 takes a quarter of the default's time for files a tenth larger.
_PARAMETERS: dict[str, list[int]] = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 90],
    ".bmp": [],
    ".tif": [],
    ".tiff": [],
}
_MAX_SIDE = {".webp": 16_383, **dict.fromkeys(_JPEG, 65_500)}


def encode_image(image: UInt8Array, suffix: str, *, jpeg_quality: int = 90) -> bytes:
    r"""Return the image, uint8 [H, W, 3] BGR, as a file of the kind that `suffix` names. Raises ImageError: `write`.

    >>> import numpy as np
    >>> encode_image(np.zeros((2, 3, 3), np.uint8), ".png")[:4]
    b'\x89PNG'
    """
    suffix = suffix.lower()
    longest, limit = max(image.shape[:2]), _MAX_SIDE.get(suffix)
    if limit is not None and longest > limit:
        raise ImageError(
            FailureKind.WRITE, f"a {suffix} file cannot have a side of {longest:,} pixels: {limit:,} is the limit"
        )
    parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix in _JPEG else _PARAMETERS[suffix]
    try:
        done, data = cv2.imencode(suffix, image, parameters)
    except cv2.error as err:
        raise ImageError(FailureKind.WRITE, f"the annotated image cannot be encoded: {err}") from err
    if not done:
        raise ImageError(FailureKind.WRITE, f"the annotated image cannot be encoded as {suffix}")
    return data.tobytes()
