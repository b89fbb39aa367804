"""Write a file whole or not at all: under a short random name beside its place, then moved there."""

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = re.compile(r"\.[0-9a-f]{16}\.part")


def unfinished_name() -> str:
    """Return a name that nothing has yet. It is short: a target of 255 bytes leaves no room for a suffix."""
    return f".{secrets.token_hex(8)}.part"


def is_unfinished(name: str) -> bool:
    """Tell whether something is called as what is not written whole is; who was killed leaves it behind."""
    return _UNFINISHED.fullmatch(name) is not None


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
    """Yield a path for a file or a folder, which the block makes and moves; where the block fails, it is removed."""
    path = folder / unfinished_name()
    try:
        yield path
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise


@contextmanager
def replacing(target: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file that takes the target's place when the block ends well; no trace is left when it does not.

    sync: wait until it is on the disk, so that a crash of the machine leaves the old file or the new one.
    Raises OSError, also where a device, a pipe or a socket has the name.
    """
    _expect_no_device(target)
    with unfinished(target.parent) as path:
        with path.open("xb") as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        path.replace(target)


def _expect_no_device(target: Path) -> None:
    """Raise OSError for `/dev/null` and its like: for root the new file would take its place, for all programs."""
    try:
        mode = target.stat().st_mode
    except OSError:  # nothing is there, or what writes will say why not
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(errno.EEXIST, "it is a device, a pipe or a socket, not a file", str(target))


def write(target: Path, data: bytes, *, sync: bool = True) -> None:
    """Replace a file, as `replacing` does."""
    with replacing(target, sync=sync) as file:
        file.write(data)
