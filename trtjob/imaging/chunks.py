"""The chunks of which PNG and WebP files are made."""

import struct
from collections.abc import Iterator

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RIFF_HEADER_BYTES = 12


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, where what is in it begins, and how many bytes it says to have (PNG 1.2, 3.2)."""
    at = len(PNG_SIGNATURE)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        yield kind, at + 8, length
        at += 12 + length


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the same of a WebP (RFC 9649, 2.3)."""
    at = _RIFF_HEADER_BYTES
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, length
        at += 8 + length + length % 2
