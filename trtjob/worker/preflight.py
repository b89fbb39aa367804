"""What a node must have before it begins a unit of a job: its output, and its source."""

import json
from contextlib import suppress

from trtjob.errors import PlaceError
from trtjob.jobs.folder import JOB, JobFolder
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec


def expect_output(folder: JobFolder, spec: JobSpec) -> None:
    """Raise PlaceError where the output here does not hold this job."""
    document = None
    with suppress(FileNotFoundError, ValueError):
        document = json.loads(folder.storage.read(JOB))
    if not isinstance(document, dict) or document.get("job_id") != spec.job_id:
        raise PlaceError(
            f"the output {folder.uri} does not hold this job's {JOB} on this machine. Is its file system mounted?"
        )


def expect_source(spec: JobSpec) -> None:
    """Raise PlaceError where the source is away here, as far as that can be told without reading an image."""
    open_source(spec.source).check_root()
