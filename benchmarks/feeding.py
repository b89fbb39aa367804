"""Does the pipeline keep an engine fed, and what does it take: full batches, the death of an image process, memory."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.constant import ConstantEngine
from benchmarks.host import job_spec, run_pipeline
from benchmarks.table import Row
from trtjob.bench.synthetic_images import write_pictures
from trtjob.config import Settings
from trtjob.engines.protocol import AnyImage, FloatArray
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.storage.listing import Entry, Listing
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.limits import PipelineLimits

BATCH, CALLERS = 8, 4
BATCH_GOAL = 0.9
DEATH_GOAL_S = 1.0
_SIDE = 10_000  # of a square image of 100 megapixels
_LARGE = 6
_OWN_MB = 70.0  # what Python, NumPy and OpenCV take by themselves in each image process


class PacedEngine(ConstantEngine):
    """Takes as long for a batch, whatever is in it, and does one after the other, as a GPU does."""

    def __init__(self, batch_s: float) -> None:
        super().__init__(max_batch=BATCH, concurrency=CALLERS)
        self.batch_s = batch_s
        self.sizes: list[int] = []
        self._gpu = threading.Lock()

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        with self._gpu:
            self.sizes.append(len(images))
            time.sleep(self.batch_s)
        super().answer(images, into)


def feeding(folder: Path, count: int) -> list[Row]:
    """Return the rows of batches, deaths and memory."""
    source = write_pictures(folder / "feeding", "640x480", count)
    return [_batches(source, folder), _death(source, folder), _memory(folder)]


def _batches(source: Path, folder: Path) -> Row:
    """Measure how full batches are where the engine takes three times as long as all cores for the rest."""
    with PacedEngine(BATCH * 0.006) as engine:
        pipeline = Pipeline(engine, PipelineLimits.of(Settings(), engine))
        start = time.perf_counter()
        run_pipeline(pipeline, job_spec(source, folder / "out", annotate=Annotate.NONE), list(Listing(source)))
        elapsed_s = time.perf_counter() - start
        pipeline.close()
        share = sum(engine.sizes) / len(engine.sizes) / BATCH
        busy = len(engine.sizes) * engine.batch_s / elapsed_s
    note = f"{len(engine.sizes)} batches of at most {BATCH}; the engine was busy {busy:.0%} of the time"
    return Row("mean batch where the engine limits", share, "of full", f">= {BATCH_GOAL:g}", share >= BATCH_GOAL, note)


def _death(source: Path, folder: Path) -> Row:
    """Measure what is lost when an image process dies in the middle of a job."""
    entries = list(Listing(source)) * 4
    job = job_spec(source, folder / "out", annotate=Annotate.NONE)
    with ConstantEngine(max_batch=BATCH, concurrency=CALLERS) as engine:
        pipeline = Pipeline(engine, PipelineLimits.of(Settings(), engine))
        run_pipeline(pipeline, job, entries[:200])
        (one, one_died), (two, two_died) = (death_s(pipeline, job, entries) for _ in range(2))
        pipeline.close()
    lost_s = (one_died + two_died - one - two) / 2
    note = f"{len(entries)} images in {one:.2f} and {two:.2f} s; with a death {one_died:.2f} and {two_died:.2f}"
    return Row("an image process dies", lost_s, "s lost", f"< {DEATH_GOAL_S:g}", lost_s < DEATH_GOAL_S, note)


def death_s(pipeline: Pipeline, job: JobSpec, entries: Sequence[Entry]) -> tuple[float, float]:
    """Return the seconds that images take, and those that they take when an image process dies in the middle."""
    times = []
    for with_death in (False, True):
        start = time.perf_counter()
        asyncio.run(pipeline.run(job, entries, _killer(pipeline, len(entries), with_death)))
        times.append(time.perf_counter() - start)
    return times[0], times[1]


def _killer(pipeline: Pipeline, count: int, with_death: bool) -> Callable[[Outcome], None]:
    done = 0

    def on_done(outcome: Outcome) -> None:
        nonlocal done
        if outcome.failure is not None:
            raise RuntimeError(f"{outcome.key}: {outcome.failure}")
        done += 1
        if with_death and done == count // 2:
            os.kill(pipeline.process_pool.handles[0].process.pid, signal.SIGKILL)

    return on_done


def _memory(folder: Path) -> Row:
    """Measure the memory of image processes with images of 100 megapixels, beside what is promised."""
    source = folder / "large"
    source.mkdir()
    ramp = np.add.outer(np.arange(_SIDE, dtype=np.uint32), np.arange(_SIDE, dtype=np.uint32))
    image = np.repeat((ramp >> 6).astype(np.uint8)[..., None], 3, 2)
    first = source / "0.jpg"
    first.write_bytes(cv2.imencode(".jpg", image)[1].tobytes())
    del image, ramp
    for number in range(1, _LARGE):
        os.link(first, source / f"{number}.jpg")
    with ConstantEngine() as engine:
        limits = PipelineLimits.of(Settings(), engine)
        pipeline = Pipeline(engine, limits)
        peak = _Peak(pipeline)
        run_pipeline(pipeline, job_spec(source, folder / "large-out"), list(Listing(source)))
        peak_mb = peak.end() / 1e6
        slots_mb = pipeline.ring.layout.size_bytes / 1e6
        pipeline.close()
    large_mb = max(2 * 3 * _SIDE**2 + first.stat().st_size, limits.large_bytes) / 1e6
    promised_mb = slots_mb + limits.processes * (_OWN_MB + limits.memory_bytes / 1e6) + large_mb
    note = (
        f"{_LARGE} annotated; slots {slots_mb:.0f} MB, {limits.processes} image processes, large images {large_mb:.0f}"
    )
    goal = f"<= {promised_mb:.0f}"
    return Row("memory with images of 100 megapixels", peak_mb, "MB", goal, peak_mb <= promised_mb, note)


class _Peak:
    """Looks at the memory of a pipeline's image processes, and of its ring, until told to end."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            now = self._pipeline.process_pool.rss_bytes() + self._pipeline.ring.layout.size_bytes
            self._most = max(self._most, now)

    def end(self) -> int:
        """Return the largest sum that was seen, in bytes."""
        self._over.set()
        self._thread.join()
        return self._most
