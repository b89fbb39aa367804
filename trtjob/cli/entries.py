"""Entries of a job, one a line: the last ones, and those that come while it runs."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

import typer

from trtjob.api.session import Session
from trtjob.api.stop import Stop
from trtjob.cli.signals import stopped_by_signals
from trtjob.cli.ui.say import say, say_json

POLL_S = 0.5


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

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]


async def print_entries(
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
    with stopped_by_signals("No longer following.") as stop:
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
            after = entry.id
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


def clock(at: float) -> str:
    """Return a time, in seconds since the epoch, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
