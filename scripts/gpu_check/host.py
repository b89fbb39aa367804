"""What the host can feed: the pipeline around an engine that costs nothing, by threads and by processes.

A GPU faster than this waits, whatever it is; so these figures are what one GPU's worker process can reach at the most.
"""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2

from bench.constant import ConstantEngine
from bench.host import job_spec
from scripts.gpu_check.rows import Row
from scripts.gpu_check.wishes import Wishes
from trtjob.jobs.listing import Entry, Listing
from trtjob.jobs.models import Annotate
from trtjob.jobs.records import Record
from trtjob.jobs.storage import LocalStorage
from trtjob.worker.pictures import SIZES, write_pictures
from trtjob.worker.pipeline import Pipeline
from trtjob.worker.pools import Limits, Pools
from trtjob.worker.stages import Stages

BATCH, CALLERS = 32, 2  # as TensorRT's engine has them by default
WINDOW_PER_BATCH = 3
START_S, WARM_UP_S = 4.0, 0.7  # until the processes are there; until their pipelines are full
FILES = 64


@dataclass(frozen=True, slots=True)
class Case:
    """What one process does. begin: on time.monotonic(), which all processes share."""

    threads: int
    source: Path
    output: Path
    annotate: Annotate
    begin: float
    seconds: float


def check(wishes: Wishes) -> Iterator[Row]:
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory(prefix="trtjob-gpu-check-") as temporary:
        folder = Path(temporary)
        sources = {size: write_pictures(folder / size, size, FILES) for size in SIZES}
        for processes, threads in shapes(cores):
            rates, used = _fed(processes, threads, sources, folder, wishes.seconds)
            name = f"{_count(processes, 'process', 'es')} of {_count(threads, 'thread')}"
            busy = " / ".join(f"{cores_used:.1f}" for cores_used in used)
            yield Row(name, figure=" / ".join(f"{rate:.0f}" for rate in rates), note=f"{busy} of {cores} cores in use")


def _fed(
    processes: int, threads: int, sources: dict[str, Path], folder: Path, seconds: float
) -> tuple[list[float], list[float]]:
    """Return the images per second, and the cores in use, of each size, annotated and not."""
    totals: list[tuple[float, float]] = []
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        delay_s = START_S
        for source in sources.values():
            for annotate in (Annotate.ALL, Annotate.NONE):
                begin = time.monotonic() + delay_s
                cases = [
                    Case(threads, source, folder / f"out-{number}", annotate, begin, seconds)
                    for number in range(processes)
                ]
                found = list(pool.map(feed, cases))
                totals.append((sum(rate for rate, _ in found), sum(used for _, used in found)))
                delay_s = WARM_UP_S
    return [rate for rate, _ in totals], [used for _, used in totals]


def shapes(cores: int) -> list[tuple[int, int]]:
    """Return (processes, threads of each): one process with few and with all threads, then ever more processes."""
    steps = [1 << power for power in range(1, cores.bit_length())]
    threads = sorted({1, min(4, cores), cores})
    return [*((1, count) for count in threads), *((step, cores // step) for step in steps if cores // step > 1)]


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number > 1 else ''}"


def feed(case: Case) -> tuple[float, float]:
    """Return the images per second of a pipeline from `begin` on, and the cores that this process used."""
    cv2.setNumThreads(1)
    done: list[float] = []
    cpu_s: list[float] = []
    end = case.begin + case.seconds
    engine = ConstantEngine(max_batch=BATCH, concurrency=CALLERS)
    job = job_spec(case.source, case.output, annotate=case.annotate)
    stages = Stages(job, engine.spec, LocalStorage(case.output), max_pixels=200_000_000, jpeg_quality=90)
    pools = Pools(Limits(case.threads, BATCH, WINDOW_PER_BATCH * BATCH), CALLERS)

    def on_record(record: Record) -> None:
        if record.error is not None:
            raise RuntimeError(f"{record.image}: {record.error.message}")
        if case.begin <= (now := time.monotonic()) < end:
            done.append(now)
            if len(done) == 1:
                cpu_s.append(time.process_time())

    if time.monotonic() > case.begin:
        raise RuntimeError("the processes took too long to start")
    try:
        asyncio.run(Pipeline(stages, engine, pools).run(_until(end, list(Listing(case.source))), _open, on_record))
    finally:
        pools.close()
    used_s = time.process_time() - cpu_s[0]
    return len(done) / case.seconds, used_s / (time.monotonic() - done[0])


def _until(end: float, entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in cycle(entries):
        if time.monotonic() >= end:
            return
        yield entry


async def _open(_keys: list[str]) -> None:
    """A gate that lets everything in."""
