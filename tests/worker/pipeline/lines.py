"""A pipeline with real image processes, and what has come out of it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from samples import job_spec, made
from worker.plain_engine import PlainEngine

from trtjob.errors import FailureKind
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.records import Record, from_line
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.limits import PipelineLimits

DEADLINE_S = 20.0


def job(photos: Path, output: Path, annotate: Annotate = Annotate.NONE) -> JobSpec:
    """Return a job over a folder, whose own folder is there."""
    spec = job_spec(photos, output)
    made(JobFolder.of(spec))
    return spec.model_copy(update={"options": spec.options.model_copy(update={"annotate": annotate})})


@contextmanager
def pipeline_of(
    engine: PlainEngine,
    *,
    processes: int = 1,
    slots: int = 8,
    memory_bytes: int = 64 << 20,
    max_pixels: int = 10_000,
    stall_s: float = 60.0,
) -> Iterator[Pipeline]:
    """Have a pipeline around an engine."""
    limits = PipelineLimits(
        processes, engine.max_batch, slots, memory_bytes=memory_bytes, max_pixels=max_pixels, stall_s=stall_s
    )
    pipeline = Pipeline(engine, limits)
    try:
        yield pipeline
    finally:
        pipeline.close()


@dataclass
class Results:
    """What has come out of a pipeline; callable, as `on_done` is."""

    outcomes: list[Outcome] = field(default_factory=list)

    def __call__(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    @property
    def records(self) -> list[Record]:
        return [from_line(outcome.line) for outcome in self.outcomes]

    @property
    def keys(self) -> list[str]:
        return sorted(outcome.key for outcome in self.outcomes)

    @property
    def failures(self) -> dict[str, FailureKind]:
        return {outcome.key: outcome.failure for outcome in self.outcomes if outcome.failure}


def entries(keys: list[str]) -> list[Entry]:
    return [Entry(key, 1, "etag") for key in keys]


def run(pipeline: Pipeline, spec: JobSpec, keys: list[str]) -> Results:
    """Take images through a pipeline, in an event loop of their own."""
    results = Results()
    asyncio.run(pipeline.run(spec, entries(keys), results))
    return results


def wait(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    pause = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("not in time")
