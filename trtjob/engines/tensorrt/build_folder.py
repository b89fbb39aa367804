"""The temporary folder of a build, which has hundreds of megabytes, and those that killed processes have left."""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "trtjob-build-"
SETTLED_S = 60.0  # a younger folder may not be locked yet
ROOM_BYTES = 1 << 20  # less is none: what did not fit was written as far as it went
NO_ROOM = os.strerror(errno.ENOSPC)


@contextmanager
def build_folder() -> Iterator[Path]:
    """Have a temporary folder for a block, and remove those whose processes have been killed. Raises OSError.

    A folder is locked while its process lives. A process's id would not do: containers may share the folder above, and
    each counts its own.
    """
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as folder:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):  # some network file systems have no locks; nobody else gets one there, either
                fcntl.flock(file, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(file)


def why_no_room(folder: Path, said: str) -> str:
    """Return what to do about a full disk, empty where it is not full. said: what the build has said at its end."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    if free >= ROOM_BYTES and NO_ROOM not in said:
        return ""
    return f"the temporary folder '{tempfile.gettempdir()}' is full: make room there, or set TMPDIR to another folder"


def _remove_left() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # locked, another user's, or removed by another process just now
            _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    """Remove a folder of ours that is not locked. Raises OSError where it is."""
    found = folder.lstat()
    if found.st_uid != os.geteuid() or time.time() - found.st_mtime < SETTLED_S:
        return
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(file)
