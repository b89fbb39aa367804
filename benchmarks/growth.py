"""How things grow with the job: the worker's memory with images done, the server's with files submitted."""

import statistics
import time
from pathlib import Path

from benchmarks.node import Node, node
from benchmarks.processes import tree_mb
from benchmarks.table import Row
from trtjob.bench.synthetic_images import write_pictures
from trtjob.converters.registry import RegisteredModel

RSS_GOAL = 10.0
SUBMIT_GOAL_S = 20.0
REDIS_GOAL_MB = 5.0


def memory(folder: Path, home: Path, model: RegisteredModel, count: int) -> list[Row]:
    """Return the growth of a worker's resident memory from a tenth of a job to its end."""
    source = write_pictures(folder / "memory", "640x480", count)
    with node(home) as running:
        job_id = running.submit(source, model, folder / "memory-out").job_id
        early = _rss_mb(running, job_id, range(count // 20, count // 10))
        late = _rss_mb(running, job_id, range(count - count // 20, count))
        running.wait(job_id)
    growth = (late / early - 1) * 100
    note = f"{early:.0f} MB at {count // 10} images, {late:.0f} MB at {count}"
    return [Row("worker memory growth", growth, "%", f"<= {RSS_GOAL:g}", growth <= RSS_GOAL, note)]


def _rss_mb(running: Node, job_id: str, done: range) -> float:
    """Return the worker's median resident memory while so many images are done: it breathes with those in flight."""
    running.wait(job_id, lambda view: view.done >= done.start)
    (worker,) = running.store.workers()
    samples = []
    while running.store.view(job_id).done < done.stop - 1:
        samples.append(tree_mb(worker.pid))
        time.sleep(0.05)
    return statistics.median(samples)


def submission(folder: Path, home: Path, model: RegisteredModel, count: int) -> list[Row]:
    """Return the time to submit and plan many files, and what the server's memory grows by."""
    source = folder / "many"
    for index in range(count):
        if index % 1000 == 0:
            (source / f"{index // 1000:04d}").mkdir(parents=True)
        (source / f"{index // 1000:04d}" / f"{index:07d}.jpg").touch()
    with node(home) as running:
        running.wait_for_worker()
        before = running.connection.redis.info("memory")["used_memory"]
        start = time.perf_counter()
        job_id = running.submit(source, model, folder / "many-out").job_id
        running.wait(job_id, lambda view: view.planned)
        elapsed = time.perf_counter() - start
        grown = (running.connection.redis.info("memory")["used_memory"] - before) / 1e6
        running.cancel(job_id)
    rate = f"{count / elapsed:,.0f} files/s"
    name = f"{count:,} files"
    return [
        Row(f"submit and plan {name}", elapsed, "s", f"< {SUBMIT_GOAL_S:g}", elapsed < SUBMIT_GOAL_S, rate),
        Row(f"server memory for {name}", grown, "MB", f"< {REDIS_GOAL_MB:g}", grown < REDIS_GOAL_MB),
    ]
