"""Write a file whole or not at all."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from trtjob.errors import ConversionError


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file beside its place, then move it there. Raises ConversionError; nothing is left behind then.

    data: the whole of it, or piece by piece.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
                file.flush()
                os.fsync(descriptor)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:  # whatever stops it, Ctrl-C too
            temporary.unlink(missing_ok=True)
    except OSError as err:
        raise ConversionError(f"cannot write '{path}': {err.strerror}") from err
