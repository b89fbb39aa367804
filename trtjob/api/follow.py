"""Follow a job until it ends or the user asks to stop."""

import asyncio
import time
from typing import TYPE_CHECKING

from trtjob.api.progress import Audience, Display
from trtjob.api.session import Session
from trtjob.api.stop import Stop

if TYPE_CHECKING:
    from trtjob.queue.views import JobView, WorkerView

POLL_S = 0.2


async def follow(
    session: Session, job_id: str, stop: Stop, audience: Audience, *, works_here: bool = False
) -> "JobView | None":
    """Show a job's progress; return the job as it ended, None where the user asked to stop.

    works_here: the caller has workers of its own.
    """
    with audience.job(works_here=works_here) as display:
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
