"""How fast a model is on this machine: the engine alone, each stage of the pipeline, and files to results.

All that is compared is measured in turn, round by round, after a warm-up that does not count; the medians of the
rounds are what is reported. The queue is left out, and the files come from the system's cache.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np

from trtjob.bench.bottleneck import Load, describe_bottleneck
from trtjob.bench.parts import (
    BenchStopped,
    EnginePart,
    EngineRate,
    Part,
    PipelinePart,
    PipelineRate,
    Rig,
    Sample,
    StagesPart,
    StageTimes,
)
from trtjob.bench.synthetic_images import SIZES, write_pictures
from trtjob.config import Settings
from trtjob.converters.registry import RegisteredModel
from trtjob.engines.choice import choose
from trtjob.engines.protocol import Engine
from trtjob.errors import ConfigError, ImageError
from trtjob.jobs.spec import Annotate
from trtjob.storage.listing import IMAGE_SUFFIXES, Listing
from trtjob.worker.engine_choice import open_engine
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits

ROUNDS = 5

_WARM_UP_S = 0.3  # of each part
_MADE_UP = 12  # pictures of each size
_MOST_FILES = 64  # of a folder are used: their annotated copies lie in the temporary folder
_MOST_LISTED = 10_000

# Called with what is done now, how many of its steps are done, and how many it has.
Progress = Callable[[str, int, int], None]
IsStopping = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to measure. images: a folder, None for made-up ones; batches: of the engine alone, beside the pipeline's;
    seconds: for each part, though a few images are the least."""

    images: Path | None
    batches: tuple[int, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class SampleReport:
    """What was measured with one sample. limit: a sentence on what limits the annotated rate."""

    sample: Sample
    times: StageTimes
    annotated: PipelineRate
    json_only: PipelineRate
    limit: str


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Everything that was measured. callers: threads in the engine at once; elapsed_s: with the warm-up."""

    rounds: ClassVar[int] = ROUNDS

    model: RegisteredModel
    engine: str
    device: str
    max_batch: int
    callers: int
    cores: int
    limits: PipelineLimits
    engine_alone: tuple[EngineRate, ...]
    samples: tuple[SampleReport, ...]
    elapsed_s: float

    @property
    def others_busy(self) -> float:
        """Share of the cores' time that other programs had."""
        rates = [rate for measured in self.samples for rate in (measured.annotated, measured.json_only)]
        return statistics.median(rate.cores_busy - rate.cores_own for rate in rates)


def bench(
    model: RegisteredModel, settings: Settings, options: BenchOptions, *, on_progress: Progress, is_stopping: IsStopping
) -> BenchReport:
    """Open the engine that the settings ask for and measure it; what is written is removed.

    Raises ConfigError where no image can be used, EngineError, MissingDependencyError; BenchStopped.
    """
    with tempfile.TemporaryDirectory(prefix="trtjob-bench-") as temporary:
        folder = Path(temporary)
        if options.images is None:
            on_progress("making up images", 0, 0)
            samples = made_up_samples(folder / "images")
        else:
            samples = (sample_of(options.images),)
        with _opened(model, settings, on_progress=on_progress, is_stopping=is_stopping) as engine:
            rig = Rig(model, engine, settings, folder / "annotated", is_stopping)
            return measure(rig, samples, options, on_progress)


def _opened(model: RegisteredModel, settings: Settings, *, on_progress: Progress, is_stopping: IsStopping) -> Engine:
    """Return the engine that a worker process would take, on the first of the GPUs where it takes one.

    Raises ConfigError, EngineError, MissingDependencyError; BenchStopped while a plan is built.
    """
    from trtjob.engines.tensorrt.builder import BuildCancelled

    def on_build(phase: str, done: int, total: int) -> bool:
        on_progress(phase, done, total)
        return not is_stopping()

    on_progress("opening the engine", 0, 0)
    choice = choose(settings.engine, settings.gpus)
    gpu = choice.gpus[0].number if choice.gpus else None
    try:
        return open_engine(settings, model.path, model.sha256, choice.engine, gpu, on_build=on_build)
    except BuildCancelled as err:
        raise BenchStopped from err


def made_up_samples(folder: Path) -> tuple[Sample, ...]:
    """Write pictures of two usual sizes below a folder, the same every time."""
    roots = {name: write_pictures(folder / name, name, _MADE_UP) for name in SIZES}
    return tuple(Sample(name, root, tuple(Listing(root)), _MADE_UP) for name, root in roots.items())


def sample_of(folder: Path) -> Sample:
    """Return images from all over a folder. Raises ConfigError where there is none."""
    if not folder.is_dir():
        raise ConfigError(f"--images '{folder}': no such folder")
    root = folder.resolve()
    entries = list(islice(Listing(root), _MOST_LISTED))
    if not entries:
        suffixes = " ".join(sorted(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES))
        raise ConfigError(f"--images '{folder}': no image in it or below it. Images end in: {suffixes}")
    count = min(len(entries), _MOST_FILES)
    chosen = tuple(entries[index * len(entries) // count] for index in range(count))
    return Sample(root.name or str(root), root, chosen, len(entries))


def measure(rig: Rig, samples: Sequence[Sample], options: BenchOptions, on_progress: Progress) -> BenchReport:
    """Measure an engine. Raises ConfigError where no image can be used, EngineError; BenchStopped."""
    started = time.perf_counter()
    samples = [_usable(rig, sample, on_progress) for sample in samples]
    engine = rig.engine
    with _single_threaded_opencv(), _pipeline(rig) as pipeline:
        alone = {batch: EnginePart(rig, batch) for batch in _batches(rig, options.batches)}
        parts = [_SampleParts.of(rig, sample, pipeline) for sample in samples]
        _run_rounds([*alone.values(), *(part for group in parts for part in group.all())], options.seconds, on_progress)
    compared = alone[rig.limits.batch]
    return BenchReport(
        model=rig.model,
        engine=engine.name,
        device=engine.device,
        max_batch=engine.max_batch,
        callers=engine.concurrency,
        cores=rig.cores,
        limits=rig.limits,
        engine_alone=tuple(part.report() for part in alone.values()),
        samples=tuple(group.report(compared) for group in parts),
        elapsed_s=time.perf_counter() - started,
    )


def _usable(rig: Rig, sample: Sample, on_progress: Progress) -> Sample:
    """Return the sample without the images that cannot be read or decoded, which would pass for quick ones."""
    stages = rig.stages(sample)
    tensor = np.empty((*rig.model.spec.input_hw, rig.model.spec.channels), np.uint8)
    usable, reason = [], ""
    for done, entry in enumerate(sample.entries):
        rig.check()
        on_progress("looking at the images", done, len(sample.entries))
        try:
            stages.prepare(entry, stages.read(entry), tensor)
        except ImageError as err:
            reason = reason or f"{entry.key}: {err}"
        else:
            usable.append(entry)
    if not usable:
        raise ConfigError(f"--images '{sample.root}': none of {len(sample.entries)} images can be used. {reason}")
    return replace(sample, entries=tuple(usable), unusable=len(sample.entries) - len(usable))


def _batches(rig: Rig, wanted: Sequence[int]) -> list[int]:
    """Return the batch sizes for the engine alone; the pipeline's is always one of them, to be compared with."""
    return sorted({*wanted, rig.limits.batch})


def _run_rounds(parts: Sequence[Part], seconds: float, on_progress: Progress) -> None:
    round_s = seconds / ROUNDS
    for done, part in enumerate(parts):
        on_progress("warming up", done, len(parts))
        part.run(min(round_s, _WARM_UP_S))
        part.forget()
    for turn in range(ROUNDS):
        for done, part in enumerate(parts):
            on_progress("measuring", turn * len(parts) + done, ROUNDS * len(parts))
            part.run(round_s)


@dataclass(frozen=True, slots=True)
class _SampleParts:
    """What is measured with one sample."""

    times: StagesPart
    annotated: PipelinePart
    json_only: PipelinePart

    @classmethod
    def of(cls, rig: Rig, sample: Sample, pipeline: Pipeline) -> "_SampleParts":
        return cls(
            StagesPart(rig, sample),
            PipelinePart(rig, sample, Annotate.ALL, pipeline),
            PipelinePart(rig, sample, Annotate.NONE, pipeline),
        )

    def all(self) -> tuple[Part, ...]:
        return self.times, self.annotated, self.json_only

    def report(self, alone: EnginePart) -> SampleReport:
        times, annotated, engine = self.times.report(), self.annotated.report(alone), alone.report()
        load = Load(
            images_per_s=annotated.images_per_s,
            of_engine=annotated.of_engine,
            host_cpu_ms=times.host_cpu_ms,
            engine_cpu_ms=engine.cpu_ms,
            cores=alone.rig.cores,
            cores_busy=annotated.cores_busy,
            stages_ms=times.stages_ms,
        )
        return SampleReport(
            self.times.sample, times, annotated, self.json_only.report(alone), describe_bottleneck(load)
        )


@contextmanager
def _pipeline(rig: Rig) -> Iterator[Pipeline]:
    pipeline = Pipeline(rig.engine, rig.limits)
    try:
        yield pipeline
    finally:
        pipeline.close()


@contextmanager
def _single_threaded_opencv() -> Iterator[None]:
    """As in a worker process: the pipeline has threads of its own."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
