"""Write a file whole or not at all."""

import os
import tempfile
from pathlib import Path

from trtjob.errors import ConversionError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place, then move it there. Raises ConversionError; nothing is left behind then."""
    temporary: str | None = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as err:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ConversionError(f"cannot write '{path}': {err.strerror}") from err
