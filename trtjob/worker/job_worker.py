"""The worker of `trtjob run`: it does the units of one job, and takes no other's.

It takes its messages out of the queue by itself, where RQ would deliver whatever waits first. The job is named when it
is handed in, while the process gets ready.
"""

import signal
import time
from types import FrameType

from trtjob.queue.keys import job_key
from trtjob.worker.context import Context
from trtjob.worker.rq_worker import ASIDE_POLL_S, foreign_left, server_needed
from trtjob.worker.tasks import run_unit

POLL_S = 0.05  # a list of the server's memory is looked through, so a short wait costs little
LONGEST_POLL_S = 0.2  # while others have all units in hand; a stop is heard as late


class JobWorker:
    """One worker process, for one job."""

    def __init__(self, context: Context) -> None:
        self.context = context

    def work(self) -> None:
        """Do what the job asks for until told to stop by SIGTERM."""
        signal.signal(signal.SIGTERM, self._request_stop)
        pause_s = POLL_S
        while not self.context.stopping:
            job_id = self.context.job_id
            if job_id and self._do_next(job_id):
                pause_s = POLL_S
                continue
            time.sleep(pause_s)
            pause_s = min(LONGEST_POLL_S, 1.5 * pause_s) if job_id else POLL_S

    def _do_next(self, job_id: str) -> bool:
        """Do the next unit, and the shards that follow it. Returns False where none waits for this worker."""
        with server_needed(), foreign_left(job_key(job_id)):
            if self.context.own_exclusions.current():
                time.sleep(ASIDE_POLL_S)
            elif (unit := self.context.queue.take_unit_of(job_id)) is not None:
                run_unit(job_id, unit)
                return True
        return False

    def _request_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.context.request_stop()
