"""Files to results with the real engine in the real pipeline, beside that engine alone."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.constant import ConstantEngine
from benchmarks.feeding import DEATH_GOAL_S, death_s
from benchmarks.host import job_spec
from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import apart, side_by_side
from scripts.gpu_check.bare import in_threads
from scripts.gpu_check.decoding import bounds
from scripts.gpu_check.fed import Fed, feed
from scripts.gpu_check.host import CALLERS, FILES
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.plans import build
from scripts.gpu_check.predict import Predicted, predicted, predicted_by
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.watch import GpuWatch
from scripts.gpu_check.zoo import Variant
from trtjob.bench.parts import Rig, Sample
from trtjob.bench.synthetic_images import SIZES, write_pictures
from trtjob.config import Settings
from trtjob.converters.registry import RegisteredModel
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Engine
from trtjob.errors import TrtjobError
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.spec import Annotate, Decode, JobSpec
from trtjob.storage.listing import Listing
from trtjob.worker.engine_choice import can_decode, open_decoder
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits

LIGHT, HEAVY, RIVALLED = zoo.FED
PRECISION = "fp16"
BATCH = 32  # as the engines for a GPU have it by default
PROCESSES = (4, 8)
NAMES = 12_000  # of the pictures: a copy that is written over another waits for the disk, which no job's first run does
MEMORY, MEMORY_BYTES = Path("/dev/shm"), 16 << 30
SMALL, LARGE = SIZES
HOW = {Annotate.NONE: "JSON only", Annotate.ALL: "annotated"}
LIMITING = 0.9  # what is in use for so much of the time is what the rest waits for

# What is hoped for on a machine of so many cores and one H200.
CORES = 16
RATES = {
    (SMALL, Annotate.NONE): 3500,
    (SMALL, Annotate.ALL): 2300,
    (LARGE, Annotate.NONE): 1200,
    (LARGE, Annotate.ALL): 750,
}
HEAVY_SHARE, HEAVY_BATCH = 0.95, 0.9
OF_BOUND = 0.9  # of what the image processes do around an engine that costs nothing: enough on a slower machine
GPU_DECODED_SHARE, GPU_DECODED_RATE = 0.85, 3000  # of 640x480, as a share of the engine alone; of 1920x1080, images/s
TIMES = {Annotate.NONE: 6, Annotate.ALL: 10}  # as fast as Ultralytics


def check(options: CheckOptions) -> Iterator[Row]:
    kinds, why_not = _engines()
    yield from why_not
    if not kinds:
        return
    names = zoo.chosen((LIGHT, HEAVY), options)
    with pictures() as folder:
        most = bounds_of_host(options, folder)
        for (size, how), fed in most.items():
            figure = f"{fed.images_per_s:.0f} / - / - / {fed.cores:.1f}"
            yield Row(f"an engine that costs nothing, {size}, {HOW[how]}", figure=figure)
        for kind in kinds:
            if kind == "tensorrt":
                _build(names, options)
            yield from told(f"{LIGHT}, {kind}", light(LIGHT, kind, options, folder, most))
            if HEAVY in names:
                yield from told(f"{HEAVY}, {kind}", heavy(HEAVY, kind, options, folder))


def check_beside(options: CheckOptions) -> Iterator[Row]:
    """Measure a model beside Ultralytics' own `predict`."""
    kinds, why_not = _engines()
    yield from why_not
    if not kinds or not zoo.chosen((RIVALLED,), options):
        return
    with pictures() as folder:
        if "tensorrt" in kinds:
            _build((RIVALLED,), options)
        at = (folder / SMALL, folder / "theirs", options.seconds)
        python = options.ultralytics_python
        answer = apart(predicted_by, python, options.ultralytics_path, *at) if python else apart(predicted, *at)
        theirs = answer.value
        yield from theirs.rows() if theirs else [answer.row(f"{RIVALLED}, Ultralytics")]
        for kind in kinds:
            yield from told(f"{RIVALLED}, {kind}", beside(RIVALLED, kind, theirs, options, folder))


def _engines() -> tuple[list[EngineKind], list[Row]]:
    """Return the engines that can be used here, and why others cannot."""
    kinds: list[EngineKind] = []
    rows = []
    for kind in need.ON_GPU:
        try:
            need.engine(kind)
            kinds.append(kind)
        except NotRun as err:
            rows.append(Row(kind, State.NOT_RUN, note=str(err)))
    return kinds, rows


def _build(names: Sequence[str], options: CheckOptions) -> None:
    """Build the plans that the part `plans` has not built; what becomes of it is seen when they are opened."""
    zoo.images_of("", options)  # now: side by side, two would write them
    for _ in side_by_side(build, [(Variant(name, PRECISION), options, {}) for name in names], options.builders):
        pass


def told(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    """Yield rows, and why there are no more."""
    try:
        yield from rows
    except NotRun as err:
        yield Row(name, State.NOT_RUN, note=str(err))
    except TrtjobError as err:
        yield Row(name, State.FAILED, note=str(err))


def roomy_memory() -> Path | None:
    """Return a folder in memory, where there is one with room: a disk that writes is another thing to be measured."""
    return MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES else None


@contextmanager
def pictures() -> Iterator[Path]:
    """Yield a folder with a folder of pictures of each size, and room for results."""
    with TemporaryDirectory(prefix="trtjob-gpu-check-", dir=roomy_memory()) as temporary:
        for size in SIZES:
            folder = Path(temporary) / size
            write_pictures(folder, size, FILES)
            paths = sorted(folder.iterdir())
            for number in range(FILES, NAMES):
                (folder / f"{number:06d}.jpg").hardlink_to(paths[number % FILES])
        yield Path(temporary)


def bounds_of_host(options: CheckOptions, folder: Path) -> dict[tuple[str, Annotate], Fed]:
    """Measure what the image processes can do at the most."""
    with ConstantEngine(max_batch=BATCH, concurrency=CALLERS) as engine:
        pipeline = Pipeline(engine, PipelineLimits.of(Settings(), engine))
        try:
            return {
                (size, how): feed(
                    pipeline, job_spec(folder / size, folder / f"out-{number}", annotate=how), options.seconds
                )
                for number, (size, how) in enumerate(RATES)
            }
        finally:
            pipeline.close()


def light(
    name: str, kind: EngineKind, options: CheckOptions, folder: Path, most: dict[tuple[str, Annotate], Fed]
) -> Iterator[Row]:
    """Measure a model that is faster than the host, by pictures and by image processes, and a death among them."""
    cores = len(os.sched_getaffinity(0))
    with _stand(name, kind, options, folder) as stand:
        with stand.pipeline() as pipeline:
            found = {}
            for (size, how), least in RATES.items():
                found[size, how] = now = stand.measured(pipeline, size, how)
                rate, of_bound = now.fed.images_per_s, now.fed.images_per_s / most[size, how].images_per_s
                goals = {f"{least:,} images/s or {OF_BOUND:g} of the bound": rate >= least or of_bound >= OF_BOUND}
                yield stand.row(f"{size}, {HOW[how]}", now, goals, [f"{of_bound:.2f} of the bound"])
            yield stand.death(pipeline, found[SMALL, Annotate.NONE].fed.images_per_s)
        with stand.pipeline(decodes=True) as pipeline:
            cases = ((SMALL, Annotate.NONE), (SMALL, Annotate.ALL), (LARGE, Annotate.NONE), (LARGE, Annotate.ALL))
            yield from stand.decoded_on_gpu(pipeline, cases)
            if pipeline.batches.decoder is not None:
                yield stand.bound_of_decoding(pipeline)
        for processes in PROCESSES:
            if processes < cores:
                with stand.pipeline(processes) as pipeline:
                    few = stand.measured(pipeline, SMALL, Annotate.NONE)
                yield stand.row(f"{SMALL}, {HOW[Annotate.NONE]}, {processes} image processes", few, {})


def heavy(name: str, kind: EngineKind, options: CheckOptions, folder: Path) -> Iterator[Row]:
    """Measure a model that is slower than the host: the pipeline must keep it busy, with full batches."""
    with _stand(name, kind, options, folder) as stand, stand.pipeline() as pipeline:
        found = stand.measured(pipeline, SMALL, Annotate.ALL)
        goals = {
            f"{HEAVY_SHARE:g} of the engine alone": found.of_engine >= HEAVY_SHARE,
            f"batches {HEAVY_BATCH:g} full": found.full >= HEAVY_BATCH,
        }
        yield stand.row(f"{SMALL}, {HOW[Annotate.ALL]}", found, goals)


def beside(name: str, kind: EngineKind, theirs: Predicted | None, options: CheckOptions, folder: Path) -> Iterator[Row]:
    """Measure a model beside Ultralytics' own way with it, where that could be measured."""
    with _stand(name, kind, options, folder) as stand:
        decodes: tuple[Decode, ...] = ("cpu", "gpu")
        for decode in decodes:
            with stand.pipeline(decodes=decode == "gpu") as pipeline:
                for how in TIMES:
                    yield _row_beside(stand, pipeline, how, decode, theirs)


def _row_beside(stand: "_Stand", pipeline: Pipeline, how: Annotate, decode: Decode, theirs: Predicted | None) -> Row:
    title = f"{SMALL}, {HOW[how]}" + (", --decode gpu" if decode == "gpu" else "")
    try:
        found = stand.measured(pipeline, SMALL, how, decode)
    except TrtjobError as err:
        return Row(stand.titled(title), State.NOT_RUN, note=str(err))
    if theirs is None:
        return stand.row(title, found, {})
    times = found.fed.images_per_s / theirs.images_per_s[how is Annotate.ALL]
    # Where the CPU decodes, its cores are the limit.
    goals = {f"{TIMES[how]} times Ultralytics": times >= TIMES[how]} if decode == "gpu" else {}
    return stand.row(title, found, goals, [f"{times:.1f} times Ultralytics"])


@dataclass(frozen=True, slots=True)
class _Found:
    """What a pipeline did. alone: images per second of its engine; busy: the GPU, in words."""

    fed: Fed
    alone: float
    limits: PipelineLimits
    busy: str

    @property
    def of_engine(self) -> float:
        return self.fed.images_per_s / self.alone

    @property
    def full(self) -> float:
        """The mean batch as a share of the largest."""
        return self.fed.images / max(1, self.fed.calls) / self.limits.batch

    @property
    def limit(self) -> str:
        """Return what was in use nearly all the time; '' for nothing."""
        fed, cores = self.fed, len(os.sched_getaffinity(0))
        if self.of_engine >= LIMITING:
            return "the engine"
        if fed.other_cores >= LIMITING * self.limits.processes:
            return "the image processes"
        if fed.cores >= LIMITING * cores:
            return "all cores"
        if fed.decoding >= LIMITING:
            return "the decoder"
        return "the engine process's core" if fed.own_cores >= LIMITING else ""

    def row(self, name: str, state: State, notes: list[str]) -> Row:
        fed = self.fed
        figure = f"{fed.images_per_s:.0f} / {self.of_engine:.2f} / {self.full:.2f} / {fed.cores:.1f}"
        told = [
            f"engine alone {self.alone:.0f}",
            f"{fed.own_cores:.1f} cores by the engine process",
            f"decoder at work {fed.decoding:.0%}" if fed.decoding else "",
            f"GPU busy {self.busy}" if self.busy else "",
            f"limit: {self.limit}" if self.limit else "",
            *notes,
        ]
        return Row(name, state, figure, "; ".join(filter(None, told)))


class _Stand:
    """An engine, and what is measured of it and of pipelines around it."""

    def __init__(
        self, model: RegisteredModel, engine: Engine, kind: EngineKind, options: CheckOptions, folder: Path
    ) -> None:
        self._kind, self._options, self._folder = kind, options, folder
        self._rig = Rig(model, engine, need.settings(options, kind), folder / "out", lambda: False)
        self._calls: list[None] = []  # by any thread
        self._alone = 0.0
        self._jobs = 0
        self._title = f"{model.name.partition('@')[0]}, {kind}"

    @contextmanager
    def pipeline(self, processes: int = 0, *, decodes: bool = False) -> Iterator[Pipeline]:
        """Yield a pipeline around the engine. processes: 0: one for each core."""
        settings = need.settings(self._options, self._kind, image_processes=processes)
        engine = self._rig.engine
        limits = PipelineLimits.of(settings, engine, decodes=decodes and can_decode(engine, self._gpu))
        pipeline = Pipeline(
            engine,
            limits,
            on_batch=lambda: self._calls.append(None),
            open_decoder=partial(open_decoder, engine, self._gpu, limits.batch, limits.batches),
        )
        try:
            yield pipeline
        finally:
            pipeline.close()

    @property
    def _gpu(self) -> int | None:
        return None if self._kind == "cpu" else 0

    def decoded_on_gpu(self, pipeline: Pipeline, cases: Sequence[tuple[str, Annotate]]) -> Iterator[Row]:
        """Measure JPEG files that the GPU decodes, and what it costs to draw on them too."""
        try:
            for size, how in cases:
                found = self.measured(pipeline, size, how, "gpu")
                if (size, how) == (SMALL, Annotate.NONE):
                    goals = {f"{GPU_DECODED_SHARE:g} of the engine alone": found.of_engine >= GPU_DECODED_SHARE}
                else:
                    least = GPU_DECODED_RATE if how is Annotate.NONE else RATES[size, how]
                    goals = {f"{least:,} images/s": found.fed.images_per_s >= least}
                by = pipeline.batches.decoder.title if pipeline.batches.decoder else ""
                yield self.row(f"{size}, {HOW[how]}, --decode gpu", found, goals, [by])
        except TrtjobError as err:
            yield Row(f"{self._title}, --decode gpu", State.NOT_RUN, note=str(err))

    def bound_of_decoding(self, pipeline: Pipeline) -> Row:
        """Measure what the decoder and the engine can do together, with nothing between them."""
        decoder, both = bounds(pipeline, self._folder / SMALL, self._options.seconds)
        note = f"no pipeline around them; engine alone {self._alone:.0f}, decoder alone {decoder:.0f}"
        name = self.titled(f"{SMALL}, the GPU's decoder and the engine")
        return Row(name, figure=f"{both:.0f} / {both / self._alone:.2f} / - / -", note=note)

    def measured(self, pipeline: Pipeline, size: str, how: Annotate, decode: Decode = "cpu") -> _Found:
        seconds = self._options.seconds
        with GpuWatch() as watch:
            fed = feed(pipeline, self._job(size, how, decode), seconds, lambda: len(self._calls))
        self._alone = self._alone or alone(pipeline, seconds)
        return _Found(fed, self._alone, pipeline.limits, watch.gpu(seconds))

    def death(self, pipeline: Pipeline, images_per_s: float) -> Row:
        """Measure what is lost when an image process dies in the middle."""
        count = max(2, int(images_per_s * self._options.seconds))
        entries = list(islice(cycle(list(Listing(self._folder / SMALL))), count))
        usual_s, with_death_s = death_s(pipeline, self._job(SMALL, Annotate.NONE), entries)
        lost_s = with_death_s - usual_s
        state, goal = verdict({f"less than {DEATH_GOAL_S:g} s": lost_s < DEATH_GOAL_S}, self._kind)
        note = f"{count} images in {usual_s:.2f} s, {with_death_s:.2f} with a death; {goal}"
        return Row(f"{self._title}, {SMALL}, an image process dies", state, f"{lost_s:.2f} s lost", note)

    def row(self, what: str, found: _Found, goals: dict[str, bool], more: list[str] | None = None) -> Row:
        state, goal = verdict(goals, self._kind)
        return found.row(self.titled(what), state, [*(more or []), goal])

    def titled(self, what: str) -> str:
        """Return a row's name."""
        return f"{self._title}, {what}"

    def _job(self, size: str, how: Annotate, decode: Decode = "cpu") -> JobSpec:
        job = self._rig.job(Sample(size, self._folder / size, (), 0), how)
        self._jobs += 1
        job = job.model_copy(update={"output": f"{job.output}-{self._jobs}"})
        JobFolder.of(job).storage.make_root()
        return job.model_copy(update={"options": job.options.model_copy(update={"decode": decode})})


@contextmanager
def _stand(name: str, kind: EngineKind, options: CheckOptions, folder: Path) -> Iterator[_Stand]:
    """Open an engine. Raises NotRun, TrtjobError."""
    model = zoo.converted(name, PRECISION, options)
    batch = {} if kind == "cpu" else {"batch": BATCH}
    with need.opened(model, options, kind, **batch) as engine:
        yield _Stand(model, engine, kind, options, folder)


def alone(pipeline: Pipeline, seconds: float) -> float:
    """Return images per second of a pipeline's engine while nobody feeds it: full batches, out of the ring."""
    engine, ring, batch = pipeline.engine, pipeline.ring, pipeline.limits.batch

    def call(caller: int) -> None:
        slots = slice(caller * batch, (caller + 1) * batch)
        engine.answer(ring.tensors[slots], ring.answers[slots])

    callers = range(engine.concurrency)
    return in_threads([lambda caller=caller: call(caller) for caller in callers], batch, seconds)  # type: ignore[misc]


def verdict(goals: dict[str, bool], kind: EngineKind) -> tuple[State, str]:
    """Return whether goals are met, and what they are; on another machine than they are for they do not count."""
    if not goals:
        return State.OK, ""
    text = f"goal: {', '.join(goals)}"
    if kind == "cpu" or len(os.sched_getaffinity(0)) < CORES:
        return State.OK, f"{text}, with {CORES} cores and a GPU"
    return State.OK if all(goals.values()) else State.FAILED, text
