"""What an image file says of itself, read before any pixel is decoded: twenty bytes may claim gigabytes of pixels."""

import struct
from collections.abc import Iterator

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.tiff import SIGNATURES as TIFF_SIGNATURES
from trtjob.imaging.tiff import tiff_size

JPEG_SIGNATURE = b"\xff\xd8"
BMP_SIGNATURE = b"BM"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The most bytes of a pixel (four channels of 16 bits), and what filters and the compression's own marks may add.
_PNG_PIXEL_BYTES, _PNG_SPARE_BYTES = 8, 65_536
# JPEG markers that carry no length: TEM, RST0 to RST7, SOI, EOI.
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
# JPEG's start-of-frame markers: C0 to CF without DHT, JPG and DAC, and JPEG-LS'.
_JPEG_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_BMP_32_BITS_BY_MASKS = struct.pack("<HI", 32, 3)
KINDS = "JPEG, PNG, WebP, BMP, TIFF or GIF"


def check_png(data: bytes, width: int, height: int) -> None:
    """Refuse chunks that claim more bytes than there are, for which OpenCV takes memory, and pixels beyond the last."""
    spare = _PNG_PIXEL_BYTES * (width + 2) * height + _PNG_SPARE_BYTES
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length
        if at > len(data):
            raise ImageError(FailureKind.DECODE, "the PNG file is cut off")
        spare -= length if kind == b"IDAT" else 0
    if spare < 0:
        raise ImageError(FailureKind.DECODE, f"the PNG file holds more data than {width:,} x {height:,} pixels can be")


def unread_kind(data: bytes) -> str:
    """Return the name of a kind of image that is not read here; empty where it is none that we know."""
    if data[4:8] == b"ftyp":
        return {b"av": "AVIF", b"he": "HEIC", b"mi": "HEIC"}.get(data[8:10], "")
    return next((name for signature, name in _UNREAD.items() if data.startswith(signature)), "")


def is_known(data: bytes) -> bool:
    """Whether a file begins as one of the kinds that are read here."""
    return any(data.startswith(signature) for signature in _READERS)


def probe_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that a JPEG, PNG, WebP, BMP, TIFF or GIF says it has, None where it cannot be told.

    >>> probe_size(b"GIF89a" + bytes([64, 1, 240, 0]))
    (320, 240)
    """
    try:
        for signature, read in _READERS.items():
            if data.startswith(signature):
                return read(data)
    except (struct.error, IndexError, KeyError, ValueError, OverflowError, StopIteration):
        pass  # cut off within the header
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    for marker, at in jpeg_segments(data):
        if marker in _JPEG_FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each segment's marker and where its length stands, up to the first scan's."""
    # Segments are skipped whole, so a thumbnail inside the EXIF segment is never taken for the image. What lies between
    # them is passed over as libjpeg does (next_marker in jdmarker.c), else a byte there would hide the size.
    at = 2
    while True:
        at = data.index(0xFF, at) + 1
        marker = data[at]
        if marker == 0xFF or marker == 0x00:
            continue
        at += 1
        if marker in _JPEG_BARE:
            continue
        yield marker, at
        if marker == _JPEG_SCAN:
            return
        at += struct.unpack_from(">H", data, at)[0]


def jpeg_scans(data: bytes) -> int:
    """Return how often a JPEG's picture is gone over: once where its first scan has all of it."""
    try:
        frame, components = 0, 0
        for marker, at in jpeg_segments(data):
            if marker in _JPEG_FRAME:
                frame, components = marker, data[at + 7]
            elif marker == _JPEG_SCAN and frame not in _JPEG_PROGRESSIVE and data[at + 2] == components:
                return 1
    except (IndexError, ValueError, struct.error):
        return 1  # cut off; the decoder says so
    return data.count(b"\xff\xda")  # within compressed data, 0xFF is followed by 0 and restart markers alone


def jpeg_bits(data: bytes) -> int:
    """Return how many bits a sample of a JPEG has; its size has been read."""
    return next(data[at + 2] for marker, at in jpeg_segments(data) if marker in _JPEG_FRAME)


def has_sixteen_bits(data: bytes) -> bool:
    """Whether a PNG has samples of 16 bits."""
    return data.startswith(PNG_SIGNATURE) and data[24] == 16


def check_bmp(data: bytes) -> None:
    """Refuse an order of colours that only masks tell: behind a header of 40 or 52 bytes OpenCV ignores them."""
    has_masks = data[14] in (40, 52) and data[28:34] == _BMP_32_BITS_BY_MASKS
    if has_masks and data[54:66] != struct.pack("<III", 0xFF0000, 0xFF00, 0xFF):
        raise ImageError(FailureKind.DECODE, "the BMP's colours are in an order that is not read here")


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


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


_READERS = {
    JPEG_SIGNATURE: _jpeg_size,
    PNG_SIGNATURE: _png_size,
    BMP_SIGNATURE: _bmp_size,
    b"RIFF": _webp_size,
    **dict.fromkeys(TIFF_SIGNATURES, tiff_size),
    b"GIF8": _gif_size,
}
_UNREAD = {
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"8BPS": "Photoshop",
    b"P5": "PGM",
    b"P6": "PPM",
    b"\0\0\1\0": "ICO",
    b"v/1\x01": "OpenEXR",
}
