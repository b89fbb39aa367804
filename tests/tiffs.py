"""TIFF files of every kind, written here, where no library refuses to."""

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SHORT, LONG, LONG8 = 3, 4, 16
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
SUBFILE, ORIENTATION, PREDICTOR, COLOR_MAP, EXTRA_SAMPLES, SAMPLE_FORMAT = 254, 274, 317, 320, 338, 339

Tags = Mapping[int, int | Sequence[int]]


def packbits(data: bytes) -> bytes:
    """Compress as Apple's PackBits, without runs."""
    parts = [data[at : at + 128] for at in range(0, len(data), 128)]
    return b"".join(bytes([len(part) - 1]) + part for part in parts)


def lzw(data: bytes) -> bytes:
    """Compress as TIFF's LZW, with a table that is cleared before it grows: every code has nine bits."""
    codes: list[int] = []
    for at in range(0, len(data), 200):
        codes += [256, *data[at : at + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


CODECS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: lzw,
    8: zlib.compress,
    32773: packbits,
    32946: zlib.compress,
}


def tiff(
    image: NDArray[Any],
    *,
    compression: int = 1,
    encode: Callable[[bytes], bytes] | None = None,
    rows: int = 16,
    tile: int = 0,
    planar: bool = False,
    big: bool = False,
    order: Literal["<", ">"] = "<",
    tags: Tags | None = None,
    pages: int = 1,
    first: bool = False,
) -> bytes:
    """Return a file of an image [H, W] or [H, W, C], in strips of some rows, or square tiles, before its directory.

    encode: of a strip's bytes, where `compression` says something else; tags: more of them, or other values.
    pages: how often its directory is there; first: it is there once, before the strips.
    A boolean image is packed, eight pixels a byte.
    """
    height, width = image.shape[:2]
    samples = image.shape[2] if image.ndim == 3 else 1
    encode = encode or CODECS[compression]
    is_bits = image.dtype == np.bool_
    planes = [image[..., n] for n in range(samples)] if planar and samples > 1 else [image]
    blocks = [block for plane in planes for block in _blocks(plane, rows, tile)]
    swapped = image.dtype.newbyteorder(order)
    raw = [np.packbits(b, axis=1).tobytes() if is_bits else b.astype(swapped).tobytes() for b in blocks]
    strips = [encode(data) for data in raw]
    start = 16 if big else 8
    offsets = [sum(map(len, strips[:index])) for index in range(len(strips))]
    formats = {"u": 1, "b": 1, "i": 2, "f": 3, "c": 6}
    entries: dict[int, int | Sequence[int]] = {
        SUBFILE: 0,
        WIDTH: width,
        HEIGHT: height,
        BITS: [1 if is_bits else image.dtype.itemsize * 8] * samples,
        COMPRESSION: compression,
        PHOTOMETRIC: 2 if samples >= 3 else 1,
        SAMPLES: samples,
        PLANAR: 2 if planar else 1,
        SAMPLE_FORMAT: [formats[image.dtype.kind]] * samples,
    }
    if tile:
        entries |= {TILE_WIDTH: tile, TILE_HEIGHT: tile, TILE_BYTES: list(map(len, strips))}
    else:
        entries |= {ROWS_PER_STRIP: rows, STRIP_BYTES: list(map(len, strips))}
    entries |= tags or {}

    def directory(at: int, strips_at: int, *, is_last: bool) -> bytes:
        places = {TILE_OFFSETS if tile else STRIP_OFFSETS: [strips_at + offset for offset in offsets]}
        return _directory(places | entries, at, order, big, is_last=is_last)

    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHH" if big else "H"), *((43, 8, 0) if big else (42,))
    )
    data = b"".join(strips)
    at = start if first else start + len(data)
    out = head + struct.pack(order + ("Q" if big else "I"), at)
    if first:
        behind = start + len(directory(at, start, is_last=True))
        return out + directory(at, behind, is_last=True) + data
    out += data
    for page in range(pages):
        out += directory(at, start, is_last=page == pages - 1)
        at = len(out)
    return out


def _blocks(plane: NDArray[Any], rows: int, tile: int) -> list[NDArray[Any]]:
    height, width = plane.shape[:2]
    if not tile:
        return [plane[y : y + rows] for y in range(0, height, rows)]
    edges = [(0, -height % tile), (0, -width % tile), (0, 0)]
    padded = np.pad(plane, edges[: plane.ndim])
    corners = [(y, x) for y in range(0, height, tile) for x in range(0, width, tile)]
    return [padded[y : y + tile, x : x + tile] for y, x in corners]


def _directory(entries: Tags, at: int, order: str, big: bool, *, is_last: bool) -> bytes:
    """Return a directory that lies at a place, with the values that are too long for it behind it."""
    word, room = ("Q", 8) if big else ("I", 4)
    count = struct.pack(order + ("Q" if big else "H"), len(entries))
    behind = at + len(count) + len(entries) * (4 + 2 * room) + room
    body, values = b"", b""
    for tag, value in sorted(entries.items()):
        numbers = [value] if isinstance(value, int) else list(value)
        kind, code = (SHORT, "H") if max(numbers) < 65_536 else (LONG, "I")
        packed = struct.pack(f"{order}{len(numbers)}{code}", *numbers)
        if len(packed) > room:
            place = behind + len(values)
            values += packed
            packed = struct.pack(order + word, place)
        body += struct.pack(order + "HH" + word, tag, kind, len(numbers)) + packed.ljust(room, b"\0")
    following = 0 if is_last else behind + len(values)
    return count + body + struct.pack(order + word, following) + values
