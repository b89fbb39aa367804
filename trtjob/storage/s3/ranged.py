"""An object that is read in parts, as a file is: only what is asked for comes."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trtjob.storage.s3.errors import check_whole

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PART_BYTES = 4 << 20  # of one request: at 100 ms for each, 40 MB/s


def get_part(store: "ObjectStore", path: str, etag: str, begin: int, end: int) -> bytes:
    """Ask a store for a part of an object, once. Raises Damaged, and what obstore raises, also for another etag."""
    import obstore

    options: Any = {"range": (begin, end), "if_match": f'"{etag}"'}
    data = obstore.get(store, path, options=options).bytes().to_bytes()
    check_whole(len(data), end - begin)
    return data


class RangedObject(io.RawIOBase):
    """An object of a bucket. get: returns the bytes from one place on up to another; it may raise OSError."""

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
