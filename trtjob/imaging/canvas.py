"""An image's memory, into which rows, bars and finished tiles are copied."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array

_PIXEL_BYTES = 3


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Finished pixels. Each row is one item to numpy, a void of 3 * width bytes."""

    rows: NDArray[np.void]
    width: int
    height: int

    @classmethod
    def of(cls, pixels: UInt8Array) -> "Tile":
        """Return a tile with a copy of the pixels, uint8 [H, W, 3], of which there is at least one."""
        height, width = pixels.shape[:2]
        rows = np.array(pixels).reshape(height, width * _PIXEL_BYTES)
        return cls(rows.view(_kind(rows.shape[1]))[:, 0], width, height)

    @property
    def pixels(self) -> UInt8Array:
        """The pixels as an image again, uint8 [H, W, 3]."""
        return self.rows.view(np.uint8).reshape(self.height, self.width, _PIXEL_BYTES)


class Canvas:
    """An image, uint8 [H, W, 3] BGR and contiguous, that is drawn on in place; what lies outside of it is left out.

    OpenCV gives up the interpreter's lock in every call, and so does numpy for 500 items and more. Where many threads
    wait for the lock, getting it back takes longer than the drawing. So rows are copied as bytes, or as one item each.
    """

    def __init__(self, image: UInt8Array) -> None:
        self.height, self.width = image.shape[:2]
        self._bytes = memoryview(image.data).cast("B")
        self._stride = self.width * _PIXEL_BYTES

    def holds(self, x: float, y: float) -> bool:
        """Return whether a point is in the image."""
        return bool(0 <= x < self.width and 0 <= y < self.height)

    def copy_rows(self, x: int, y: int, rows: Sequence[bytes]) -> None:
        """Copy rows of pixels, all as long as the first, to where their upper left corner is (x, y)."""
        begin, size = x * _PIXEL_BYTES, len(rows[0])
        if begin < 0 or begin + size > self._stride:
            rows = [self._cut(row, begin) for row in rows]
            begin, size = max(0, begin), len(rows[0])
        if y < 0 or y + len(rows) > self.height:
            rows = rows[max(0, -y) : max(0, self.height - y)]
            y = max(0, y)
        begin += y * self._stride
        for row in rows:
            self._bytes[begin : begin + size] = row
            begin += self._stride

    def copy_bars(self, xs: Iterable[int], top: int, bottom: int, row: bytes) -> None:
        """Copy one row of pixels into each row from `top` to before `bottom`, from each of the columns `xs` on."""
        top, bottom = max(top, 0), min(bottom, self.height)
        if top >= bottom:
            return
        for x in xs:
            begin, part = x * _PIXEL_BYTES, row
            if begin < 0 or begin + len(row) > self._stride:
                begin, part = max(0, begin), self._cut(row, begin)
            if part:
                begin += top * self._stride
                np.ndarray(bottom - top, _kind(len(part)), self._bytes, begin, self._stride).fill(part)

    def _cut(self, row: bytes, begin: int) -> bytes:
        """Return what of a row lies in the image. begin: where in the image's rows it begins, in bytes."""
        return row[max(0, -begin) : max(0, self._stride - begin)]

    def blit(self, x: int, y: int, tile: Tile) -> None:
        """Copy a tile to where its upper left corner is (x, y), a pixel of the image."""
        if x + tile.width > self.width or y + tile.height > self.height:
            tile = Tile.of(tile.pixels[: self.height - y, : self.width - x])
        begin = y * self._stride + x * _PIXEL_BYTES
        np.ndarray(tile.height, tile.rows.dtype, self._bytes, begin, self._stride)[...] = tile.rows


@lru_cache(maxsize=1024)
def _kind(size: int) -> np.dtype[np.void]:
    """Return the type of an item of so many bytes."""
    return np.dtype(f"V{size}")
