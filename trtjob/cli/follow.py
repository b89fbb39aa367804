"""Follow a job until it ends or the user asks to stop."""

import asyncio
import time
from typing import TYPE_CHECKING

from trtjob.cli.desk import Desk
from trtjob.cli.progress import Display, open_display
from trtjob.cli.stopping import Stop

if TYPE_CHECKING:
    from trtjob.jobs.views import JobView, WorkerView

POLL_S = 0.2


async def follow(desk: Desk, job_id: str, stop: Stop) -> "JobView | None":
    """Show a job's progress on standard error; return the job as it ended, None where the user asked to stop."""
    with open_display() as display:
        return await stop.unless_stopped(_follow(desk, job_id, stop, display))


async def _follow(desk: Desk, job_id: str, stop: Stop, display: Display) -> "JobView":
    from trtjob.jobs.progress import RateMeter
    from trtjob.jobs.states import TERMINAL

    meter = RateMeter()
    while True:
        # In a thread: while the server is away a command waits for it, and the signals must be heard meanwhile.
        view, workers = await asyncio.to_thread(_look, desk, job_id)
        meter.add(view.done, time.monotonic())
        display.show(view, workers, meter)
        if view.state in TERMINAL:
            return view
        await stop.sleep(POLL_S)


def _look(desk: Desk, job_id: str) -> "tuple[JobView, list[WorkerView]]":
    desk.connection.ensure()  # nobody else starts the embedded server again where no worker runs
    return desk.store.view(job_id), desk.store.workers()
