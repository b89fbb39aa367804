"""What an image file says of itself, read before any pixel is decoded: twenty bytes may claim gigabytes of pixels."""

import struct
from collections.abc import Callable

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.chunks import PNG_SIGNATURE
from trtjob.imaging.iso_media import (
    J2K_SIGNATURE,
    JP2_SIGNATURE,
    JXL_BARE_SIGNATURE,
    JXL_SIGNATURE,
    heif_kind,
    heif_size,
    jp2_size,
    jxl_size,
)
from trtjob.imaging.jpeg_segments import JPEG_SIGNATURE, jpeg_size
from trtjob.imaging.raw import is_raw, raw_preview
from trtjob.imaging.tiff import SIGNATURES as TIFF_SIGNATURES
from trtjob.imaging.tiff import tiff_size

BMP_SIGNATURE = b"BM"
# The most bytes of a pixel (four channels of 16 bits), and what filters and the compression's own marks may add.
_PNG_PIXEL_BYTES, _PNG_SPARE_BYTES = 8, 65_536
_BMP_32_BITS_BY_MASKS = struct.pack("<HI", 32, 3)
# By their bytes, those of Windows and OS/2.
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
HEAD_BYTES = 64  # with the brands of an AVIF or HEIC, of which each has four bytes
KINDS = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, HEIC, JPEG 2000, JPEG XL, DNG or CR2"


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ImageError where an image has no pixels, or more than `max_pixels`."""
    if width < 1 or height < 1:
        raise ImageError(FailureKind.DECODE, f"the image has no pixels: its header says {width} x {height}")
    if width * height > max_pixels:
        raise ImageError(
            FailureKind.TOO_LARGE,
            f"{width:,} x {height:,} pixels are more than the limit of {max_pixels:,} (TRTJOB_MAX_PIXELS)",
        )


def check_png(data: bytes, width: int, height: int) -> None:
    """Raise ImageError for chunks that claim more bytes than there are, for which OpenCV takes memory, and for pixels
    beyond the last."""
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


def image_kind(data: bytes) -> str:
    """Return which of the kinds that are read here a file is, by its first bytes; empty where it is none.

    >>> image_kind(b"GIF89a...")
    'GIF'
    """
    return heif_kind(data) or next((kind for signature, kind in _SIGNATURES.items() if data.startswith(signature)), "")


def begins_as_image(data: bytes) -> bool:
    """Tell whether a file of which only the first HEAD_BYTES are known, and no name, is an image that can be read.

    Two letters do not tell a BMP from a text, nor four a WebP from a sound, so more is looked at than in `image_kind`.

    >>> begins_as_image(b"BMX is a sport"), begins_as_image(b"GIF89a...")
    (False, True)
    """
    kind = image_kind(data)
    if kind == "JPEG":
        return data[2:3] == b"\xff"
    if kind == "BMP":
        return int.from_bytes(data[14:18], "little") in _BMP_HEADERS
    return bool(kind) and (kind != "WebP" or data[8:12] == b"WEBP")


def unread_kind(data: bytes) -> str:
    """Return the name of a kind of file that is not read here; empty where it is none that we know."""
    if data[4:8] == b"ftyp":
        return "Canon's CR3" if data[8:12] == b"crx " else "a video or another kind of MP4"
    return next((name for signature, name in _UNREAD.items() if data.startswith(signature)), "")


def probe_size(data: bytes, page: int | None = None) -> tuple[int, int] | None:
    """Return the (width, height) that an image's header says it has, None where it cannot be told.

    page: of a TIFF of several; in all other kinds none is larger than what the header says.
    Of an AVIF or HEIC it is the largest of the sizes that it names, of a raw file its preview's.

    >>> probe_size(b"GIF89a" + bytes([64, 1, 240, 0]))
    (320, 240)
    """
    try:
        kind = image_kind(data)
        if kind == "TIFF" and page is not None:
            return tiff_size(data, page)
        return _SIZES[kind](data) if kind else None
    except (struct.error, IndexError, KeyError, ValueError, OverflowError, StopIteration, ImageError):
        return None  # cut off within the header


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    if not is_raw(data):
        return tiff_size(data)
    preview = raw_preview(data)
    return jpeg_size(preview.jpeg) if preview else None


def is_sixteen_bit_png(data: bytes) -> bool:
    """Tell whether a file is a PNG with samples of 16 bits; its size has been read."""
    return data.startswith(PNG_SIGNATURE) and data[24] == 16


def check_bmp(data: bytes) -> None:
    """Raise ImageError for an order of colours that only masks tell: behind a header of 40 or 52 bytes OpenCV ignores
    them."""
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


_SIGNATURES = {
    JPEG_SIGNATURE: "JPEG",
    PNG_SIGNATURE: "PNG",
    BMP_SIGNATURE: "BMP",
    b"RIFF": "WebP",
    **dict.fromkeys(TIFF_SIGNATURES, "TIFF"),
    b"GIF8": "GIF",
    **dict.fromkeys((JP2_SIGNATURE, J2K_SIGNATURE), "JPEG 2000"),
    **dict.fromkeys((JXL_SIGNATURE, JXL_BARE_SIGNATURE), "JPEG XL"),
}
_SIZES: dict[str, Callable[[bytes], tuple[int, int] | None]] = {
    "JPEG": jpeg_size,
    "PNG": _png_size,
    "BMP": _bmp_size,
    "WebP": _webp_size,
    "TIFF": _tiff_size,
    "GIF": _gif_size,
    "AVIF": heif_size,
    "HEIC": heif_size,
    "JPEG 2000": jp2_size,
    "JPEG XL": jxl_size,
}
_UNREAD = {
    b"II\xbc\x01": "JPEG XR",
    b"8BPS": "Photoshop",
    b"P5": "PGM",
    b"P6": "PPM",
    b"\0\0\1\0": "ICO",
    b"v/1\x01": "OpenEXR",
}
