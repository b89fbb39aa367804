"""Files copied, linked and moved so that none is ever lost or overwritten, whenever it is interrupted."""

import errno
import filecmp
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trtjob import atomic

# Of file systems without links, such as a camera's card, and of links that a system forbids or has too many of.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})
_COARSEST_S = 2.0  # of times that a file system keeps


def copy(source: Path, target: Path) -> None:
    """Copy a file with its time. Raises FileExistsError where the target exists, OSError."""

    def write(part: Path) -> None:
        shutil.copyfile(source, part)
        with suppress(OSError):  # of what not every file system keeps
            shutil.copystat(source, part)

    write_new(target, write)


def write_new(target: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, and put it there whole. Raises FileExistsError, OSError."""
    with atomic.unfinished(target.parent) as part:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        _rename(part, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name; on another file system, a symbolic link to it. Raises FileExistsError, OSError."""
    source = source.resolve(strict=True)
    try:
        os.link(source, target)
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        target.symlink_to(source)


def move(source: Path, target: Path) -> None:
    """Move a file, to another file system by a copy that is compared with it. Raises FileExistsError, OSError."""
    try:
        _rename(source, target)
    except OSError as err:
        if err.errno != errno.EXDEV:
            raise
        copy(source, target)
        end_move(source, target)


def end_move(source: Path, target: Path) -> None:
    """Remove a file whose copy, or second name, lies at the target. Raises OSError where that is another file."""
    if not is_same(source, target):
        raise OSError(errno.EIO, "its copy differs from it", str(target))
    source.unlink()


def is_same(source: Path, target: Path) -> bool:
    """Return whether two files are one, or have the same bytes."""
    return source.samefile(target) or filecmp.cmp(source, target, shallow=False)


def is_unchanged(path: Path, size: int, modified_s: float | None) -> bool:
    """Return whether a file has this size still and, where it is known, this time."""
    stat = path.stat()
    is_in_time = modified_s is None or abs(stat.st_mtime - modified_s) <= _COARSEST_S
    return stat.st_size == size and is_in_time


def is_reserved(target: Path) -> bool:
    """Return whether a place is free or holds the empty file that `_rename` was interrupted behind."""
    return not os.path.lexists(target) or (target.is_file() and not target.stat().st_size)


def release(target: Path) -> None:
    """Remove the empty file at a place that `is_reserved`."""
    target.unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    """Rename a file on its file system. Raises FileExistsError where the target exists, OSError.

    A rename alone would overwrite. A second name does not, and the first one is then removed; where there are no
    links, the place is reserved first, by an empty file that only this call can have made.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as err:
        if err.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC))
        try:
            source.replace(target)
        except BaseException:
            release(target)
            raise
    else:
        source.unlink()
