"""Follow a job until it ends or the user asks to stop."""

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trtjob.cli.session import Session
from trtjob.cli.signals import Stop
from trtjob.cli.ui.progress import Display, open_display
from trtjob.cli.ui.say import say
from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.views import JobView, WorkerView

POLL_S = 0.2
SCREEN_S = 1.0


async def follow(session: Session, job_id: str, stop: Stop, *, works_here: bool = False) -> "JobView | None":
    """Show a job's progress on standard error; return the job as it ended, None where the user asked to stop.

    works_here: this command has workers of its own.
    """
    with open_display(works_here=works_here) as display:
        return await stop.unless_stopped(_follow(session, job_id, stop, display))


async def _follow(session: Session, job_id: str, stop: Stop, display: Display) -> "JobView":
    from trtjob.jobs.states import TERMINAL
    from trtjob.queue.progress import RateMeter

    meter = RateMeter()
    while True:
        # In a thread: while the server is away a command waits for it, and the signals must be heard meanwhile.
        view, workers = await asyncio.to_thread(_look, session, job_id)
        meter.add(view.done, time.monotonic())
        display.show(view, workers, meter)
        if view.state in TERMINAL:
            return view
        await stop.sleep(POLL_S)


def _look(session: Session, job_id: str) -> "tuple[JobView, list[WorkerView]]":
    session.connection.ensure()  # nobody else starts the embedded server again where no worker runs
    return session.store.view(job_id), session.store.workers()


async def watch_screen(session: Session, job_id: str | None, stop: Stop) -> "JobView | None":
    """Keep a screen of one job, or of all, up to date on standard output; where that is no terminal, print it anew.

    Returns the one job as it ended; None where the user asked to stop.
    """
    with _open_screen() as show:
        return await stop.unless_stopped(_watch_screen(session, job_id, stop, show))


async def _watch_screen(
    session: Session, job_id: str | None, stop: Stop, show: "Callable[[list[str]], None]"
) -> "JobView":
    from trtjob.cli.ui.screens import bar, job_lines, jobs_lines, standing
    from trtjob.jobs.states import TERMINAL

    while True:
        await asyncio.to_thread(session.connection.ensure)
        now = await asyncio.to_thread(standing, session.store, job_id)
        if job_id is None:
            show(jobs_lines(now))
        elif now.jobs[0].state in TERMINAL:
            return now.jobs[0]
        else:
            show([*job_lines(now), "", bar(now.jobs[0])])
        await stop.sleep(SCREEN_S)


@contextmanager
def _open_screen() -> "Iterator[Callable[[list[str]], None]]":
    if not sys.stdout.isatty():
        yield lambda lines: say(*lines, "")
        return
    from rich.live import Live
    from rich.text import Text

    with Live(refresh_per_second=4, transient=True) as live:
        yield lambda lines: live.update(Text("\n".join(map(printable, lines)), no_wrap=True, overflow="ellipsis"))
