"""A job's folder, from what a user named: its id, its folder, or its prefix in a bucket."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from trtjob.api.job_request import DEFAULT_OUTPUT
from trtjob.api.session import open_session
from trtjob.errors import ConfigError
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from trtjob.config import Settings
    from trtjob.jobs.folder import JobFolder


def named_folder(job: str) -> "JobFolder | None":
    """Return the folder that is named; None for an id.

    Raises ConfigError for a path that is no folder or is empty, and for what is no prefix of a bucket.
    """
    from trtjob.jobs.folder import JobFolder
    from trtjob.storage import is_s3
    from trtjob.storage.uri import bucket_uri

    if not job:  # as an unset variable of a shell is; a path would be the current folder
        raise ConfigError("JOB is empty. Name a job's id, or its folder")
    if (path := expand_tilde(job)).is_dir():
        return JobFolder.at(path.resolve())
    if is_s3(job):
        return JobFolder.at(bucket_uri(job, "JOB"))
    if "/" in job:
        raise ConfigError(f"no job's folder '{job}'. Name a job's id, or the folder that holds its job.json")
    return None


def usual_folder(job_id: str) -> "JobFolder | None":
    """Return a job's folder where it lies in the usual output below the working directory; else None."""
    from trtjob.jobs.folder import JOB, JobFolder

    folder = Path(DEFAULT_OUTPUT) / job_id
    return JobFolder.at(folder.resolve()) if (folder / JOB).is_file() else None


def job_folder(job: str, settings: "Callable[[], Settings]") -> "JobFolder":
    """Return the folder of a job, by whichever name. settings: read where that is an id.

    Raises ConfigError, UnknownJobError, QueueError.
    """
    from trtjob.errors import UnknownJobError
    from trtjob.jobs.folder import JobFolder

    if (folder := named_folder(job)) is not None:
        return folder
    with open_session(settings()) as session:
        try:
            return JobFolder.of(session.store.view(job).spec)
        except UnknownJobError:
            if (folder := usual_folder(job)) is None:
                raise
            return folder
