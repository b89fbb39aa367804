"""`trtjob report`: a job's page, made again from its results; `trtjob open`: the page, in a browser."""

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trtjob.api.job_folders import job_folder
from trtjob.cli import options as o
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.counted import counted
from trtjob.errors import ConfigError
from trtjob.tilde import expand_tilde

if TYPE_CHECKING:
    from collections.abc import Callable

    from trtjob.config import Settings
    from trtjob.jobs.folder import JobFolder
    from trtjob.jobs.report.reference import Reference
    from trtjob.jobs.spec import JobSpec

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
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="JOB2",
            show_default=False,
            help="Show what appeared, went and moved since another job of the same images: its id or folder. "
            "Default: nothing.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="coco.json|FOLDER",
            show_default=False,
            help="Show how good the detections are, by labels: COCO's JSON, or a folder of YOLO's text files. "
            "Default: nothing.",
        ),
    ] = None,
    thumbnails: Annotated[
        Literal["all", "hits", "none"] | None,
        typer.Option(
            metavar="all|hits|none",
            show_default=False,
            help="Make the thumbnails anew from the images, of so many. Default: they stay as they are.",
        ),
    ] = None,
    thumbnail_size: Annotated[
        int | None,
        typer.Option(
            metavar="PX",
            min=64,
            max=1024,
            show_default=False,
            help="Make the thumbnails anew from the images, with a longer side of so many pixels, 64 to 1024. "
            "Default: they stay as they are.",
        ),
    ] = None,
    sign: Annotated[
        int | None,
        typer.Option(
            metavar="HOURS",
            min=1,
            max=168,
            show_default=False,
            help="Let the page show the originals in buckets: whoever has it sees them for so many hours, 1 to 168, "
            "without credentials. Default: it says where they are.",
        ),
    ] = None,
) -> None:
    """Make the report of a job again from its results. Nothing is run, and no other document changes."""
    from trtjob.jobs.finish import report_again
    from trtjob.jobs.folder import REPORT, SUMMARY
    from trtjob.jobs.report.signed import signed_originals

    settings = cache(start)  # asked once, and only where a job is named by its id
    folder = job_folder(job, settings)
    spec = folder.spec()
    folder.check_has(SUMMARY)
    if conf is not None and spec.model.task == "detect" and conf < spec.options.min_score:
        raise ConfigError(
            f"--conf {conf:g}: job '{spec.job_id}' has stored nothing below {spec.options.min_score:g}. "
            f"Give a score from there on, or run it again with --min-score {conf:g}"
        )
    if thumbnails is not None or thumbnail_size is not None:
        _make_thumbnails(folder, spec, thumbnails, thumbnail_size, settings())
    reference = _reference(spec, compare, truth, conf, settings)
    address_of = None if sign is None else signed_originals(spec, timedelta(hours=sign))
    report_again(folder, spec, conf=conf, reference=reference, address_of=address_of)
    say(folder.storage.place(REPORT))


def _reference(
    spec: "JobSpec", compare: str | None, truth: Path | None, conf: float | None, settings: "Callable[[], Settings]"
) -> "Reference | None":
    if compare is not None and truth is not None:
        raise ConfigError("--compare and --truth are for one page each. Leave one out")
    if compare is not None:
        from trtjob.jobs.folder import RESULTS
        from trtjob.jobs.report.other_job import OtherJob

        other = job_folder(compare, settings)
        other.check_has(RESULTS)
        return OtherJob(other, spec)
    if truth is not None:
        from trtjob.jobs.report.evaluation import Evaluation
        from trtjob.jobs.report.truth import open_labels

        if spec.model.task != "detect":
            raise ConfigError("--truth is for detectors: this job's model is a classifier. Leave it out")
        least = spec.options.conf if conf is None else conf
        return Evaluation(open_labels(expand_tilde(truth), spec.model.labels), str(truth), round(least * 10_000))
    return None


def _make_thumbnails(
    folder: "JobFolder", spec: "JobSpec", which: str | None, px: int | None, settings: "Settings"
) -> None:
    from trtjob.jobs.report.thumbnails import ThumbnailChoice
    from trtjob.jobs.spec import Annotate
    from trtjob.worker.thumbnails import make_thumbnails

    options = spec.options
    choice = ThumbnailChoice(
        which=options.with_thumbnails if which is None else Annotate(which), px=px or options.thumbnail_px
    )
    made = make_thumbnails(folder, spec, choice, max_pixels=settings.max_pixels, allow_local=settings.fetch_allow_local)
    left = f"; {counted(made.left, 'image')} could not be read again" if made.left else ""
    say(f"{counted(made.made, 'thumbnail')}{left}", err=True)


def open_report(job: o.JobOrFolderArgument) -> None:
    """Open the report of a job in the browser of this machine."""
    import webbrowser

    from trtjob.jobs.folder import REPORT

    folder = job_folder(job, start)
    folder.check_has(REPORT)
    place = folder.storage.place(REPORT)
    if folder.storage.is_remote:
        raise ConfigError(
            f"the report lies in a bucket: {place}. Open it at the bucket's own address, or copy the job's folder here"
        )
    say(place)
    if not webbrowser.open(Path(place).as_uri()):
        say("There is no browser here: open the file in one yourself", err=True)
