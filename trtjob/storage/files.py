"""Open the files of people's folders, in which there may be anything."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from trtjob.errors import FailureKind, ImageError


def open_file(path: Path | str) -> BinaryIO:
    """Open a regular file. Raises OSError; ImageError for something else, for which it never waits."""
    # Without O_NONBLOCK, opening a pipe that is named like an image waits for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ImageError(FailureKind.READ, f"it is {kind}, not an image file")
    return os.fdopen(descriptor, "rb", buffering=0)
