"""What a person wants to know of a running job: how fast, how long still, and what limits it."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from trtjob.config import DEFAULT_QUEUE
from trtjob.jobs.states import ACTIVE, JobState
from trtjob.queue.views import JobView, WorkerView

# A stage that works more than this share of its time is what the others wait for.
LIMITING_SHARE = 0.8
_HINTS = {
    "fetch": "reading from storage",
    "decode": "reading and decoding",
    "decode_gpu": "decoding on the GPU",
    "infer": "the engine",
    "finish": "drawing, encoding and writing",
    "store": "writing to storage",
}


def limiting_stage(workers: Iterable[WorkerView]) -> str | None:
    """Return the stage with the largest busy share over all workers, None where nothing is busy."""
    total: dict[str, float] = {}
    for worker in workers:
        for stage, share in worker.busy.items():
            total[stage] = total.get(stage, 0.0) + share
    return max(total, key=lambda stage: total[stage]) if any(total.values()) else None


def describe_limit(view: JobView, workers: list[WorkerView]) -> str:
    """Say in one sentence what a job waits for, or what limits its speed; empty where there is nothing to say."""
    if view.state not in ACTIVE:
        return view.message
    is_anybody, workers = bool(workers), [worker for worker in workers if worker.may_do(view.queue, view.job_id)]
    if not workers and view.runner:
        return f"No worker is running. Go on here with: trtjob resume {view.job_id}"
    if not workers:
        missing = f"No worker serves the queue '{view.queue}'" if is_anybody else "No worker is running"
        return f"{missing}. Start one with: {worker_command(view.queue)}"
    if view.degraded:
        return f"Waiting: {view.degraded}"
    mine = [worker for worker in workers if worker.units_of(view.job_id)]
    if not mine:
        # An idle worker is about to take the job up: what workers report is up to a second old.
        is_waiting = all(worker.units for worker in workers)
        return f"Waiting for a worker: all {len(workers)} are busy with other jobs." if is_waiting else ""
    if doing := next((worker.doing for worker in mine if worker.doing), ""):
        return doing
    stage = limiting_stage(mine)
    if stage is None:
        return ""
    shares = [worker.busy.get(stage, 0.0) for worker in mine]
    share = sum(shares) / len(shares)
    verb = "bound by" if share >= LIMITING_SHARE else "busiest with"
    return f"{verb} {_HINTS.get(stage, stage)} ({share:.0%} busy)"


def worker_command(queue: str) -> str:
    """Return the command that starts a worker for a queue."""
    return f"TRTJOB_QUEUE={queue} trtjob worker" if queue not in ("", DEFAULT_QUEUE) else "trtjob worker"


@dataclass(slots=True)
class RateMeter:
    """Images per second over the last `span_s` seconds, and the time that the rest will take."""

    span_s: float = 15.0
    _samples: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, done: int, now: float | None = None) -> None:
        now = time.monotonic() if now is None else now
        self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[0][0] > self.span_s:
            self._samples.popleft()

    @property
    def rate(self) -> float:
        """Images per second; 0 before there are two samples."""
        if len(self._samples) < 2:
            return 0.0
        (t0, n0), (t1, n1) = self._samples[0], self._samples[-1]
        return max(0.0, (n1 - n0) / (t1 - t0)) if t1 > t0 else 0.0

    def eta_s(self, remaining: int) -> float | None:
        """Seconds until `remaining` images are done, None where there is no rate yet."""
        return remaining / self.rate if self.rate else None


def remaining(view: JobView) -> int | None:
    """Images still to do, None while the listing is not complete."""
    return max(0, view.images - view.done) if view.planned or view.state is not JobState.PLANNING else None
