"""What becomes of an error while an image is processed: that image's failure, and its record."""

import logging

from trtjob.errors import FailureKind, ImageError
from trtjob.jobs.folder import THUMBNAILS
from trtjob.jobs.records import ImageFailure, Record

log = logging.getLogger(__name__)


def write_failure(err: OSError, key: str) -> ImageError:
    """Return the failure of an image of which something cannot be written, for a reason of its own. key: of that."""
    what = "thumbnail" if key.startswith(f"{THUMBNAILS}/") else "annotated image"
    return ImageError(FailureKind.WRITE, f"cannot write the {what}: {err.strerror}")


def failure_record(key: str, err: ImageError) -> Record:
    """Return the error record of an image that was tried once."""
    return Record(key, err.sha256, error=ImageFailure(err.kind, str(err), attempts=1))


def as_image_error(err: Exception, sha256: str | None = None) -> ImageError:
    """Return what happened to one image: the others go on, whatever it is."""
    if isinstance(err, ImageError):
        err.sha256 = err.sha256 or sha256
        return err
    if isinstance(err, MemoryError):
        return ImageError(FailureKind.DECODE, "there was not enough memory for the image", sha256)
    log.error("unexpected error", exc_info=err)
    return ImageError(FailureKind.CRASHED, unexpected(err), sha256)


def unexpected(err: Exception) -> str:
    """Say of an error that nobody has foreseen what a person can do. Its traceback goes to the log."""
    return f"unexpected {type(err).__name__}: {err}. This is a mistake in trtjob; the worker's log says where"
