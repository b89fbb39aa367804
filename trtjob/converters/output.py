"""Write a converted model whole or not at all."""

import os
from collections.abc import Iterable
from pathlib import Path

from trtjob import atomic
from trtjob.errors import ConversionError


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file that all may read. Raises ConversionError; nothing is left behind then.

    data: the whole of it, or piece by piece.
    """
    try:
        with atomic.replacing(path) as file:
            os.fchmod(file.fileno(), 0o644)
            file.writelines([data] if isinstance(data, bytes) else data)
    except OSError as err:
        raise ConversionError(f"cannot write '{path}': {err.strerror}") from err
