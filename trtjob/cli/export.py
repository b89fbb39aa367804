"""`trtjob export`: results in the formats of other tools."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from trtjob.api.job_folders import job_folder
from trtjob.cli import options as o
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.counted import counted
from trtjob.tilde import expand_tilde

EXAMPLE = "Example: trtjob export results/photos-1a2b3c4d --format coco -o photos.json"


def export(
    job: o.JobOrFolderArgument,
    format: Annotated[
        Literal[
            "coco",
            "coco-results",
            "megadetector",
            "darknet",
            "yolo",
            "voc",
            "labelme",
            "cvat",
            "label-studio",
            "csv",
            "parquet",
        ],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            show_default=False,
            help="The format to write: coco, coco-results, megadetector, darknet, yolo, voc, labelme, cvat, "
            "label-studio, csv or parquet.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The file to write, for yolo, voc and labelme a new folder. Default: named after the format, in the "
            "job's folder (for a job in a bucket: in this folder).",
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="SCORE",
            help="Leave out detections below this score, 0 to 1. Default: the score from which on the job draws; for "
            "coco-results none, since an evaluation wants all.",
        ),
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Write detections of these classes only: names or numbers, separated by commas. Default: all.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For coco-results: COCO's JSON with the ground truth, whose ids of images and categories are written. "
            "Default: none.",
        ),
    ] = None,
    per_image: Annotated[
        bool,
        typer.Option(
            "--per-image",
            help="csv and parquet: a row for each image, also for those with nothing in them and those that failed. "
            "Default: a row for each detection.",
        ),
    ] = False,
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
    with_scores: Annotated[
        bool,
        typer.Option(
            "--with-scores",
            help="yolo: the score at the end of each line, which is no training data then. Default: no scores.",
        ),
    ] = False,
) -> None:
    """Write the results of a job that has finished, or was cancelled, in another format."""
    from trtjob.jobs.exports import DEFAULT_NAMES, ExportFormat, Variant
    from trtjob.jobs.exports import export as export_results
    from trtjob.jobs.finish import Summary
    from trtjob.jobs.folder import RESULTS, SUMMARY
    from trtjob.jobs.spec import class_ids_from

    folder = job_folder(job, start)
    spec = folder.spec()
    folder.check_has(RESULTS)
    chosen = ExportFormat(format)
    # From a bucket, into the folder where the user stands.
    usual_place = (Path() if folder.storage.is_remote else Path(folder.uri)) / DEFAULT_NAMES[chosen]
    target = usual_place if output is None else expand_tilde(output)
    usual = spec.options.min_score if chosen is ExportFormat.COCO_RESULTS else spec.options.conf
    asked = {
        Variant.RAW: raw,
        Variant.POLYGONS: polygons,
        Variant.WITH_SCORES: with_scores,
        Variant.PER_IMAGE: per_image,
    }
    variants = [variant for variant, is_asked in asked.items() if is_asked]
    written = export_results(
        folder,
        spec,
        chosen,
        target,
        conf=usual if min_score is None else min_score,
        class_ids=None if classes is None else class_ids_from(classes, spec.model.labels),
        variants=variants,
        burst_s=burst,
        truth=None if truth is None else expand_tilde(truth),
    )
    say(str(target))
    if folder.storage.exists(SUMMARY):  # it is written behind the results
        summary = Summary.of(folder)
        if summary.incomplete:
            say(f"The job is not complete: {summary.incomplete} images", err=True)
    if written.dropped:
        say(f"{chosen} has no place for {' and '.join(written.dropped)}: only boxes are written", err=True)
    found = "" if spec.model.task == "classify" else f", {counted(written.detections, 'detection')}"
    left = "with the reason" if chosen is ExportFormat.MEGADETECTOR or per_image else "left out"
    failed = f"; {counted(written.failed, 'failed image')} {left}" if written.failed else ""
    say(f"{counted(written.images, 'image')}{found}{failed}", err=True)
