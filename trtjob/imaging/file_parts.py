"""Files of which only parts are read."""

import io
from bisect import bisect_right
from collections.abc import Iterable
from typing import BinaryIO, cast


class EmptiedFile:
    """A file of which ranges are left out: zeros stand for them.

    >>> import io
    >>> file = EmptiedFile(io.BytesIO(b"abcdef"))
    >>> file.leave_out([(1, 2), (3, 1)])
    >>> file.read(9), file.read(9), file.read(9), file.read(9)
    (b'a', b'\\x00\\x00\\x00', b'ef', b'')
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begins: list[int] = []
        self._ends: list[int] = []

    def leave_out(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Leave out ranges from now on: where each begins, and how long it is."""
        at = self._file.tell()
        size = self._file.seek(0, 2)
        self._file.seek(at)
        for begin, length in sorted(ranges):
            end = min(begin + length, size)
            if self._ends and begin <= self._ends[-1]:
                self._ends[-1] = max(end, self._ends[-1])
            elif 0 <= begin < end:
                self._begins.append(begin)
                self._ends.append(end)

    def read(self, size: int) -> bytes:
        """Return some of the next bytes: as many as are of one kind."""
        at = self._file.tell()
        range_number = bisect_right(self._begins, at) - 1
        if range_number >= 0 and at < self._ends[range_number]:
            length = min(size, self._ends[range_number] - at)
            self._file.seek(length, 1)
            return bytes(length)
        if range_number + 1 < len(self._begins):
            size = min(size, self._begins[range_number + 1] - at)
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def part_of(file: BinaryIO, begin: int, stop: int) -> BinaryIO:
    """Return a part of a file as a file; stop: 0 for its end.

    >>> import io
    >>> file = part_of(io.BytesIO(b"abcdef"), 1, 4)
    >>> file.seek(0), file.read(2), file.seek(-1, 2), file.read(9), file.read(9)
    (0, b'bc', 2, b'd', b'')
    """
    return cast(BinaryIO, _Part(file, begin, stop or file.seek(0, io.SEEK_END))) if begin or stop else file


class _Part:
    def __init__(self, file: BinaryIO, begin: int, stop: int) -> None:
        self._file = file
        self._begin = begin
        self._stop = stop

    def read(self, size: int) -> bytes:
        return self._file.read(max(0, min(size, self._stop - self._file.tell())))

    def seek(self, offset: int, whence: int = 0) -> int:
        start = {io.SEEK_SET: self._begin, io.SEEK_CUR: self._file.tell(), io.SEEK_END: self._stop}[whence]
        return self._file.seek(start + offset) - self._begin

    def tell(self) -> int:
        return self._file.tell() - self._begin
