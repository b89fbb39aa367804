"""What jobs that have ended cost: a daemon's sweep and `trtjob status`, with thousands of them known to the server."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.host import job_spec
from benchmarks.node import node
from benchmarks.table import Row
from trtjob.jobs.spec import Annotate
from trtjob.jobs.states import JobState
from trtjob.queue.reconcile import reconcile

SWEEP_GOAL_MS = 20.0
STATUS_GOAL_S = 0.5
ROUNDS = 9
KEEP_S = 3600.0


def known_jobs(home: Path, count: int) -> list[Row]:
    """Return the times of a sweep and of the whole command `trtjob status`, with so many jobs that have ended."""
    spec = job_spec(home / "photos", home / "out", annotate=Annotate.NONE)
    with node(home, workers=0) as server:
        for number in range(count):
            ended = spec.model_copy(update={"job_id": f"photos-{number:08x}", "created_at": 1e9 + number})
            server.store.create(ended, JobState.DONE, queue=server.queue.name)

        def sweep() -> None:
            server.store.forget_expired(server.queue.name, KEEP_S, 100)
            reconcile(server.store, server.queue)

        sweep_ms = _median_s(sweep) * 1000
        environment = {**os.environ, "TRTJOB_HOME": str(home)}
        command = [sys.executable, "-m", "trtjob", "status"]
        status_s = _median_s(lambda: subprocess.run(command, env=environment, check=True, capture_output=True))
        help_s = _median_s(lambda: subprocess.run([*command, "--help"], check=True, capture_output=True))
    known = f"{count:,} ended jobs"
    return [
        Row(f"sweep with {known}", sweep_ms, "ms", f"< {SWEEP_GOAL_MS:g}", sweep_ms < SWEEP_GOAL_MS),
        Row(
            f"`trtjob status` with {known}",
            status_s,
            "s",
            f"< {STATUS_GOAL_S:g}",
            status_s < STATUS_GOAL_S,
            f"`--help` alone takes {help_s:.2f} s",
        ),
    ]


def _median_s(act: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        act()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
