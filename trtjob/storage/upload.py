"""Copy the images of a folder into a bucket: many at once, resumable, nothing twice."""

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from trtjob.errors import ImageError, StorageError
from trtjob.storage.listing import Entry
from trtjob.storage.protocol import Storage
from trtjob.storage.selection import Rules, Selection

AT_ONCE = 16


def upload_images(
    source: Storage, target: Storage, entries: list[Entry], on_progress: Callable[[int, int, int], None]
) -> None:
    """Copy images unless the target has them with the same size and MD5; what else it has is left alone.

    on_progress: told (done, total, bytes sent) after each image, in this thread; it may raise to stop.
    Raises StorageError for an image that cannot be read, or a target that cannot be written.
    """
    there = {entry.key: entry for entry in target.images(Rules(Selection(hidden=True, videos=True)))}
    done = sent_bytes = 0
    waiting: deque[Future[int]] = deque()

    def await_first() -> None:
        nonlocal done, sent_bytes
        sent_bytes += waiting.popleft().result()
        done += 1
        on_progress(done, len(entries), sent_bytes)

    with ThreadPoolExecutor(AT_ONCE, "trtjob-upload") as pool:
        try:
            for entry in entries:
                if len(waiting) >= 4 * AT_ONCE:
                    await_first()
                waiting.append(pool.submit(_copy, source, target, entry, there.pop(entry.key, None)))
            while waiting:
                await_first()
        finally:
            pool.shutdown(cancel_futures=True)


def _copy(source: Storage, target: Storage, entry: Entry, there: Entry | None) -> int:
    """Return how many bytes were sent."""
    try:
        data = source.fetch(entry)
    except ImageError as err:
        raise StorageError(f"cannot upload {source.place(entry.key)}: {err}") from err
    digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if there is not None and (there.size_bytes, there.etag) == (len(data), digest):
        return 0
    try:
        target.put(entry.key, data)
    except OSError as err:
        raise StorageError(f"cannot write {target.place(entry.key)}: {err.strerror}") from err
    return len(data)
