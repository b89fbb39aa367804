"""Jobs, for Python programs: begin one, look at it, wait for it."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from trtjob.api.follow import follow
from trtjob.api.given import as_wait_s
from trtjob.api.hand_in import Begun, convert_ahead, hand_in
from trtjob.api.in_thread import waited_for
from trtjob.api.job_folders import job_folder
from trtjob.api.job_locations import expect_decoders, find_locations
from trtjob.api.job_request import JobRequest
from trtjob.api.local_run import work_here
from trtjob.api.notebook import audience
from trtjob.api.results import Results
from trtjob.api.session import WorkerOptions, open_session, settings_for
from trtjob.api.signature import taking_fields_of
from trtjob.api.stop import Stop
from trtjob.api.tables import html_table
from trtjob.errors import ConfigError, JobError, WaitTimeoutError

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder
    from trtjob.queue.views import JobView

_RUNNING = Lock()  # the workers of a process have its name


@dataclass(frozen=True, kw_only=True)
class RunRequest(JobRequest, WorkerOptions):
    """What `run` takes. processes: worker processes on this machine, or on each of its GPUs."""

    processes: int = 1
    progress: bool = True


@dataclass(frozen=True, kw_only=True)
class SubmitRequest(JobRequest):
    """What `submit` takes. upload: copy a local source into the output's bucket first, None: where workers need it."""

    upload: bool | None = None
    progress: bool = True


class Job:
    """A job that was begun: its id, where its folder is, and what becomes of it.

    >>> import trtjob
    >>> job = trtjob.job("results/photos-1a2b3c4d")
    >>> job.id
    'photos-1a2b3c4d'
    >>> [result.image for result in job.results()]
    ['a.jpg', 'b.jpg']
    """

    def __init__(self, folder: "JobFolder") -> None:
        self._folder = folder
        self.id = folder.spec().job_id

    @property
    def folder(self) -> str:
        """The path, or the s3:// prefix, of all that the job writes."""
        return self._folder.uri

    @property
    def report(self) -> str:
        """Where the page with the results is, once the job has ended."""
        from trtjob.jobs.folder import REPORT

        return self._folder.storage.place(REPORT)

    def status(self) -> "JobView":
        """Return how the job stands, as the queue's server says, or its folder where that does not know it.

        Raises QueueError, StorageError.
        """
        from trtjob.queue.folder_view import folder_view

        with open_session(settings_for()) as session:
            if session.store.has(self.id) and (view := session.store.view(self.id)).spec.uri == self.folder:
                return view
        return folder_view(self._folder)

    def wait(self, *, timeout_s: float | None = None, progress: bool = True) -> "Job":
        """Wait until the job has ended, and return it. The job goes on where this is interrupted.

        timeout_s: for how long; 0: look once. Raises JobError where the job failed or was cancelled, ConfigError,
        WaitTimeoutError, which is a TimeoutError, QueueError.
        """
        wait_s = as_wait_s("timeout_s", timeout_s)
        with open_session(settings_for()) as session:
            if not session.store.has(self.id):
                return _ended_well(self, self.status())
            listener = audience(wants_progress=progress)

            async def wait(stop: Stop) -> "JobView | None":
                async with asyncio.timeout(wait_s):
                    return await follow(session, self.id, stop, listener)

            try:
                view = waited_for(wait)
            except TimeoutError:
                view = _ended(session.store.view(self.id), wait_s or 0)
        assert view is not None  # else Ctrl-C was raised
        return _ended_well(self, view)

    def cancel(self) -> bool:
        """End the job at the next batch edge. Returns whether it was under way. Raises QueueError, UnknownJobError."""
        from trtjob.queue.submit import cancel

        with open_session(settings_for()) as session:
            return cancel(session.store, self.id)

    def results(self) -> Results:
        """Return the results. Raises JobError where there are none yet."""
        return Results.of(self._folder)

    def __repr__(self) -> str:
        return f"<trtjob.Job {self.id}: {self.folder}>"

    def _repr_html_(self) -> str:
        from trtjob.jobs.states import in_words

        view = self.status()
        rows = [("images", f"{view.images:,}"), ("done", f"{view.done:,}"), ("failed", f"{view.failures:,}")]
        return html_table(
            f"{self.id}: {in_words(view.state, view.failures)}", ("", ""), [*rows, ("folder", self.folder)]
        )


@taking_fields_of(RunRequest)
def run(request: RunRequest) -> Job:
    """Run a model over images on this machine, and wait for the results: what `trtjob run` does, with its options.

    Shows the progress at a terminal and in a notebook, unless `progress=False`. Ctrl-C stops the job at the next batch
    edge; the same call again continues it, and after its end does only what is new or changed.
    Raises ConfigError, ModelError, ConversionError, StorageError, QueueError; JobError where the job failed as a whole.
    Images that failed are in its results.

    >>> import trtjob
    >>> trtjob.run("no/such/folder", model="yolov3")
    Traceback (most recent call last):
    trtjob.errors.ConfigError: ...
    """
    if not isinstance(request.processes, int) or request.processes < 1:
        raise ConfigError(f"processes {request.processes!r}: expected 1 or more")
    settings = settings_for(request)
    listener = audience(wants_progress=request.progress)
    locations = find_locations(request)
    expect_decoders(locations)
    convert_ahead(request, settings.models_dir, listener)
    with _RUNNING, open_session(settings) as session:

        def begin(runner: str, stop: Stop) -> Begun:
            return hand_in(session, request, locations, listener, stop, runner=runner)

        ended = waited_for(lambda stop: work_here(session, begin, stop, listener, request.processes))
    assert not isinstance(ended, str)  # else Ctrl-C was raised
    return _ended_well(_job_of(ended.view), ended.view)


@taking_fields_of(SubmitRequest)
def submit(request: SubmitRequest) -> Job:
    """Hand a job in to the workers that `trtjob worker` starts, and return it: what `trtjob submit` does.

    The same call again continues the job with what is missing, new or changed. Raises as `run` does.
    """
    settings = settings_for()
    listener = audience(wants_progress=request.progress)
    locations = find_locations(request)
    convert_ahead(request, settings.models_dir, listener)
    with open_session(settings) as session:
        job_id, _ = hand_in(session, request, locations, listener, upload=request.upload)
        return _job_of(session.store.view(job_id))


def job(job: str | Path) -> Job:
    """Return a job by its id, its folder or its s3:// prefix. Raises ConfigError, UnknownJobError, JobError."""
    return Job(job_folder(str(job), settings_for))


def _job_of(view: "JobView") -> Job:
    from trtjob.jobs.folder import JobFolder

    return Job(JobFolder.of(view.spec))


def _ended(view: "JobView", waited_s: float) -> "JobView":
    """Return a job at the end of the time to wait for it. Raises WaitTimeoutError where it has not ended."""
    from trtjob.jobs.states import TERMINAL

    if view.state not in TERMINAL:
        raise WaitTimeoutError(view.spec.job_id, waited_s) from None
    return view


def _ended_well(job: Job, view: "JobView") -> Job:
    from trtjob.jobs.states import FINISHED

    if view.state not in FINISHED:
        raise JobError(f"job '{job.id}' {view.state}: {view.message}", job_id=job.id)
    return job
