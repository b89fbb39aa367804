"""Write a file whole or not at all."""

import os
import tempfile
from pathlib import Path

from trtjob.errors import ConversionError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its place, then move it there. Raises ConversionError; nothing is left behind then."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:  # whatever stops it, Ctrl-C too
            temporary.unlink(missing_ok=True)
    except OSError as err:
        raise ConversionError(f"cannot write '{path}': {err.strerror}") from err
