"""`trtjob report`: a job's page, made again from its results; `trtjob open`: the page, in a browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.job_folders import job_folder
from trtjob.cli.ui.say import say
from trtjob.errors import ConfigError, JobError

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder

REPORT_EXAMPLE = "Example: trtjob report results/photos-1a2b3c4d --conf 0.4"
OPEN_EXAMPLE = "Example: trtjob open results/photos-1a2b3c4d"


def report(
    job: o.JobOrFolderArgument,
    conf: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SCORE",
            help="Where the threshold of the page stands at first, 0 to 1. Default: the job's.",
        ),
    ] = None,
) -> None:
    """Make the report of a job again from its results. Nothing is run, and no other document changes."""
    from trtjob.jobs.finish import report_again
    from trtjob.jobs.folder import REPORT, SUMMARY

    folder = job_folder(job)
    spec = folder.spec()
    _check_has(folder, SUMMARY, spec.job_id)
    if conf is not None and spec.model.task == "detect" and conf < spec.options.min_score:
        raise ConfigError(
            f"--conf {conf:g}: job '{spec.job_id}' has stored nothing below {spec.options.min_score:g}. "
            f"Give a score from there on, or run it again with --min-score {conf:g}"
        )
    report_again(folder, spec, conf=conf)
    say(folder.storage.place(REPORT))


def open_report(job: o.JobOrFolderArgument) -> None:
    """Open the report of a job in the browser of this machine."""
    import webbrowser

    from trtjob.jobs.folder import REPORT

    folder = job_folder(job)
    _check_has(folder, REPORT, folder.spec().job_id)
    place = folder.storage.place(REPORT)
    if folder.storage.is_remote:
        raise ConfigError(
            f"the report lies in a bucket: {place}. Open it at the bucket's own address, or copy the job's folder here"
        )
    say(place)
    if not webbrowser.open(Path(place).as_uri()):
        say("There is no browser here: open the file in one yourself", err=True)


def _check_has(folder: "JobFolder", key: str, job_id: str) -> None:
    if not folder.storage.exists(key):
        message = f"job '{job_id}' has no {key} yet: it has not finished. See: trtjob status {job_id}"
        raise JobError(message, job_id=job_id)
