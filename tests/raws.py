"""Raw files of cameras, written here: a JPEG among directories, as DNG and CR2 have it."""

import struct
from collections.abc import Mapping, Sequence

SHORT, LONG = 3, 4
SUBFILE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS = 254, 256, 257, 258, 259, 262, 273
ORIENTATION, SAMPLES, ROWS, STRIP_BYTES, SUB_DIRECTORIES, DNG_VERSION = 274, 277, 278, 279, 330, 50706
CFA = 32803

Tags = Mapping[int, int]


def dng(jpeg: bytes, orientation: int = 1) -> bytes:
    """Return a DNG: a thumbnail, and below it the sensor's numbers and, unless it is empty, a JPEG."""
    sensor = bytes(range(64))
    start = 16
    below: list[Tags] = [
        {
            SUBFILE: 0,
            WIDTH: 8,
            HEIGHT: 8,
            BITS: 8,
            COMPRESSION: 1,
            PHOTOMETRIC: CFA,
            STRIP_OFFSETS: start,
            STRIP_BYTES: 64,
        }
    ]
    if jpeg:
        below.append(
            {SUBFILE: 1, WIDTH: 48, HEIGHT: 32, COMPRESSION: 7, STRIP_OFFSETS: start + 64, STRIP_BYTES: len(jpeg)}
        )
    body = sensor + jpeg
    at = start + len(body)
    offsets = []
    directories = b""
    for tags in below:
        offsets.append(at + len(directories))
        directories += _directory(tags, 0)
    first = at + len(directories)
    thumbnail = {SUBFILE: 1, WIDTH: 4, HEIGHT: 4, BITS: 8, COMPRESSION: 1, STRIP_OFFSETS: start, STRIP_BYTES: 16}
    more = len(offsets) > 1
    ending = struct.pack(f"<{len(offsets)}I", *offsets)
    entries = {**thumbnail, ORIENTATION: orientation, DNG_VERSION: 0x0401}
    place = first + 2 + 12 * (len(entries) + 1) + 4 if more else offsets[0]
    sub = (SUB_DIRECTORIES, LONG, len(offsets), place)
    return b"II*\0" + struct.pack("<I8x", first) + body + directories + _directory(entries, 0, [sub]) + ending


def cr2(jpeg: bytes, sensor: bytes, orientation: int = 1) -> bytes:
    """Return a CR2: a JPEG first, and in its second directory the sensor's numbers, a lossless JPEG."""
    start = 16
    second = start + len(jpeg) + len(sensor)
    numbers = {WIDTH: 48, HEIGHT: 32, COMPRESSION: 6, STRIP_OFFSETS: start + len(jpeg), STRIP_BYTES: len(sensor)}
    directory = _directory(numbers, 0)
    first = second + len(directory)
    picture = {WIDTH: 48, HEIGHT: 32, BITS: 8, COMPRESSION: 6, STRIP_OFFSETS: start, STRIP_BYTES: len(jpeg)}
    head = b"II*\0" + struct.pack("<I", first) + b"CR\2\0" + bytes(4)
    return head + jpeg + sensor + directory + _directory({**picture, ORIENTATION: orientation}, second)


def _directory(tags: Tags, following: int, more: Sequence[tuple[int, int, int, int]] = ()) -> bytes:
    entries = sorted(
        [*((tag, SHORT if tag in (BITS, ORIENTATION) else LONG, 1, value) for tag, value in tags.items()), *more]
    )
    packed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)
