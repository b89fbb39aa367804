"""`trtjob sort`: images put into folders by what was found on them, and back."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trtjob.api.job_folders import named_folder
from trtjob.cli import options as o
from trtjob.cli.finished_job import counting, finished_folder, folder_here
from trtjob.cli.session import start
from trtjob.cli.ui.say import say
from trtjob.errors import ConfigError

if TYPE_CHECKING:
    from trtjob.jobs.sorting import How, SortedImages

EXAMPLE = "Example: trtjob sort results/photos-1a2b3c4d --into sorted --move"


def sort(
    job: o.JobOrFolderArgument,
    into: Annotated[
        Path,
        typer.Option("--into", metavar="DIR", show_default=False, help="The folder that gets the folders and images."),
    ],
    by: Annotated[
        Literal["class", "empty", "folder"],
        typer.Option(
            "--by",
            metavar="class|empty|folder",
            show_default=False,
            help="class: dog/, dog+person/, empty/, failed/; empty: found/, empty/, failed/; folder: the images' own "
            "folders, in each of them the classes. Below, images keep their folders and names. Default: class.",
        ),
    ] = "class",
    copy: Annotated[bool, typer.Option("--copy", show_default=False, help="Copy the images. Default: this.")] = False,
    link: Annotated[
        bool,
        typer.Option(
            "--link",
            show_default=False,
            help="Link the images, which takes no space: a second name, or on another file system a symbolic link. "
            "Default: --copy.",
        ),
    ] = False,
    move: Annotated[bool, typer.Option("--move", show_default=False, help="Move the images. Default: --copy.")] = False,
    conf: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="SCORE", help="What was found with a lower score does not count. Default: the job's."
        ),
    ] = None,
    undo: Annotated[
        bool,
        typer.Option("--undo", show_default=False, help="Take back what was sorted of the job into DIR. Default: no."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", show_default=False, help="Print how many images each folder would get. Default: sort."
        ),
    ] = False,
    json: Annotated[bool, o.json_instead_of("text")] = False,
) -> None:
    """Put the images of a job that has finished into folders by what was found on them.

    Nothing is ever overwritten, and what was done stands in a list in DIR. The same command again goes on after an
    interruption.
    """
    from trtjob.jobs.sorting import How

    chosen = [how for how, is_asked in ((How.COPY, copy), (How.LINK, link), (How.MOVE, move)) if is_asked]
    if len(chosen) > 1:
        raise ConfigError("--copy, --link and --move exclude each other: give one")
    if undo and dry_run:
        raise ConfigError("--undo and --dry-run exclude each other: a dry run says where images would go")
    into = folder_here("--into", into)
    if undo:
        _undo(job, into, json=json)
        return
    _sort(job, into, by, chosen[0] if chosen else How.COPY, conf, dry_run=dry_run, json=json)


def _sort(job: str, into: Path, by: str, how: "How", conf: float | None, *, dry_run: bool, json: bool) -> None:
    from trtjob.jobs.sorting import By, sort_images

    settings = start()
    folder = finished_folder(job, settings)
    spec = folder.spec()
    with counting(folder, "sorting") as on_record:
        done = sort_images(
            folder,
            spec,
            into,
            by=By(by),
            how=how,
            conf=spec.options.conf if conf is None else conf,
            is_dry=dry_run,
            allow_local=settings.fetch_allow_local,
            on_record=on_record,
        )
    if json:
        _print_json(spec.job_id, into, done)
    else:
        _print(spec.job_id, into, done)
    if done.left:
        raise typer.Exit(1)


def _print(job_id: str, into: Path, done: "SortedImages") -> None:
    from trtjob.cli.ui.output import print_left, print_rows

    print_rows((f"{count:,}", name) for name, count in done.folders.most_common())
    print_left(done.left)
    if done.list_path is not None:
        say(f"Take it back with: trtjob sort {job_id} --into {shlex.quote(str(into))} --undo", err=True)


def _print_json(job_id: str, into: Path, done: "SortedImages") -> None:
    from trtjob.cli.ui.output import left_documents, print_json

    print_json(
        {
            "job_id": job_id,
            "into": str(into.resolve()),
            "folders": dict(done.folders.most_common()),
            "left": left_documents(done.left),
            "list": None if done.list_path is None else str(done.list_path),
        }
    )


def _undo(job: str, into: Path, *, json: bool) -> None:
    from trtjob.cli.ui.output import left_documents, print_json, print_left
    from trtjob.jobs.sorting import undo_sort

    folder = named_folder(job)
    job_id = job if folder is None else folder.spec().job_id
    taken_back, left = undo_sort(into, job_id)
    if json:
        print_json({"job_id": job_id, "taken_back": taken_back, "left": left_documents(left)})
    else:
        say(f"{taken_back:,} taken back")
        print_left(left)
    if left:
        raise typer.Exit(1)
