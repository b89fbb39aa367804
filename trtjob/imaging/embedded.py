"""What an image file says of its picture beside its pixels: the blocks of EXIF, of its colour profile and of XMP."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from trtjob.imaging.chunks import png_chunks, webp_chunks
from trtjob.imaging.exif import exif_directory
from trtjob.imaging.exif_writer import exif_from_directories
from trtjob.imaging.headers import image_kind
from trtjob.imaging.iso_media import Span, boxes, jxl_exif
from trtjob.imaging.jpeg_segments import APP1, EXIF, jpeg_segments
from trtjob.imaging.pillow_kinds import pillow_info

_APP2 = 0xE2
JPEG_XMP, _ICC = b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_ICC_NUMBER_BYTES = 2  # which part of how many
PNG_XMP = b"XML:com.adobe.xmp\0"
_COLOR_SPACE, _RGB = slice(16, 20), b"RGB "  # of a profile (ICC.1:2010, 7.2.6)
_TIFF_ICC, _TIFF_XMP = 0x8773, 0x02BC
_UUID_BYTES, _COLOR_HEAD_BYTES, _BY_PROFILE = 16, 3, b"\2"
_JP2_EXIF, _JP2_XMP = b"JpgTiffExif->JP2", bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")
_MOST_BYTES = 1 << 20
_DAMAGED = (struct.error, IndexError, ValueError, OverflowError, zlib.error)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The blocks, as they stand in the file, without what marks them there; empty where there is none."""

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""


NOTHING = Embedded()


def embedded(data: bytes) -> Embedded:
    """Return what a file has of them, nothing where they are damaged. A profile for other colours than RGB is left out.

    Of a TIFF and a camera's raw file they are made of its directories.
    """
    kind = image_kind(data)
    try:
        if kind == "JPEG":
            found = _in_jpeg(data)
        elif kind == "PNG":
            found = _in_png(data)
        elif kind == "WebP":
            found = _in_webp(data)
        elif kind in ("AVIF", "HEIC"):
            found = _by_pillow(data, kind)
        elif kind == "JPEG XL":
            found = Embedded(exif=jxl_exif(data), xmp=_box(data, b"xml "))
        elif kind == "JPEG 2000":
            found = _in_jp2(data)
        elif kind == "TIFF":
            found = _in_tiff(data)
        else:
            found = NOTHING
    except _DAMAGED:
        return NOTHING
    return found if found.icc[_COLOR_SPACE] == _RGB else Embedded(found.exif, b"", found.xmp)


def exif_of(data: bytes) -> bytes:
    """Return what tells of a picture as EXIF does: a file's block, or a TIFF or raw file itself."""
    return data if image_kind(data) == "TIFF" else embedded(data).exif


def _in_jpeg(data: bytes) -> Embedded:
    exif, xmp, icc = b"", b"", b""
    for marker, at in jpeg_segments(data):
        if marker not in (APP1, _APP2):
            continue
        segment = data[at + 2 : at + struct.unpack_from(">H", data, at)[0]]
        if segment.startswith(EXIF):
            exif = exif or segment[len(EXIF) :]
        elif segment.startswith(JPEG_XMP):
            xmp = xmp or segment[len(JPEG_XMP) :]
        elif segment.startswith(_ICC):  # its parts stand in their order
            icc += segment[len(_ICC) + _ICC_NUMBER_BYTES :]
    return Embedded(exif, icc, xmp)


def _in_png(data: bytes) -> Embedded:
    found = {b"eXIf": b"", b"iCCP": b"", b"iTXt": b""}
    for kind, at, length in png_chunks(data):
        chunk = data[at : at + length] if kind in found and length <= _MOST_BYTES else b""
        if kind == b"iCCP":
            _, _, packed = chunk.partition(b"\0")
            found[kind] = _inflated(packed[1:])
        elif kind == b"iTXt":
            found[kind] = found[kind] or _png_text(chunk, PNG_XMP)
        elif kind == b"eXIf":
            found[kind] = chunk
    return Embedded(found[b"eXIf"], found[b"iCCP"], found[b"iTXt"])


def _png_text(chunk: bytes, keyword: bytes) -> bytes:
    """Return the text of an iTXt chunk with a keyword: whether it is deflated and how, two texts on it, then itself."""
    if not chunk.startswith(keyword):
        return b""
    *_, text = chunk[len(keyword) + 2 :].split(b"\0", 2)
    return _inflated(text) if chunk[len(keyword)] else text


def _inflated(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _MOST_BYTES)


def _in_webp(data: bytes) -> Embedded:
    found = {b"EXIF": b"", b"ICCP": b"", b"XMP ": b""}
    for kind, at, length in webp_chunks(data):
        if kind in found and length <= _MOST_BYTES:
            found[kind] = data[at : at + length]
    return Embedded(found[b"EXIF"].removeprefix(EXIF), found[b"ICCP"], found[b"XMP "])


def _in_jp2(data: bytes) -> Embedded:
    """Blocks lie in boxes with a number of their own, the profile in that of the colours (ISO/IEC 15444-1, I.5.3.3)."""
    numbered = {
        data[start : start + _UUID_BYTES]: data[start + _UUID_BYTES : end] for start, end in _boxes(data, b"uuid")
    }
    colors = (data[start:end] for outer in _boxes(data, b"jp2h") for start, end in _boxes(data, b"colr", outer))
    icc = next((color[_COLOR_HEAD_BYTES:] for color in colors if color[:1] == _BY_PROFILE), b"")
    return Embedded(numbered.get(_JP2_EXIF, b"").removeprefix(EXIF), icc, numbered.get(_JP2_XMP, b""))


def _box(data: bytes, wanted: bytes) -> bytes:
    """Return what is in the first box of a kind, if it is small enough."""
    start, end = next(_boxes(data, wanted), (0, 0))
    return data[start:end]


def _boxes(data: bytes, wanted: bytes, within: Span | None = None) -> Iterator[Span]:
    return ((start, end) for kind, (start, end) in boxes(data, within) if kind == wanted and end - start <= _MOST_BYTES)


def _in_tiff(data: bytes) -> Embedded:
    first = exif_directory(data)
    return Embedded(exif_from_directories(data), first.raw(_TIFF_ICC), first.raw(_TIFF_XMP))


def _by_pillow(data: bytes, kind: str) -> Embedded:
    info = pillow_info(data, kind)
    exif, icc, xmp = (_bytes(info.get(name)) for name in ("exif", "icc_profile", "xmp"))
    return Embedded(exif.removeprefix(EXIF), icc, xmp)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) and len(value) <= _MOST_BYTES else b""
