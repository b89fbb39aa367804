"""Read Darknet's weights files, and account for every number in them."""

import os
from math import prod
from pathlib import Path
from typing import NoReturn

import numpy as np

from trtjob.engines.protocol import FloatArray
from trtjob.errors import DarknetWeightsError

_MISMATCH = "Is it the cfg that these weights were trained with?"
# Versions are 0.1 and 0.2; larger ones have been seen only in files that are something else.
_MAX_VERSION = 1000


class WeightsReader:
    """Hands a file's float32 numbers out in order; each is read when it is asked for, and kept by the caller alone.

    Header: int32 major, minor, revision; then the number of images seen, 8 bytes from version 0.2 on, 4 before
    (AlexeyAB/darknet, src/parser.c, load_weights_upto).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            head = np.fromfile(path, np.int32, 3) if size >= 16 else None
        except OSError as err:
            raise DarknetWeightsError(f"{path}: cannot be read: {os.strerror(err.errno or 0)}") from err
        if head is None:
            raise DarknetWeightsError(f"{path}: is no weights file: it has {size} bytes, less than the header")
        major, minor, _ = map(int, head)
        if not (0 <= major < _MAX_VERSION and 0 <= minor < _MAX_VERSION):
            raise DarknetWeightsError(
                f"{path}: is no Darknet weights: it begins with {head.tobytes()!r}, which is no version such as 0.2"
            )
        start = 12 + (8 if major * 10 + minor >= 2 else 4)
        if (size - start) % 4 or size <= start:
            raise DarknetWeightsError(
                f"{path}: {size:,} bytes are a header of {start} and no whole number of float32: the file is cut off"
            )
        self._start = start
        self._count = (size - start) // 4
        self._taken = 0
        self._last = "the header"
        self._suspect: tuple[int, str] | None = None

    def take(self, layer: int, place: str, name: str, shape: tuple[int, ...]) -> FloatArray:
        """Return the next numbers. Raises DarknetWeightsError where the file holds less.

        layer: number of the section, from 0; place: how to name it to a person; name: what the numbers are.
        """
        count = prod(shape)
        left = self._count - self._taken
        if count > left:
            raise DarknetWeightsError(
                f"{self.path}: the file ends in {place}: expected {count:,} {name}, found {left:,} "
                f"(the file holds {self._count:,} numbers). {_MISMATCH}",
                layer=layer,
            )
        taken = self._read(count).reshape(shape)
        self._taken += count
        self._last = place
        if self._suspect is None and not np.isfinite(taken).all():
            self.suspect(layer, f"{self.path}: {place}: some {name} are infinite or not a number")
        return taken

    def _read(self, count: int) -> FloatArray:
        try:
            numbers = np.fromfile(self.path, np.dtype("<f4"), count, offset=self._start + 4 * self._taken)
        except OSError as err:
            raise DarknetWeightsError(f"{self.path}: cannot be read: {os.strerror(err.errno or 0)}") from err
        if len(numbers) < count:
            raise DarknetWeightsError(f"{self.path}: became shorter while it was read. Convert it again")
        numbers.flags.writeable = False
        return numbers

    def suspect(self, layer: int, message: str) -> None:
        """Note numbers that cannot be: they are reported once it is known whether the counts fit, which says more."""
        self._suspect = self._suspect or (layer, message)

    def finish(self, layer: int) -> None:
        """Raise DarknetWeightsError where numbers are left over, or some cannot be what the cfg takes them for."""
        if left := self._count - self._taken:
            self._refuse(
                layer,
                f"{self.path}: {left:,} numbers are left over after {self._last}, the last layer with weights: "
                f"expected {self._taken:,}, found {self._count:,}",
            )
        if self._suspect is not None:
            self._refuse(*self._suspect)

    @staticmethod
    def _refuse(layer: int, message: str) -> NoReturn:
        raise DarknetWeightsError(f"{message}. {_MISMATCH}", layer=layer)
