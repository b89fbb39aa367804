"""The jobs that a worker process leaves to others for some seconds, since it lacks something for them."""

import time
from collections.abc import Callable

from trtjob.queue.exclusions import Exclusions, Lack

FIRST_PAUSE_S, LAST_PAUSE_S = 5.0, 15.0  # until a node looks again


class OwnExclusions:
    """The jobs that one worker process leaves to others for now."""

    def __init__(self, exclusions: Exclusions, worker: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._exclusions = exclusions
        self._worker = worker
        self._clock = clock
        self._until: dict[str, float] = {}
        self._times: dict[str, int] = {}
        self._lacks: dict[str, Lack] = {}

    def add(self, job_id: str, lack: Lack) -> bool:
        """Leave a job alone for some seconds; for longer, the more often in a row. Returns whether it is the first."""
        self._lacks[job_id] = lack
        times = self._times[job_id] = self._times.get(job_id, 0) + 1
        self._until[job_id] = self._clock() + min(LAST_PAUSE_S, FIRST_PAUSE_S * times)
        return times == 1

    def current(self) -> list[str]:
        """Return the jobs that are left alone now: not those that have been continued by somebody since."""
        for job_id, until in list(self._until.items()):
            if self._clock() >= until or not self._exclusions.is_aside(job_id, self._worker):
                del self._until[job_id]
        return list(self._until)

    def note_progress(self, job_id: str) -> None:
        """Note that images of a job are done here: a place that was away is there again."""
        if self._lacks.get(job_id) in (Lack.PLACE, Lack.OUTAGE):
            self.remove(job_id)

    def remove(self, job_id: str) -> None:
        """Note that a unit of a job has ended well here."""
        for known in (self._until, self._times, self._lacks):
            known.pop(job_id, None)
        self._exclusions.come_back(job_id, self._worker)
