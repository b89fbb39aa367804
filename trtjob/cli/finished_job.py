"""What commands that go through a job's results once more share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from trtjob.api.job_folders import job_folder
from trtjob.api.progress import open_stages
from trtjob.cli.ui.say import say
from trtjob.errors import ConfigError
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from trtjob.config import Settings
    from trtjob.jobs.folder import JobFolder


def finished_folder(job: str, settings: "Settings") -> "JobFolder":
    """Return the folder of a job that has results, by whichever name. Raises JobError, and as `job_folder` does."""
    from trtjob.jobs.folder import RESULTS

    folder = job_folder(job, lambda: settings)
    folder.check_has(RESULTS)
    return folder


def folder_here(option: str, given: Path) -> Path:
    """Return a folder of this machine that is given. Raises ConfigError for a prefix of a bucket."""
    if str(given).startswith(("s3:/", "gs:/", "az:/")):  # a path has lost one of its slashes
        raise ConfigError(f"{option} '{given}': expected a folder of this machine")
    return expand_tilde(given)


@contextmanager
def counting(folder: "JobFolder", what: str, *, hits_only: bool = False) -> Iterator[Callable[[], None]]:
    """Show how far the block is, which calls what it gets for each of the job's images, or of those with something.

    Ctrl-C ends the command with a word and 130: the same command goes on.
    """
    from trtjob.jobs.finish import Summary
    from trtjob.jobs.folder import SUMMARY

    total = done = 0
    if folder.storage.exists(SUMMARY):  # it is written behind the results
        summary = Summary.of(folder)
        total = summary.images_with_detections if hits_only else summary.images
    try:
        with open_stages(folder.spec().job_id) as display:

            def count() -> None:
                nonlocal done
                done += 1
                display.show(what, done, max(done, total))

            yield count
    except KeyboardInterrupt:
        say("Stopped. The same command goes on", err=True)
        raise typer.Exit(130) from None
