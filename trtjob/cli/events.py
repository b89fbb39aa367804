"""`trtjob events`: what happened to a job."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from trtjob.api.session import open_session
from trtjob.cli import options as o
from trtjob.cli.entries import Follow, Json, Lines, clock, print_entries, print_line
from trtjob.cli.session import start
from trtjob.cli.signals import run_until_stopped
from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.events import Event

EXAMPLE = "Example: trtjob events photos-1a2b3c4d --follow"


def events(job: o.JobArgument, follow: Follow = False, lines: Lines = 1000, json: Json = False) -> None:
    """Show what happened to a job: shards taken, committed, given back and lost, images set aside, and how it ended."""
    with open_session(start()) as session:

        def read(after: str, last: int | None) -> "Sequence[Event]":
            return session.store.events(job, after=after, last=last)

        def show(event: "Event") -> None:
            print_line(event.document() if json else event_line(event))

        raise typer.Exit(run_until_stopped(print_entries(session, job, read, show, lines, is_followed=follow)))


def event_line(event: "Event") -> str:
    """Return `2026-09-21 12:30:05  committed   shard-00003  256 ok, 0 failed  node-17-1  attempt 2`."""
    attempt = f"attempt {event.attempt}" if event.attempt > 1 else ""
    parts = [clock(event.at), f"{event.event:<12}", event.unit, event.detail, event.worker, attempt]
    return printable("  ".join(filter(None, parts))).rstrip()
