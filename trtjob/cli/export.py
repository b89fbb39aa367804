"""`trtjob export`: results in the formats of other tools."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trtjob.cli.complete import job_ids_and_folders
from trtjob.cli.desk import open_desk, start
from trtjob.errors import ConfigError, JobError

if TYPE_CHECKING:
    from trtjob.jobs.folder import JobFolder

EXAMPLE = "Example: trtjob export results/photos-1a2b3c4d --format coco -o photos.json"


def export(
    job: Annotated[
        str,
        typer.Argument(
            metavar="JOB",
            show_default=False,
            help="A job's id, or its folder or s3:// prefix.",
            autocompletion=job_ids_and_folders,
        ),
    ],
    format: Annotated[
        Literal["coco", "megadetector", "darknet", "yolo", "csv"],
        typer.Option(
            "--format",
            "-f",
            metavar="FORMAT",
            show_default=False,
            help="The format to write: coco, megadetector, darknet, yolo or csv.",
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
) -> None:
    """Write a finished job's results in another format."""
    from trtjob.jobs.exports import DEFAULT_NAMES, ExportFormat
    from trtjob.jobs.exports import export as export_results
    from trtjob.jobs.folder import RESULTS

    folder = _folder(job)
    spec = folder.spec()
    if not folder.storage.exists(RESULTS):
        raise JobError(
            f"job '{spec.job_id}' has no {RESULTS} yet: it has not finished. See: trtjob status {spec.job_id}",
            job_id=spec.job_id,
        )
    chosen = ExportFormat(format)
    # From a bucket, into the folder where the user stands.
    target = output or (Path() if folder.storage.is_remote else Path(folder.uri)) / DEFAULT_NAMES[chosen]
    written = export_results(folder, spec, chosen, target, conf=spec.options.conf if conf is None else conf)
    typer.echo(str(target))
    typer.echo(
        f"{written.images} images, {written.detections} detections; {written.failed} failed images left out", err=True
    )


def _folder(job: str) -> "JobFolder":
    from trtjob.jobs.folder import JobFolder
    from trtjob.jobs.storage import is_s3

    if Path(job).is_dir():
        return JobFolder.at(Path(job).resolve())
    if is_s3(job):
        return JobFolder.at(job.rstrip("/"))
    if "/" in job:
        raise ConfigError(f"no job's folder '{job}'. Name a job's id, or the folder that holds its job.json")
    with open_desk(start()) as desk:
        return JobFolder.of(desk.store.view(job).spec)
