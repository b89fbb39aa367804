"""What `trtjob bench` measures, a round at a time: the engine alone, the stages one by one, the pipeline as it is."""

import asyncio
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol

import numpy as np

from trtjob.bench.cores import Moment, Span
from trtjob.config import Settings
from trtjob.converters.registry import RegisteredModel
from trtjob.cpus import usable_cpus
from trtjob.engines.protocol import Engine
from trtjob.errors import TrtjobError
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.records import from_line, to_line
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, Source
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.limits import PipelineLimits
from trtjob.worker.pipeline.stages import Stages
from trtjob.worker.pipeline.stopwatch import Stopwatch

# The phases as a person thinks of them, each with the stages of the pipeline that it is made of.
PHASES = {
    "prepare": ("read", "decode", "resize"),
    "infer": ("infer",),
    "result": ("nms", "record"),
    "draw": ("draw",),
    "write": ("thumbnail", "encode", "write"),
}

_FEWEST_CALLS = 2  # of each thread, in a round of the engine alone
_FEWEST_BATCHES = 2  # in a round of the pipeline, however slow the engine is


class BenchStopped(Exception):
    """The user asked to stop."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Images to measure with. listed: how many there are where they were taken from; unusable: left out of entries."""

    name: str
    root: Path
    entries: tuple[Entry, ...]
    listed: int
    unusable: int = 0


@dataclass(frozen=True, slots=True)
class EngineRate:
    """The engine alone, called from all its threads. call_ms: of one call; cpu_ms: CPU time of an image; ran_s: how
    long it was measured."""

    batch: int
    images_per_s: float
    call_ms: float
    cpu_ms: float
    ran_s: float


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds of an image by stage, one after another in one thread; infer: a batch's share.

    host_cpu_ms: CPU time of everything but the engine.
    """

    stages_ms: dict[str, float]
    host_cpu_ms: float
    ran_s: float

    @property
    def phases_ms(self) -> dict[str, float]:
        return {phase: sum(self.stages_ms.get(stage, 0.0) for stage in stages) for phase, stages in PHASES.items()}


@dataclass(frozen=True, slots=True)
class PipelineRate:
    """Files to results. of_engine: the rate as a share of the engine's alone; cores_busy: share of all cores' time that
    was used, cores_own: by this process."""

    images_per_s: float
    of_engine: float
    cores_busy: float
    cores_own: float
    ran_s: float


class Rig:
    """What all parts share: one engine, as many threads as a worker process has, and a folder for annotated copies."""

    def __init__(
        self,
        model: RegisteredModel,
        engine: Engine,
        settings: Settings,
        output: Path,
        is_stopping: Callable[[], bool],
    ) -> None:
        self.model = model
        self.engine = engine
        self.settings = settings
        self.output = LocalStorage(output)
        self.cores = usable_cpus()
        self.limits = PipelineLimits.of(settings, engine)
        self._is_stopping = is_stopping

    def check(self) -> None:
        """Raise BenchStopped where the user asked to stop."""
        if self._is_stopping():
            raise BenchStopped

    def job(self, sample: Sample, annotate: Annotate = Annotate.ALL) -> JobSpec:
        """Return a job over a sample, with what the model says of its thresholds."""
        spec = self.model.spec
        job = JobSpec(
            job_id="bench",
            source=Source(kind="folder", root=str(sample.root)),
            model=ModelRef(
                name=self.model.name,
                sha256=self.model.sha256,
                path=str(self.model.path),
                task=spec.task.value,
                labels=spec.labels,
            ),
            options=Options(
                conf=spec.conf, min_score=spec.min_score, iou=spec.iou, annotate=annotate, resize=spec.resize.value
            ),
            output=str(self.output.root),
            created_at=time.time(),
            versions={},
        )
        JobFolder.of(job).storage.make_root()
        return job

    def stages(self, sample: Sample, watch: Stopwatch | None = None) -> Stages:
        """Return the stages of such a job."""
        job, limits = self.job(sample), self.limits
        return Stages(
            job.options,
            self.model.spec,
            open_source(job.source),
            self.output,
            max_pixels=limits.max_pixels,
            jpeg_quality=limits.jpeg_quality,
            watch=watch,
        )


class Part(Protocol):
    """One thing that is measured, a round at a time."""

    def run(self, seconds: float) -> None: ...

    def forget(self) -> None:
        """Drop what was measured so far: it was the warm-up."""
        ...


@dataclass(frozen=True, slots=True)
class _EngineRound:
    rate: float
    call_ms: float
    cpu_ms: float
    ran_s: float


class EnginePart:
    """The engine, called from as many threads as it likes, with nothing around it."""

    def __init__(self, rig: Rig, batch: int) -> None:
        self.rig = rig
        self.batch = batch
        self.rounds: list[_EngineRound] = []

    def forget(self) -> None:
        self.rounds.clear()

    def run(self, seconds: float) -> None:
        spec, concurrency = self.rig.engine.spec, self.rig.engine.concurrency
        images = np.random.default_rng(5).integers(0, 256, (self.batch, *spec.input_hw, spec.channels), np.uint8)
        answers = np.empty((concurrency, self.batch, *self.rig.engine.answer_shape), np.float32)
        begin = Moment.now()
        ends: list[float] = []

        def call_until_end(caller: int) -> float:
            """Return the seconds of a call."""
            calls, now = 0, begin.wall_s
            while calls < _FEWEST_CALLS or now < begin.wall_s + seconds:
                self.rig.check()
                self.rig.engine.answer(list(images), list(answers[caller]))
                calls, now = calls + 1, time.perf_counter()
                ends.append(now)
            return (now - begin.wall_s) / calls

        with ThreadPoolExecutor(concurrency, "trtjob-bench") as pool:
            call_s = list(pool.map(call_until_end, range(concurrency)))
        span = Span.between(begin, Moment.now())
        ends.sort()
        self.rounds.append(
            _EngineRound(
                # From where every caller has a call behind it: an engine that serves them in turn is full only then.
                rate=(len(ends) - concurrency) * self.batch / (ends[-1] - ends[concurrency - 1]),
                call_ms=statistics.mean(call_s) * 1000,
                cpu_ms=span.process_s / len(ends) / self.batch * 1000,
                ran_s=span.elapsed_s,
            )
        )

    def report(self) -> EngineRate:
        rounds = self.rounds
        return EngineRate(
            self.batch,
            images_per_s=statistics.median(turn.rate for turn in rounds),
            call_ms=statistics.median(turn.call_ms for turn in rounds),
            cpu_ms=statistics.median(turn.cpu_ms for turn in rounds),
            ran_s=sum(turn.ran_s for turn in rounds),
        )


class StagesPart:
    """Every stage, one after another in this thread: nothing waits for a core that another stage has."""

    def __init__(self, rig: Rig, sample: Sample) -> None:
        self.rig = rig
        self.sample = sample
        self.entries = cycle(sample.entries)
        self.rounds: list[dict[str, float]] = []
        self.cpu_ms: list[float] = []
        self.ran_s = 0.0
        batch, spec, engine = rig.limits.batch, rig.model.spec, rig.engine
        self._tensors = [np.empty((*spec.input_hw, spec.channels), np.uint8) for _ in range(batch)]
        self._answers = [np.empty(engine.answer_shape, np.float32) for _ in range(batch)]

    def forget(self) -> None:
        self.rounds.clear()
        self.cpu_ms.clear()
        self.ran_s = 0.0

    def run(self, seconds: float) -> None:
        watch = Stopwatch()
        stages = self.rig.stages(self.sample, watch)
        started, images, cpu_s = time.perf_counter(), 0, 0.0
        while images == 0 or time.perf_counter() < started + seconds:
            cpu_s += self._batch(stages, list(islice(self.entries, self.rig.limits.batch)))
            images += self.rig.limits.batch
        self.ran_s += time.perf_counter() - started
        self.rounds.append({stage: busy_s / images * 1000 for stage, busy_s in watch.busy_s().items()})
        self.cpu_ms.append(cpu_s / images * 1000)

    def _batch(self, stages: Stages, entries: list[Entry]) -> float:
        """Take a batch through the stages. Returns the CPU seconds of all but the engine."""
        self.rig.check()
        start = time.thread_time()
        items = [
            stages.prepare(entry, stages.read(entry), tensor)
            for entry, tensor in zip(entries, self._tensors, strict=False)
        ]
        prepared = time.thread_time()
        with stages.watch.stage("infer"):
            self.rig.engine.answer(self._tensors[: len(items)], self._answers[: len(items)])
        inferred = time.thread_time()
        for item, answer in zip(items, self._answers, strict=False):
            record = stages.finish(item, answer)
            with stages.watch.stage("record"):
                to_line(record)
        return time.thread_time() - inferred + prepared - start

    def report(self) -> StageTimes:
        names = [stage for stages in PHASES.values() for stage in stages]
        stages_ms = {name: statistics.median(turn.get(name, 0.0) for turn in self.rounds) for name in names}
        return StageTimes(stages_ms, statistics.median(self.cpu_ms), self.ran_s)


@dataclass(frozen=True, slots=True)
class _PipelineRound:
    rate: float
    span: Span


class PipelinePart:
    """The worker's pipeline as it is, from files to records and annotated copies."""

    def __init__(self, rig: Rig, sample: Sample, annotate: Annotate, pipeline: Pipeline) -> None:
        self.rig = rig
        self.pipeline = pipeline
        self.job = rig.job(sample, annotate)
        self.entries = cycle(sample.entries)
        self.rounds: list[_PipelineRound] = []
        self.ran_s = 0.0
        self._expected_rate = 0.0
        # While the pipeline fills and empties, not all of it works: so many images at either end do not count.
        self._margin = rig.limits.slots

    def forget(self) -> None:
        self._expected_rate = self.rounds[-1].rate  # says how many images a round is
        self.rounds.clear()
        self.ran_s = 0.0

    def run(self, seconds: float) -> None:
        counted = max(_FEWEST_BATCHES * self.rig.limits.batch, round(self._expected_rate * seconds))
        ends = (self._margin, self._margin + counted)
        moments: list[Moment] = []
        done = 0

        def on_done(outcome: Outcome) -> None:
            nonlocal done
            self.rig.check()
            if outcome.failure is not None:
                error = from_line(outcome.line).error
                raise TrtjobError(f"{outcome.key}: {error.message if error else outcome.failure}")
            done += 1
            if done in ends:
                moments.append(Moment.now(self.pipeline.process_pool.cpu_s()))

        started = time.perf_counter()
        asyncio.run(self.pipeline.run(self.job, islice(self.entries, counted + 2 * self._margin), on_done))
        self.ran_s += time.perf_counter() - started
        span = Span.between(*moments)
        self.rounds.append(_PipelineRound(counted / span.elapsed_s, span))

    def report(self, alone: EnginePart) -> PipelineRate:
        pairs = zip(self.rounds, alone.rounds, strict=True)
        return PipelineRate(
            images_per_s=statistics.median(turn.rate for turn in self.rounds),
            of_engine=statistics.median(turn.rate / bare.rate for turn, bare in pairs),
            cores_busy=statistics.median(turn.span.busy for turn in self.rounds),
            cores_own=statistics.median(turn.span.own for turn in self.rounds),
            ran_s=self.ran_s,
        )
