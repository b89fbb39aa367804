"""How the bytes of an object come, from any cloud's store, and what it means for an image that they do not."""

import asyncio
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.headers import HEAD_BYTES
from trtjob.ranged_file import RangedFile
from trtjob.storage.listing import Entry
from trtjob.storage.local import MAX_FILE_BYTES
from trtjob.storage.s3.client import READ_TIMEOUT_S
from trtjob.storage.s3.errors import check_whole, is_closed
from trtjob.storage.s3.requests import BucketRequests

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta
    from obstore.store import ObjectStore

_PART_BYTES = 4 << 20  # of one request: at 100 ms for each, 40 MB/s
_SLOWEST_BYTES_PER_S = 50_000
# Keys that obstore refuses.
UNSPEAKABLE = re.compile(r"(^|/)(/|\.{1,2}(/|$))|[\x00-\x1f\x7f]|/$")

# Asks for a part of the object of a path, with an etag, from one place on up to another.
GetPart = Callable[[str, str, int, int], bytes]


def received(answer: "GetResult") -> tuple[bytes, "ObjectMeta"]:
    """Return the bytes of an object that was asked for, and what the store says of it. Raises ImageError."""
    check_size(answer.meta["size"])
    return answer.bytes().to_bytes(), answer.meta


async def areceived(answer: "GetResult") -> tuple[bytes, "ObjectMeta"]:
    """Do as `received`, and wait no longer than a store takes. Raises TimeoutError besides."""
    size_bytes = answer.meta["size"]
    check_size(size_bytes)
    async with asyncio.timeout(READ_TIMEOUT_S + size_bytes / _SLOWEST_BYTES_PER_S):
        return (await answer.bytes_async()).to_bytes(), answer.meta


def get_part(store: "ObjectStore", path: str, etag: str, begin: int, end: int) -> bytes:
    """Ask a store for a part of an object, once. Raises Damaged, and what obstore raises, also for another etag."""
    import obstore

    options: Any = {"range": (begin, end), "if_match": f'"{etag}"'}
    data = obstore.get(store, path, options=options).bytes().to_bytes()
    check_whole(len(data), end - begin)
    return data


def opened(entry: Entry, requests: BucketRequests, get_part: GetPart) -> BinaryIO:
    """Open an object, of which the parts come that are read. One that is replaced meanwhile cannot be read on."""

    def get(begin: int, end: int) -> bytes:
        with of_an_image():
            return requests.call(entry.key, "read", lambda path: get_part(path, entry.etag, begin, end))

    return io.BufferedReader(RangedFile(entry.size_bytes, get), _PART_BYTES)


def head_bytes(entry: Entry, requests: BucketRequests, get_part: GetPart) -> bytes:
    """Return the first bytes of an object, none of one that may not be read. Raises ImageError, StorageError."""
    end = min(HEAD_BYTES, entry.size_bytes)

    def ask(path: str) -> bytes:
        try:
            return get_part(path, entry.etag, 0, end)
        except Exception as err:
            if is_closed(err):
                return b""
            raise

    with of_an_image():
        return requests.call(entry.key, "read", ask) if end else b""


@contextmanager
def of_an_image() -> Iterator[None]:
    """What concerns one object alone is a failure of this image."""
    try:
        yield
    except FileNotFoundError as err:
        raise ImageError(FailureKind.MISSING, "the object is not there any more") from err
    except OSError as err:
        raise ImageError(FailureKind.READ, f"the object cannot be read: {err.strerror}") from err


def check_size(size_bytes: int) -> None:
    """Raise ImageError for an object that is too large to be held."""
    if size_bytes > MAX_FILE_BYTES:
        raise ImageError(FailureKind.TOO_LARGE, f"the object has {size_bytes:,} bytes, more than 2 GiB")
