"""Whether what reads videos is installed; told without loading it."""

from importlib.util import find_spec

from trtjob.errors import MissingDependencyError


def missing_video_package() -> MissingDependencyError | None:
    """Return what is not installed here and every video needs; None where it is there."""
    return None if find_spec("av") else MissingDependencyError("av", extra="video")
