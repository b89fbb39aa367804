"""`trtjob export`: results in the formats of other tools."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from trtjob.api.job_folders import job_folder
from trtjob.cli import options as o
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.counted import counted
from trtjob.errors import JobError

EXAMPLE = "Example: trtjob export results/photos-1a2b3c4d --format coco -o photos.json"


def export(
    job: o.JobOrFolderArgument,
    format: Annotated[
        Literal["coco", "megadetector", "darknet", "yolo", "label-studio", "csv"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            show_default=False,
            help="The format to write: coco, megadetector, darknet, yolo, label-studio or csv.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file to write, for yolo a new folder. Default: named after the format, in the "
            "job's folder (for a job in a bucket: in this folder).",
        ),
    ] = None,
    conf: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SCORE", help="Leave out detections below this score, 0 to 1. Default: the job's."
        ),
    ] = None,
    raw: Annotated[
        bool,
        typer.Option(
            "--raw",
            help="CSV for a machine: names and labels as they are. Default: an apostrophe before those that a "
            "spreadsheet would run as a formula.",
        ),
    ] = False,
    burst: Annotated[
        float | None,
        typer.Option(
            "--burst",
            min=0,
            metavar="SECONDS",
            help="Of a job with --metadata: pictures of one folder with no more seconds from each to the next are one "
            "sequence, in coco, megadetector and csv. Default: no sequences.",
        ),
    ] = None,
    polygons: Annotated[
        bool,
        typer.Option(
            "--polygons",
            help="coco and label-studio: masks as outlines, without their holes. Default: every pixel, as run lengths.",
        ),
    ] = False,
    no_scores: Annotated[
        bool,
        typer.Option(
            "--no-scores",
            help="yolo: lines without the score, as Ultralytics trains on. Default: the score at the end of each line.",
        ),
    ] = False,
) -> None:
    """Write the results of a job that has finished, or was cancelled, in another format."""
    from trtjob.jobs.exports import DEFAULT_NAMES, ExportFormat, Variant
    from trtjob.jobs.exports import export as export_results
    from trtjob.jobs.finish import Summary
    from trtjob.jobs.folder import RESULTS, SUMMARY

    folder = job_folder(job, start)
    spec = folder.spec()
    if not folder.storage.exists(RESULTS):
        raise JobError(
            f"job '{spec.job_id}' has no {RESULTS} yet: it has not finished. See: trtjob status {spec.job_id}",
            job_id=spec.job_id,
        )
    chosen = ExportFormat(format)
    # From a bucket, into the folder where the user stands.
    target = output or (Path() if folder.storage.is_remote else Path(folder.uri)) / DEFAULT_NAMES[chosen]
    conf = spec.options.conf if conf is None else conf
    asked = {Variant.RAW: raw, Variant.POLYGONS: polygons, Variant.NO_SCORES: no_scores}
    variants = [variant for variant, is_asked in asked.items() if is_asked]
    written = export_results(folder, spec, chosen, target, conf=conf, variants=variants, burst_s=burst)
    say(str(target))
    if folder.storage.exists(SUMMARY):  # it is written behind the results
        summary = folder.document(Summary, SUMMARY, remedy="Remove it")
        if summary.incomplete:
            say(f"The job is not complete: {summary.incomplete} images", err=True)
    if written.dropped:
        say(f"{chosen} has no place for {' and '.join(written.dropped)}: only boxes are written", err=True)
    left = "with why" if chosen is ExportFormat.MEGADETECTOR else "left out"
    found = "" if spec.model.task == "classify" else f", {counted(written.detections, 'detection')}"
    failed = counted(written.failed, "failed image")
    say(f"{counted(written.images, 'image')}{found}; {failed} {left}", err=True)
