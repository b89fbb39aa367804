"""`trtjob crops`: each object that a job has found as an image of its own."""

from pathlib import Path
from typing import Annotated

import typer

from trtjob.cli import options as o
from trtjob.cli.finished_job import counting, finished_folder, folder_here
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.counted import counted

EXAMPLE = "Example: trtjob crops results/photos-1a2b3c4d -o crops --margin 0.1"


def crops(
    job: o.JobOrFolderArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR", show_default=False, help="The folder of the crops, a new one."),
    ],
    margin: Annotated[
        float,
        typer.Option(
            "--margin",
            min=0,
            max=10,
            metavar="SHARE",
            show_default=False,
            help="How much of the box's own sides is added to each side, such as 0.1. Default: 0.",
        ),
    ] = 0.0,
    conf: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SCORE", help="Leave out detections below this score, 0 to 1. Default: the job's."
        ),
    ] = None,
    json: Annotated[bool, o.json_instead_of("text")] = False,
) -> None:
    """Save each detection of a finished job as a JPEG in a folder of its class, and a table of them, crops.csv.

    The images are read again from where the job read them. The same command again goes on after an interruption.
    """
    from trtjob.cli.ui.output import left_documents, print_json, print_left
    from trtjob.worker.crops import TABLE, make_crops

    output = folder_here("--output", output)
    settings = start()
    folder = finished_folder(job, settings)
    spec = folder.spec()
    with counting(folder, "cropping", hits_only=True) as on_image:
        made = make_crops(
            folder,
            spec,
            output,
            conf=spec.options.conf if conf is None else conf,
            margin=margin,
            max_pixels=settings.max_pixels,
            jpeg_quality=settings.jpeg_quality,
            allow_local=settings.fetch_allow_local,
            on_image=on_image,
        )
    table = output / TABLE
    if json:
        print_json(
            {
                "job_id": spec.job_id,
                "crops": made.crops,
                "images": made.images,
                "left": left_documents(made.left),
                "ignored": sorted(made.ignored),
                "table": str(table.resolve()),
            }
        )
    else:
        say(str(table))
        say(f"{counted(made.crops, 'crop')} of {counted(made.images, 'image')}", err=True)
        if made.ignored:
            say(f"crops are of boxes: {' and '.join(sorted(made.ignored))} are ignored", err=True)
    print_left(made.left)
    if made.left:
        raise typer.Exit(1)
