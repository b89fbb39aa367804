"""`trtjob events` and `logs`: what happened to a job, and what its workers said of it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import typer

from trtjob.cli import options as o
from trtjob.cli.session import Session, open_session, start
from trtjob.cli.signals import Stop, run_until_stopped
from trtjob.cli.ui.say import say, say_json
from trtjob.printable import printable, printable_lines

if TYPE_CHECKING:
    from trtjob.queue.events import Event
    from trtjob.queue.job_log import LogLine

LOGS_EXAMPLE = "Example: trtjob logs photos-1a2b3c4d --follow --level warning"
EVENTS_EXAMPLE = "Example: trtjob events photos-1a2b3c4d --follow"

POLL_S = 0.5
LATE_S = 3.0  # a worker brings its lines every second


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


Entry = TypeVar("Entry", bound=_HasId)
# Reads what is behind an entry, or the last so many.
Read = Callable[[str, int | None], Sequence[Entry]]

Follow = Annotated[
    bool,
    typer.Option(
        "--follow", "-f", help="Go on until the job ends; exit code 1 unless all is fine. Default: stop here."
    ),
]
Lines = Annotated[
    int,
    typer.Option(
        "--lines", "-n", min=1, metavar="N", show_default=False, help="Begin with the last N lines. Default: 1000."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line. Default: text.")]


def events(job: o.JobArgument, follow: Follow = False, lines: Lines = 1000, json: Json = False) -> None:
    """Show what happened to a job: shards taken, committed, given back and lost, images set aside, and how it ended."""
    with open_session(start()) as session:

        def read(after: str, last: int | None) -> "Sequence[Event]":
            return session.store.events(job, after=after, last=last)

        def show(event: "Event") -> None:
            print_line(event.document() if json else event_line(event))

        raise typer.Exit(run_until_stopped(_print(session, job, read, show, lines, is_followed=follow)))


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

        printing = _print(session, job, read, show, lines, is_followed=follow, late_s=LATE_S)
        raise typer.Exit(run_until_stopped(printing))


async def _print(
    session: Session,
    job_id: str,
    read: Read[Entry],
    show: Callable[[Entry], None],
    lines: int,
    *,
    is_followed: bool,
    late_s: float = 0.0,
) -> int:
    """Print the last lines, and those that come while the job runs. Returns the exit code.

    late_s: how long after the job's end there may still come some.
    """
    stop = Stop()
    with stop.on_signals("No longer following."):
        following = _follow(session, job_id, read, show, lines, stop, is_followed=is_followed, late_s=late_s)
        code = await stop.unless_stopped(following)
    return stop.exit_code if code is None else code


async def _follow(
    session: Session,
    job_id: str,
    read: Read[Entry],
    show: Callable[[Entry], None],
    lines: int,
    stop: Stop,
    *,
    is_followed: bool,
    late_s: float,
) -> int:
    from trtjob.jobs.states import TERMINAL, JobState

    last: int | None = lines
    after = ""
    ended_at = 0.0
    while True:
        session.connection.ensure()  # nobody else starts the embedded server again where no worker runs
        # Asked first: what is written with the job's end is then among what is read.
        state = await asyncio.to_thread(session.store.state, job_id)
        for entry in await asyncio.to_thread(read, after, last):
            show(entry)
            after, last = entry.id, None
        if not is_followed:
            return 0
        last = None
        ended_at = (ended_at or time.monotonic()) if state in TERMINAL else 0.0
        if ended_at and time.monotonic() - ended_at >= late_s:
            return 0 if state is JobState.DONE else 1
        await stop.sleep(POLL_S)


def print_line(line: str | dict[str, Any]) -> None:
    """Print one line at once: who reads a pipe follows it, too."""
    say(*line.split("\n")) if isinstance(line, str) else say_json(line)


def event_line(event: "Event") -> str:
    """Return `2026-09-21 12:30:05  committed   shard-00003  256 ok, 0 failed  node-17-1  attempt 2`."""
    attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
    parts = [clock(event.at), f"{event.event:<12}", event.unit, event.detail, event.worker, attempt]
    return printable("  ".join(filter(None, parts))).rstrip()


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


def clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
