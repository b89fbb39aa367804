"""The segments of a JPEG file: what it says of its picture before the compressed data."""

import struct
from collections.abc import Iterator

JPEG_SIGNATURE = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
# Markers that carry no length: TEM, RST0 to RST7, SOI, EOI.
_BARE = frozenset({0x01, *range(0xD0, 0xDA)})
# Start-of-frame markers: C0 to CF without DHT, JPG and DAC, and JPEG-LS'.
_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
JPEG_SCAN = 0xDA
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
APP1 = 0xE1
EXIF = b"Exif\0\0"
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF})


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) of a JPEG's frame, None where it has none. Raises as `jpeg_segments` does."""
    for marker, at in jpeg_segments(data):
        if marker in _FRAME:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
    return None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each segment's marker and where its length stands, up to the first scan's.

    Raises IndexError, ValueError or struct.error where the file ends before.
    """
    # Segments are skipped whole, so a thumbnail inside the EXIF segment is never taken for the image. What lies between
    # them is passed over as libjpeg does (next_marker in jdmarker.c), else a byte there would hide the size.
    at = 2
    while True:
        at = data.index(0xFF, at) + 1
        marker = data[at]
        if marker == 0xFF or marker == 0x00:
            continue
        at += 1
        if marker in _BARE:
            continue
        yield marker, at
        if marker == JPEG_SCAN:
            return
        at += struct.unpack_from(">H", data, at)[0]


def jpeg_scans(data: bytes) -> int:
    """Return how often a JPEG's picture is gone over: once where its first scan has all of it."""
    try:
        frame, components = 0, 0
        for marker, at in jpeg_segments(data):
            if marker in _FRAME:
                frame, components = marker, data[at + 7]
            elif marker == JPEG_SCAN and frame not in _PROGRESSIVE and data[at + 2] == components:
                return 1
    except (IndexError, ValueError, struct.error):
        return 1  # cut off; the decoder says so
    return data.count(b"\xff\xda")  # within compressed data, 0xFF is followed by 0 and restart markers alone


def jpeg_bits(data: bytes) -> int:
    """Return how many bits a sample of a JPEG has; its size has been read."""
    return next(data[at + 2] for marker, at in jpeg_segments(data) if marker in _FRAME)


def is_lossless_jpeg(data: bytes) -> bool:
    """Tell whether a JPEG is lossless, as a camera stores its sensor's numbers. Raises as `jpeg_segments` does."""
    return any(marker in _LOSSLESS for marker, _ in jpeg_segments(data))


def has_exif(data: bytes) -> bool:
    """Tell whether a JPEG has an EXIF segment. Raises as `jpeg_segments` does."""
    return any(marker == APP1 and data.startswith(EXIF, at + 2) for marker, at in jpeg_segments(data))
