"""A file whose bytes somebody else has: only the parts that are asked for come."""

import io
from collections.abc import Callable
from typing import Any

PART_BYTES = 4 << 20  # of what is read to its end: each is a request


class RangedFile(io.RawIOBase):
    """A file that is read in parts. get: returns the bytes from one place on up to another; it may raise OSError."""

    def __init__(self, size_bytes: int, get: Callable[[int, int], bytes]) -> None:
        self._size = size_bytes
        self._get = get
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._size, self._at + len(buffer))
        if self._at >= end:
            return 0
        data = self._get(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Return what is left, in large parts: Python's own are 8 KiB."""
        return b"".join(iter(lambda: self.read(PART_BYTES), b""))
