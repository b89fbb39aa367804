"""How many pictures an image file holds. The first one is read; whoever counts on the others has to be told."""

import struct
from collections.abc import Iterator

from trtjob.imaging import tiff
from trtjob.imaging.chunks import PNG_SIGNATURE, png_chunks, webp_chunks
from trtjob.imaging.iso_media import heif_frames, heif_kind
from trtjob.imaging.raw import is_raw

_GIF_IMAGE, _GIF_EXTENSION = 0x2C, 0x21
_GIF_COLOR_TABLE = 0x80


def page_count(data: bytes) -> int:
    """Return how many pages a TIFF has, or frames a PNG, WebP, GIF, AVIF or HEIC that moves; 1 for all others.

    data: a whole image. What is damaged behind the first picture is not counted.
    """
    if data.startswith(tiff.SIGNATURES):
        return 1 if is_raw(data) else tiff.page_count(data)
    count = 0
    try:
        if data.startswith(PNG_SIGNATURE):
            count = _png_frames(data)
        elif data.startswith(b"RIFF"):
            count = sum(kind == b"ANMF" for kind, _, _ in webp_chunks(data))
        elif heif_kind(data):
            count = heif_frames(data)
        elif data.startswith(b"GIF8"):
            for _ in _gif_images(data):
                count += 1
    except (struct.error, IndexError):
        pass
    return max(1, count)


def _png_frames(data: bytes) -> int:
    for kind, at, _ in png_chunks(data):
        if kind == b"acTL":
            return int(struct.unpack_from(">I", data, at)[0])
        if kind == b"IDAT":
            break
    return 1


def _gif_images(data: bytes) -> Iterator[int]:
    """Yield where each image begins."""
    at = 13 + _gif_table_bytes(data[10])
    while (block := data[at]) in (_GIF_IMAGE, _GIF_EXTENSION):
        if block == _GIF_IMAGE:
            yield at
            at += 11 + _gif_table_bytes(data[at + 9])
        else:
            at += 2
        while length := data[at]:
            at += 1 + length
        at += 1


def _gif_table_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _GIF_COLOR_TABLE else 0
