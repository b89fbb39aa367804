"""The picture inside a camera's raw file: the JPEG that the camera has put into a DNG or a CR2 beside its sensor's
numbers. Both are TIFF files by their structure."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trtjob.imaging.jpeg_segments import JPEG_SIGNATURE, is_lossless_jpeg
from trtjob.imaging.tiff import CUT_OFF, Page, Tag, pages, sub_pages

_CR2 = (8, b"CR")  # where Canon's mark stands in the file
_MOST_PAGES = 8
_JPEG_CODECS = (6, 7)
_UPRIGHT = 1


@dataclass(frozen=True, slots=True)
class Preview:
    """A JPEG file inside a raw file, and the orientation that the latter tells (Exif 2.3, 4.6.4)."""

    jpeg: bytes
    orientation: int


def is_raw(data: bytes) -> bool:
    """Tell whether a TIFF is a DNG or a CR2."""
    at, mark = _CR2
    try:
        return data.startswith(mark, at) or Tag.DNG_VERSION in next(pages(data)).entries
    except (*CUT_OFF, StopIteration):
        return False


def raw_preview(data: bytes) -> Preview | None:
    """Return the largest JPEG inside a raw file, None where there is none."""
    try:
        first = next(pages(data))
        start, end = max(_pictures(data), key=lambda span: span[1] - span[0], default=(0, 0))
        return Preview(data[start:end], first.value(Tag.ORIENTATION, _UPRIGHT)) if end else None
    except (*CUT_OFF, StopIteration):
        return None


def _pictures(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each JPEG that is a picture begins and ends: that of a sensor's numbers is lossless."""
    for page in islice(pages(data), _MOST_PAGES):
        for directory in (page, *sub_pages(page)):
            start, length = _jpeg_in(directory)
            jpeg = data[start : start + length]
            if len(jpeg) == length and jpeg.startswith(JPEG_SIGNATURE) and not _is_lossless(jpeg):
                yield start, start + length


def _jpeg_in(page: Page) -> tuple[int, int]:
    if page.value(Tag.JPEG_BYTES, 0):
        return page.value(Tag.JPEG_OFFSET, 0), page.value(Tag.JPEG_BYTES, 0)
    if page.value(Tag.COMPRESSION, 1) in _JPEG_CODECS and len(page.values(Tag.STRIP_OFFSETS)) == 1:
        return page.value(Tag.STRIP_OFFSETS, 0), page.value(Tag.STRIP_BYTES, 0)
    return 0, 0


def _is_lossless(jpeg: bytes) -> bool:
    try:
        return is_lossless_jpeg(jpeg)
    except (IndexError, ValueError, struct.error):
        return True  # it is cut off before its picture begins
