"""Frames of videos: trtjob beside the loop that one writes in an afternoon, and two workers beside one."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.made_video import FPS, write_video
from benchmarks.node import Node, node
from benchmarks.plain import PlainLoop
from benchmarks.processes import tree_cpu_s
from benchmarks.table import Row
from trtjob.converters.registry import RegisteredModel
from trtjob.jobs.spec import Annotate

LOOP_GOAL, WORKERS_GOAL = 1.5, 0.55  # a tenth for what two workers share: the plan, and the end
SAMPLINGS = {"fps=1": FPS, "fps=5": FPS // 5, "every=1": 1}  # and of how many frames the loop takes one


def videos(folder: Path, home: Path, model: RegisteredModel, seconds: int, rounds: int = 1) -> list[Row]:
    """Return the rows for a video of 1080p of so many seconds, and for one of twice as many that two workers share."""
    path = write_video(folder / "videos" / "1080p.mp4", seconds, (1080, 1920))
    rows = [*_beside_loop(path, home, model, folder / "videos-out", seconds * FPS, rounds)]
    small = write_video(folder / "two-workers" / "long.mp4", 2 * seconds, (360, 640))
    return [*rows, _two_workers(small, folder, model)]


def _beside_loop(
    path: Path, home: Path, model: RegisteredModel, output: Path, frames: int, rounds: int
) -> Iterator[Row]:
    plain = PlainLoop(model.path, model.spec)
    with node(home) as running:
        running.wait_for_worker()
        (worker,) = running.store.workers()
        for sampling, step in SAMPLINGS.items():
            ours, theirs, before = [], [], tree_cpu_s(worker.pid)
            for turn in range(rounds):
                start = time.perf_counter()
                running.wait(_submit(running, path, model, output / f"{sampling}-{turn}", sampling))
                ours.append(time.perf_counter() - start)
                start, before_loop = time.perf_counter(), time.process_time()
                plain.run_video(path, step)
                theirs.append(time.perf_counter() - start)
                loop_cpu_s = time.process_time() - before_loop
            cpu_s = (tree_cpu_s(worker.pid) - before) / rounds
            ratio = statistics.median(loop / own for loop, own in zip(theirs, ours, strict=True))
            times = f"trtjob {statistics.median(ours):.1f} s, loop {statistics.median(theirs):.1f} s"
            note = f"{frames:,} frames: {times}; of the CPU {cpu_s:.1f} s and {loop_cpu_s:.1f} s"
            met = ratio >= LOOP_GOAL if step == 1 else None
            goal = f">= {LOOP_GOAL}" if step == 1 else ""
            yield Row(f"video 1080p, {sampling}", ratio, "x OpenCV loop", goal, met, note)


def _two_workers(path: Path, folder: Path, model: RegisteredModel) -> Row:
    """Share a video between two workers of one core each."""
    took_s = []
    for count in (1, 2):
        home = folder / f"home-of-{count}"
        with node(home, workers=0) as running, _workers(home, count, running):
            start = time.perf_counter()
            running.wait(_submit(running, path, model, folder / f"by-{count}", "fps=5"))
            took_s.append(time.perf_counter() - start)
    share = took_s[1] / took_s[0]
    note = f"one {took_s[0]:.1f} s, two {took_s[1]:.1f} s"
    return Row(
        "video 360p, fps=5, two workers", share, "x one's time", f"<= {WORKERS_GOAL}", share <= WORKERS_GOAL, note
    )


def _submit(running: Node, path: Path, model: RegisteredModel, output: Path, sampling: str) -> str:
    return running.submit(path.parent, model, output, annotate=Annotate.NONE, frames=sampling).job_id


@contextmanager
def _workers(home: Path, count: int, running: Node) -> Iterator[None]:
    """Run workers, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    environment = os.environ | {"TRTJOB_HOME": str(home), "TRTJOB_LOG_LEVEL": "WARNING"}
    command = [sys.executable, "-m", "trtjob", "worker"]
    workers = []
    for core in cores[:count]:
        workers.append(subprocess.Popen(command, env=environment | {"TRTJOB_HEALTH_PORT": "0"}))
        os.sched_setaffinity(workers[-1].pid, {core})
    try:
        while len(running.store.workers()) < count:
            time.sleep(0.02)
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
