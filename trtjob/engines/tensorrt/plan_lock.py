"""One process of a machine builds a plan while the others wait, with or without a server that they share."""

import errno
import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trtjob.engines.tensorrt.builder import BuildCancelled, BuildProgress

log = logging.getLogger(__name__)

POLL_S = 0.2
WAITING = "waiting for another process that builds it"

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def locked(path: Path, on_progress: BuildProgress) -> Iterator[None]:
    """Hold a file's lock for a block. The kernel lets go of it when the process ends, however that happens.

    The file is left: who removes it takes the lock from under those that wait. Where files cannot be locked, as on some
    network file systems, the block is entered all the same, for two builds of one plan are a waste and no harm.
    on_progress: called while another process has the lock; False raises BuildCancelled.
    """
    with _opened(path) as file:
        if file is None:
            yield
            return
        started = time.monotonic()
        while not _take(file):
            if not on_progress(WAITING, int(time.monotonic() - started), 0):
                raise BuildCancelled
            time.sleep(POLL_S)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # not by closing alone: a process that was forked has the file, too


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as err:
        log.debug("a plan is built without a lock", extra={"lock": str(path), "error": str(err)})
        yield None
        return
    try:
        yield file
    finally:
        os.close(file)


def _take(file: int) -> bool:
    """Tell whether the lock is ours now, or there is none to be had."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        return err.errno not in _TAKEN
    return True
