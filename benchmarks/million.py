"""A job of many images from submission to receipt, with an engine that costs nothing: `python -m benchmarks.million`.

Each size runs in a process of its own, so that its memory is its own; the table shows how cost grows with the job.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from benchmarks.constant import ConstantEngine
from benchmarks.host import job_spec
from benchmarks.node import node
from trtjob.bench.synthetic_images import make_picture
from trtjob.config import Settings
from trtjob.jobs.spec import Annotate
from trtjob.jobs.states import ACTIVE, FINISHED, JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import job_key
from trtjob.queue.reconcile import reconcile
from trtjob.queue.submit import submit
from trtjob.worker.context import Context, set_current
from trtjob.worker.heartbeat import HeartbeatThread
from trtjob.worker.rq_worker import UnitWorker

SIZES = (10_000, 100_000, 1_000_000)
LINKS = 60_000  # names of one file: file systems allow no more than 65,000
SIDE = 416
SAMPLE_S = 0.05


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase of a job took. cpu_s: of the process alone; rss_mb: its highest resident memory, megabytes."""

    elapsed_s: float
    cpu_s: float
    rss_mb: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """A job of so many images. redis_mb: what the server's memory grew by at most, megabytes."""

    images: int
    redis_mb: float
    results_mb: float
    plan: Phase
    shards: Phase
    finish: Phase

    @property
    def phases(self) -> tuple[Phase, ...]:
        return self.plan, self.shards, self.finish


def make_folder(folder: Path, count: int) -> Path:
    """Make one folder of many small images, flat: names of a few files."""
    folder.mkdir(parents=True)
    for index in range(count):
        if index % LINKS == 0:
            _, data = cv2.imencode(".jpg", cv2.resize(make_picture("640x480", index // LINKS), (64, 48)))
            original = folder.parent / f"original-{index // LINKS}.jpg"
            original.write_bytes(data.tobytes())
        os.link(original, folder / f"{index * 7919 % count:07d}.jpg")  # not in their order
    return folder


def run_job(folder: Path, count: int, side: int = SIDE) -> Outcome:
    """Run a whole job in this process: submission, plan, shards through RQ, commits, finish.

    side: of the engine's square input, pixels.
    """
    source = make_folder(folder / "source", count)
    spec = job_spec(source, folder / "out", annotate=Annotate.NONE)
    with node(folder / "home", workers=0) as server:
        context = Context("bench", Settings(home=folder / "home", log_level="WARNING"), server.store, server.queue)
        set_current(context)
        heart = HeartbeatThread(context, server.connection.heartbeat())
        context.adopt_engine(spec.model, ConstantEngine(size=side, objects=3, candidates=64))
        heart.start()
        watch = _Watch(JobStore(server.connection.heartbeat()), spec.job_id)
        worker = UnitWorker(context, heart, server.connection.redis, server.queue.name)
        with watch.watching():
            submit(server.store, server.queue, spec)
            while server.store.state(spec.job_id) in ACTIVE:
                worker.work(burst=True, logging_level="ERROR")
                reconcile(server.store, server.queue)  # the daemon's part: to ask for the next shards
        heart.end()
        context.close_engine()
        view = server.store.view(spec.job_id)
        if view.state not in FINISHED or view.ok != count:
            raise RuntimeError(f"the job ended as {view.state} with {view.ok:,} images: {view.message}")
    results_mb = (folder / "out" / spec.job_id / "results.jsonl").stat().st_size / 1e6
    return Outcome(count, watch.redis_mb, results_mb, *watch.phases())


class _Watch:
    """Samples a job's state, and what it costs, in a thread."""

    def __init__(self, store: JobStore, job_id: str) -> None:
        self.store = store
        self.job_id = job_id
        self.redis_mb = 0.0
        self._began: dict[JobState, tuple[float, float]] = {}
        self._rss_mb: dict[JobState, float] = {}
        self._ended = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        before = self._redis_mb()
        self._start = _now()
        thread = threading.Thread(target=self._sample, args=(before,))
        thread.start()
        try:
            yield
        finally:
            self._end = _now()
            self._ended.set()
            thread.join()

    def _sample(self, before: float) -> None:
        _forget_peak()
        state = JobState.QUEUED
        while not self._ended.wait(SAMPLE_S):
            now = JobState((self.store.redis.hget(job_key(self.job_id), "state") or b"queued").decode())
            if now is not state:
                self._began[now] = _now()
                _forget_peak()
                state = now
            self._rss_mb[state] = _peak_mb()
            self.redis_mb = max(self.redis_mb, self._redis_mb() - before)

    def _redis_mb(self) -> float:
        return float(self.store.redis.info("memory")["used_memory"] / 1e6)

    def phases(self) -> Iterator[Phase]:
        running, finishing = self._began[JobState.RUNNING], self._began[JobState.FINISHING]
        edges = (self._start, running, finishing, self._end)
        for state, start, end in zip(
            (JobState.PLANNING, JobState.RUNNING, JobState.FINISHING), edges, edges[1:], strict=False
        ):
            yield Phase(end[0] - start[0], end[1] - start[1], self._rss_mb.get(state, 0.0))


def _now() -> tuple[float, float]:
    """Return the time on the clock, and this process's CPU time, seconds."""
    return time.monotonic(), time.process_time()


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def main() -> int:
    """Run the sizes that are asked for, each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, help="images in a job (default: 10^4 10^5 10^6)")
    parser.add_argument(
        "--side", type=int, default=SIDE, help="side of the engine's input, pixels (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON for each size instead of the table")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # the folder of the one size that a child runs
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(asdict(run_job(arguments.one, arguments.sizes[0], arguments.side))))
        return 0
    if arguments.json:
        for size in arguments.sizes:
            print(json.dumps(asdict(measure(size, arguments.side))), flush=True)
        return 0
    print("| images | plan | shards | finish | images/s | peak MB: plan, shards, finish | Redis MB | results MB |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for size in arguments.sizes:
        print(_row(measure(size, arguments.side)), flush=True)
    return 0


def measure(count: int, side: int) -> Outcome:
    """Run a job of so many images in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="trtjob-bench-") as folder:
        command = [sys.executable, "-m", "benchmarks.million", str(count), "--side", str(side), "--one", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | {"MALLOC_ARENA_MAX": "2"})
        fields = json.loads(done.stdout.splitlines()[-1])
    phases = [Phase(**fields.pop(name)) for name in ("plan", "shards", "finish")]
    return Outcome(fields["images"], fields["redis_mb"], fields["results_mb"], *phases)


def _row(outcome: Outcome) -> str:
    times = " | ".join(f"{phase.elapsed_s:.1f} s" for phase in outcome.phases)
    peaks = ", ".join(f"{phase.rss_mb:.0f}" for phase in outcome.phases)
    rate = outcome.images / sum(phase.elapsed_s for phase in outcome.phases)
    sizes = f"{outcome.redis_mb:.2f} | {outcome.results_mb:,.0f}"
    return f"| {outcome.images:,} | {times} | {rate:,.0f} | {peaks} | {sizes} |"


if __name__ == "__main__":
    sys.exit(main())
