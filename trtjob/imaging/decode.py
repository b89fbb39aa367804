"""The bytes of an image file -> its pixels, or the reason why there are none."""

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.headers import JPEG_SIGNATURE, KINDS, PNG_SIGNATURE, check_png, is_known, jpeg_scans, probe_size

# Broken images have their record; what OpenCV would say of them on standard error is no more than noise.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# Progressive JPEGs have about ten. Each is a pass over the whole picture, so a small file could take hours.
_MOST_JPEG_SCANS = 100


def decode_image(data: bytes, *, max_pixels: int) -> UInt8Array:
    """Return the pixels of an image: uint8 [H, W, 3], BGR, turned as its EXIF orientation says.

    Grey becomes colour, 16 bits become 8 (the upper ones), CMYK is converted, an alpha channel is dropped: the colours
    under it stay as they are stored. The size in the header is checked before any pixel is decoded, so a kind whose
    header is not read here is refused, whatever OpenCV could make of it: twenty bytes may claim gigabytes of pixels.
    Raises ImageError: `too_large` above `max_pixels`, `decode` for anything that is not a whole image.
    """
    if not data:
        raise ImageError(FailureKind.DECODE, "the file is empty")
    size = probe_size(data)
    if size is None:
        what = "the image's header is damaged or cut off"
        raise ImageError(
            FailureKind.DECODE, what if is_known(data) else f"it is not an image of a kind we read: {KINDS}"
        )
    _check_size(*size, max_pixels)
    if data.startswith(PNG_SIGNATURE):
        check_png(data, *size)
    if data.startswith(JPEG_SIGNATURE) and (scans := jpeg_scans(data)) > _MOST_JPEG_SCANS:
        raise ImageError(FailureKind.DECODE, f"the JPEG has {scans:,} scans, which would take long to decode")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as err:
        reason = str(err).strip().splitlines()[-1] if str(err) else "out of memory"
        raise ImageError(FailureKind.DECODE, f"the image cannot be decoded: {reason}") from err
    if image is None:
        raise ImageError(FailureKind.DECODE, "the image is damaged, cut off or of a kind that is not supported")
    return np.asarray(image, np.uint8)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(FailureKind.DECODE, f"the image has no pixels: its header says {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(
            FailureKind.TOO_LARGE,
            f"{width:,} x {height:,} pixels are more than the limit of {max_pixels:,} (TRTJOB_MAX_PIXELS)",
        )
