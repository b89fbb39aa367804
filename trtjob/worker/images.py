"""The bytes of an image file -> its pixels, or the reason why there are none."""

import struct

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import ImageError
from trtjob.jobs.states import FailureKind

# Broken images have their record; what OpenCV would say of them on standard error is no more than noise.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
# JPEG markers that carry no length: TEM, RST0 to RST7, SOI, EOI.
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
# JPEG's start-of-frame markers: C0 to CF without DHT, JPG and DAC.
_JPEG_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_SHORT = 3


def decode_image(data: bytes, *, max_pixels: int) -> UInt8Array:
    """Return the pixels of an image: uint8 [H, W, 3], BGR, turned as its EXIF orientation says.

    Grey becomes colour, 16 bits become 8 (the upper ones), CMYK is converted, an alpha channel is dropped: the colours
    under it stay as they are stored. The size in the header is checked before any pixel is decoded.
    Raises ImageError: `too_large` above `max_pixels`, `decode` for anything that is not a whole image.
    """
    if not data:
        raise ImageError(FailureKind.DECODE, "the file is empty")
    size = probe_size(data)
    if size is not None:
        _check_size(*size, max_pixels)
    if data.startswith(_PNG_SIGNATURE) and _PNG_END not in data[-64:] and _PNG_END not in data:
        raise ImageError(FailureKind.DECODE, "the PNG file is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as err:
        reason = str(err).strip().splitlines()[-1] if str(err) else "out of memory"
        raise ImageError(FailureKind.DECODE, f"the image cannot be decoded: {reason}") from err
    if image is None:
        what = "the image is damaged, cut off or of a kind that is not supported" if size else "it is not an image"
        raise ImageError(FailureKind.DECODE, what)
    _check_size(image.shape[1], image.shape[0], max_pixels)  # of formats whose header is not read here
    return np.asarray(image, np.uint8)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(FailureKind.DECODE, f"the image has no pixels: its header says {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(
            FailureKind.TOO_LARGE,
            f"{width:,} x {height:,} pixels are more than the limit of {max_pixels:,} (TRTJOB_MAX_PIXELS)",
        )


def probe_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that a JPEG, PNG, WebP, BMP or TIFF says it has, None where it cannot be told."""
    try:
        for signature, read in _READERS.items():
            if data.startswith(signature):
                return read(data)
    except (struct.error, IndexError):
        pass  # cut off within the header: the decoder will say so
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    # Segments are skipped whole, so a thumbnail inside the EXIF segment is never taken for the image.
    at = 2
    while True:
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker == _JPEG_SCAN:
            return None
        elif marker in _JPEG_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _png_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _bmp_size(data: bytes) -> tuple[int, int]:
    (header,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return width, abs(height)  # a negative height: rows from the top


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16] if data[8:12] == b"WEBP" else b""
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = "<" if data[:2] == b"II" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    sizes = {}
    for index in range(entries):
        at = directory + 2 + 12 * index
        tag, kind = struct.unpack_from(order + "HH", data, at)
        if tag in (_TIFF_WIDTH, _TIFF_HEIGHT):
            (sizes[tag],) = struct.unpack_from(order + ("H" if kind == _TIFF_SHORT else "I"), data, at + 8)
    return (sizes[_TIFF_WIDTH], sizes[_TIFF_HEIGHT]) if len(sizes) == 2 else None


_READERS = {
    b"\xff\xd8": _jpeg_size,
    _PNG_SIGNATURE: _png_size,
    b"BM": _bmp_size,
    b"RIFF": _webp_size,
    b"II*\0": _tiff_size,
    b"MM\0*": _tiff_size,
}
