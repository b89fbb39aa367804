"""`trtjob logs`: what its workers said of a job."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trtjob.api.session import open_session
from trtjob.cli import options as o
from trtjob.cli.entries import Follow, Json, Lines, clock, print_entries, print_line
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped
from trtjob.printable import printable, printable_lines

if TYPE_CHECKING:
    from trtjob.queue.job_log import LogLine

EXAMPLE = "Example: trtjob logs photos-1a2b3c4d --follow --level warning"

LATE_S = 3.0  # a worker brings its lines every second


def logs(
    job: o.JobArgument,
    follow: Follow = False,
    lines: Lines = 1000,
    level: Annotated[
        Literal["info", "warning", "error"],
        typer.Option(
            "--level",
            "-l",
            metavar="info|warning|error",
            show_default=False,
            help="Show lines of this level and above. Default: info.",
        ),
    ] = "info",
    json: Json = False,
) -> None:
    """Show what workers logged of a job, on whichever node they ran; the last 5,000 lines are kept."""
    import logging

    from trtjob.queue.job_log import read_log

    lowest = logging.getLevelNamesMapping()[level.upper()]
    with open_session(start()) as session:

        def read(after: str, last: int | None) -> "Sequence[LogLine]":
            return read_log(session.store.redis, job, after=after, last=last)

        def show(line: "LogLine") -> None:
            if line.level >= lowest:
                print_line(line.fields if json else log_line(line))

        printing = print_entries(session, job, read, show, lines, is_followed=follow, late_s=LATE_S)
        raise typer.Exit(run_until_stopped(printing))


def log_line(line: "LogLine") -> str:
    """Return `2026-09-21 12:30:05  warning  image set aside  image=a.jpg  shard-00003  node-17-1  attempt 2`."""
    fields = dict(line.fields)
    level, msg, unit, worker, attempt = (fields.pop(name, "") for name in ("level", "msg", "unit", "worker", "attempt"))
    exception = fields.pop("exception", "")
    for name in ("ts", "logger", "job_id"):
        fields.pop(name, None)
    others = "  ".join(f"{name}={value}" for name, value in fields.items())
    again = f"attempt {attempt}" if isinstance(attempt, int) and attempt > 1 else ""
    parts = [clock(line.at), f"{level:<7}", msg, others, unit, worker, again]
    text = printable("  ".join(str(part) for part in parts if part))
    return f"{text}\n{printable_lines(exception)}" if exception else text
