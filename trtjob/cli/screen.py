"""Keep a screen of jobs up to date."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trtjob.api.session import Session
from trtjob.api.stop import Stop
from trtjob.cli.ui.paint import Line
from trtjob.cli.ui.say import say
from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.views import JobView

SCREEN_S = 1.0


async def watch_screen(session: Session, job_id: str | None, stop: Stop) -> "JobView | None":
    """Keep a screen of one job, or of all, up to date on standard output; where that is no terminal, print it anew.

    Returns the one job as it ended; None where the user asked to stop.
    """
    with _open_screen() as show:
        return await stop.unless_stopped(_watch_screen(session, job_id, stop, show))


async def _watch_screen(
    session: Session, job_id: str | None, stop: Stop, show: Callable[[list[str]], None]
) -> "JobView":
    from trtjob.cli.ui.screens import job_lines, jobs_lines, standing
    from trtjob.jobs.states import TERMINAL

    while True:
        await asyncio.to_thread(session.connection.ensure)
        now = await asyncio.to_thread(standing, session.store, job_id)
        if job_id is None:
            show(jobs_lines(now))
        elif now.jobs[0].state in TERMINAL:
            return now.jobs[0]
        else:
            show(job_lines(now))
        await stop.sleep(SCREEN_S)


@contextmanager
def _open_screen() -> Iterator[Callable[[list[str]], None]]:
    if not sys.stdout.isatty():
        yield lambda lines: say(*lines, "")
        return
    from rich.live import Live
    from rich.text import Text

    with Live(refresh_per_second=4, transient=True) as live:
        yield lambda lines: live.update(
            Text.from_ansi("\n".join(map(_printable, lines)), no_wrap=True, overflow="ellipsis")
        )


def _printable(text: str) -> str:
    return text if isinstance(text, Line) else printable(text)
