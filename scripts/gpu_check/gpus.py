"""Several GPUs of one machine: what the second adds, what the cores allow, and what becomes of the work of one that
ends. All by `trtjob worker`, as a user starts it."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from benchmarks.node import Node
from scripts.gpu_check import need, zoo
from scripts.gpu_check.daemon import LOOK_S, Beat, Daemon, Speed, daemon
from scripts.gpu_check.feed import BATCH, HOW, LARGE, LIGHT, LIMITING, PRECISION, SMALL
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from trtjob.bench.synthetic_images import write_pictures
from trtjob.config import Settings
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.cpus import by_neighbourhood, near_cpus, usable_cpus
from trtjob.engines.choice import EngineKind
from trtjob.engines.cuda.device import gpus
from trtjob.engines.cuda.survey import survey
from trtjob.errors import TrtjobError
from trtjob.imaging.gpu.decoder import installed_package
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.jobs.states import TERMINAL
from trtjob.queue.connection import connect
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import job_key
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.core_shares import core_shares

HEAVIES = ("yolov4-608", "yolov3-608")  # the first that is there
Decode = Literal["cpu", "gpu"]
# By whether the model is heavy.
CASES = {
    False: [(size, how) for size in (SMALL, LARGE) for how in (Annotate.NONE, Annotate.ALL)],
    True: [(SMALL, Annotate.NONE), (LARGE, Annotate.ALL)],
}
SECOND_ADDS = 0.95
AS_BEFORE = 0.9  # of its speed: a process that was started again is at work as before
DISTINCT = 12
FEW, SHARD = "few", 64  # the pictures, and the images in a unit of work, of a job that comes to its end
PATIENCE_S = 40.0
LEFT_S = 10.0  # a worker hears within a quarter of its lease that a job is cancelled
BEATS_S = 4.0  # a job's progress is told once a second
PINNED = [(SMALL, Annotate.NONE), (LARGE, Annotate.ALL)]


@dataclass(frozen=True, slots=True)
class Load:
    """What is fed. names: how many names there are of the pictures of each size; few: of those whose results are
    compared."""

    names: dict[str, int] = field(default_factory=lambda: {SMALL: 60_000, LARGE: 30_000})
    few: int = 3_000


@dataclass(frozen=True, slots=True)
class Case:
    """A job without end. is_heavy: its model is slower than what the cores can feed."""

    model: RegisteredModel
    size: str
    how: Annotate
    decode: Decode = "cpu"
    is_heavy: bool = False

    @property
    def title(self) -> str:
        where = ", decoded on the GPU" if self.decode == "gpu" else ""
        return f"{self.model.name}, {self.size}, {HOW[self.how]}{where}"


def check(options: CheckOptions) -> Iterator[Row]:
    need.gpu()
    if len(gpus()) < 2:
        raise NotRun("this machine has one GPU")
    yield from places()
    yield from rows(LIGHT, HEAVIES, options)


def places() -> Iterator[Row]:
    """Say where the GPUs are, and which cores their processes get."""
    found = survey().gpus
    near = [near_cpus(gpu.pci_bus_id) for gpu in found]
    shares = core_shares(near, by_neighbourhood(os.sched_getaffinity(0)))
    for gpu, node, share in zip(found, near, shares, strict=True):
        note = f"{gpu.name}, {gpu.visible_as}; near it are {_ranges(node) or 'none that the kernel names'}"
        yield Row(f"GPU {gpu.index} at {gpu.pci_bus_id}", figure=f"cores {_ranges(share)}", note=note)


def _ranges(cores: Set[int]) -> str:
    """Return cores as the kernel lists them: 0-3,8."""
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def rows(
    light: str,
    heavies: Sequence[str],
    options: CheckOptions,
    *,
    kind: EngineKind | None = None,
    load: Load | None = None,
) -> Iterator[Row]:
    """Measure a light and a heavy model. kind: whatever there is for the model; the CPU stands in for GPUs where there
    are none, each worker process for one."""
    with _stand(options, load or Load()) as stand:
        models: list[tuple[EngineKind, RegisteredModel, bool]] = []
        for names, is_heavy in ((light,), False), (heavies, True):
            try:
                model = _first(names, options)
                models.append((kind or _kind(model, options), model, is_heavy))
            except (NotRun, TrtjobError) as err:
                yield Row(" or ".join(names), State.NOT_RUN, note=str(err))
        for each in dict.fromkeys(found for found, *_ in models):
            ours = {is_heavy: model for found, model, is_heavy in models if found == each}
            yield from _Checks(stand, each, ours).rows()


def _first(names: Sequence[str], options: CheckOptions) -> RegisteredModel:
    """Return the first of the models that is converted. Raises NotRun, TrtjobError."""
    there = {model.name for model in ModelRegistry(options.home / "models").list()}
    name = next((name for name in names if f"{name}@{PRECISION}" in there), names[-1])
    return zoo.converted(name, PRECISION, options)


def _kind(model: RegisteredModel, options: CheckOptions) -> EngineKind:
    """Return the engine for a model: TensorRT where its plan is built, for none is built here. Raises NotRun."""
    try:
        need.engine("tensorrt")
        if need.has_plan(model, need.settings(options, "tensorrt")):
            return "tensorrt"
    except NotRun:
        pass
    need.engine("cuda")
    return "cuda"


def cases(models: dict[bool, RegisteredModel], kind: EngineKind) -> Iterator[Case]:
    """Yield what is measured of a light and a heavy model: with images decoded by the CPU, then by the GPU."""
    decoders: tuple[Decode, ...] = ("cpu", "gpu") if kind != "cpu" and installed_package() else ("cpu",)
    for decode in decoders:
        for is_heavy, model in models.items():
            for size, how in CASES[is_heavy]:
                yield Case(model, size, how, decode, is_heavy)


@contextmanager
def _stand(options: CheckOptions, load: Load) -> "Iterator[_Stand]":
    with TemporaryDirectory(prefix="trtjob-gpu-check-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for size, names in load.names.items():
            _pictures(folder / size, size, names)
        _pictures(folder / FEW, SMALL, load.few)
        with EmbeddedServer(folder / "server") as server:
            settings = Settings.model_validate({"home": folder, "redis_url": server.url})
            with connect(settings) as connection:
                node = Node(connection, JobStore(connection.redis), WorkQueue(connection.redis, settings.queue))
                yield _Stand(options, folder, server.url, node)


def _pictures(folder: Path, size: str, names: int) -> None:
    """Write a few pictures under many names."""
    write_pictures(folder, size, min(DISTINCT, names))
    for number in range(DISTINCT, names):
        os.link(folder / f"{number % DISTINCT:06d}.jpg", folder / f"{number:06d}.jpg")


class _Stand:
    """The queue's server, the pictures, and room for results."""

    def __init__(self, options: CheckOptions, folder: Path, url: str, node: Node) -> None:
        self.seconds = max(1.0, options.seconds)
        self.node = node
        self._home = options.home
        self._folder = folder
        self._url = url
        self._numbers = count()

    @contextmanager
    def daemon(self, kind: EngineKind, processes: int, *, is_pinned: bool = False) -> Iterator[Daemon]:
        """Run a daemon on so many GPUs, or with so many processes on the CPU in their place."""
        if kind == "cpu":
            where = ["--processes", str(processes)]
        else:
            where = ["--gpus", ",".join(map(str, range(processes))), "--batch", str(BATCH)]
        environment = {
            "TRTJOB_HOME": str(self._home),
            "TRTJOB_REDIS_URL": self._url,
            "TRTJOB_PLAN_BATCHES": need.PLAN_BATCHES,
            "TRTJOB_PLAN_CACHE_GIB": "200",
            "TRTJOB_PIN_CORES": str(is_pinned),
        }
        log = self._folder / f"daemon-{next(self._numbers)}.log"
        with daemon(["--engine", kind, *where], environment, processes, self.node.store, log) as running:
            yield running

    @contextmanager
    def job(self, case: Case, pictures: str = "", *, shard_size: int = 256) -> Iterator[JobSpec]:
        """Have a job under way for the length of the block; what it writes goes with it."""
        output = self._folder / f"out-{next(self._numbers)}"
        job = self.node.submit(
            self._folder / (pictures or case.size),
            case.model,
            output,
            annotate=case.how,
            shard_size=shard_size,
            decode=case.decode,
        )
        try:
            yield job
        finally:
            self.node.cancel(job.job_id)
            self._wait_until_left(job.job_id)
            shutil.rmtree(output, ignore_errors=True)

    def _wait_until_left(self, job_id: str) -> None:
        """Return when nobody works on a job any more, but not late."""
        end = time.monotonic() + LEFT_S
        while self.node.store.redis.hlen(f"{job_key(job_id)}:holders") and time.monotonic() < end:
            time.sleep(LOOK_S)

    def speed(self, running: Daemon, case: Case) -> Speed:
        """Measure a job without end."""
        with self.job(case) as job:
            return running.speed(self.seconds, lambda: self._why_over(job))

    def _why_over(self, job: JobSpec) -> str:
        view = self.node.store.view(job.job_id)
        return f"the job is {view.state}: {view.message}" if view.state in TERMINAL else ""


class _Checks:
    """What is measured with one engine, and what was found so far. models: by whether they are heavy."""

    def __init__(self, stand: _Stand, kind: EngineKind, models: dict[bool, RegisteredModel]) -> None:
        self._stand = stand
        self._kind = kind
        self._models = models
        self._steady = Case(models.get(True) or models[False], SMALL, Annotate.NONE, is_heavy=True)
        self._speeds: dict[tuple[str, int], Speed] = {}  # by the case's title and the number of GPUs
        self._digests: list[str] = []

    def rows(self) -> Iterator[Row]:
        if self._kind != "cpu" and not installed_package():
            yield Row(f"{self._kind}, decoded on the GPU", State.NOT_RUN, note="nvImageCodec is not installed")
        yield from _told(self._title(1), self._with_one())
        yield from _told(self._title(2), self._with_two())
        if False in self._models:
            yield from _told(f"{self._title(2)}, pinned", self._pinned(self._models[False]))

    def _title(self, processes: int) -> str:
        if self._kind == "cpu":
            return f"cpu, {processes} process{'es' if processes > 1 else ''} in their place"
        return f"{self._kind}, {processes} GPU{'s' if processes > 1 else ''}"

    def _with_one(self) -> Iterator[Row]:
        with self._stand.daemon(self._kind, 1) as running:
            yield from self._usual(running)

    def _with_two(self) -> Iterator[Row]:
        with self._stand.daemon(self._kind, 2) as running:
            yield from self._usual(running)
            killed = "one engine process is killed"
            yield from _told(killed, self._killed(killed, running))
            yield from _told(f"results, {killed}", self._results(f"results, {killed}", running, is_killed=True))
            both = f"two jobs at once, {self._title(2)}"
            yield from _told(both, self._two_jobs(both, running))

    def _usual(self, running: Daemon) -> Iterator[Row]:
        title = self._title(running.processes)
        first, *others = cases(self._models, self._kind)
        yield from self._speed(f"{first.title}, {title}", running, first)  # where this cannot be, no other can
        for case in others:
            name = f"{case.title}, {title}"
            yield from _told(name, self._speed(name, running, case))
        yield from _told(f"results, {title}", self._results(f"results, {title}", running))

    def _speed(self, name: str, running: Daemon, case: Case) -> Iterator[Row]:
        speed = self._speeds[case.title, running.processes] = self._stand.speed(running, case)
        said = [" + ".join(f"{rate:.0f}" for rate in speed.each.values()), _in_use(speed)]
        state = State.OK
        if not speed.is_steady:
            said.append("the pictures ran out")
        is_limited = speed.cores >= LIMITING * usable_cpus()
        if is_limited:
            said.append("the cores limit")
        first = self._speeds.get((case.title, 1))
        if running.processes > 1 and first is not None and first.images_per_s:
            adds = speed.images_per_s / first.images_per_s - 1
            said.append(f"the second adds {adds:.2f} of the first")
            if case.is_heavy:
                said.append(f"goal: {SECOND_ADDS:g}")
                is_good = adds >= SECOND_ADDS or is_limited or self._kind == "cpu"
                state = State.OK if is_good else State.FAILED
        yield Row(name, state, f"{speed.images_per_s:.0f} images/s", "; ".join(said))

    def _results(self, name: str, running: Daemon, *, is_killed: bool = False) -> Iterator[Row]:
        """Let a job come to its end, and compare what it has found with what the first has."""
        node, started = self._stand.node, time.monotonic()
        with self._stand.job(self._steady, FEW, shard_size=SHARD) as job:
            if is_killed:
                node.wait(job.job_id, lambda view: view.done > 0, PATIENCE_S)
                os.kill(running.workers()[0].pid, signal.SIGKILL)
            view = node.wait(job.job_id, timeout_s=PATIENCE_S)
            self._digests.append(hashlib.sha256((Path(job.uri) / "results.jsonl").read_bytes()).hexdigest())
        took_s = time.monotonic() - started
        first, *_, last = self._digests * 2
        figure = "the first" if len(self._digests) == 1 else f"{'the same' if last == first else 'other'} bytes"
        is_good = first == last and view.failed == 0 and view.ok == view.images
        note = f"{view.ok} of {view.images} images ok, {took_s:.1f} s; sha256 {last[:16]}"
        yield Row(name, State.OK if is_good else State.FAILED, figure, note)

    def _killed(self, name: str, running: Daemon) -> Iterator[Row]:
        """Kill an engine process in the middle of its work, and wait until the one in its place is as fast."""
        with self._stand.job(self._steady):
            before = running.speed(self._stand.seconds)
            victim = running.workers()[0]
            usual = before.each[victim.name]
            os.kill(victim.pid, signal.SIGKILL)
            at = time.monotonic()

            def newcomers() -> list[list[Beat]]:
                return [beats for worker, beats in running.beats(at).items() if worker not in before.each]

            def is_back() -> bool:
                return any(
                    late.images - early.images >= AS_BEFORE * usual * (late.at - early.at)
                    for beats in newcomers()
                    for early, late in pairwise(beats)
                )

            first_s = running.until(lambda: bool(newcomers()), "another at work", PATIENCE_S)
            full_s = first_s + running.until(is_back, "its speed as before", PATIENCE_S)
        note = f"at work after {first_s:.1f} s, told once a second; before {usual:.0f} images/s; {self._title(2)}"
        yield Row(name, figure=f"{full_s:.1f} s until full speed", note=note)

    def _two_jobs(self, name: str, running: Daemon) -> Iterator[Row]:
        """Run jobs of two models side by side."""
        if len(self._models) < 2:
            raise NotRun("the two models have no engine in common, or one is not there")
        light = Case(self._models[False], LARGE, Annotate.NONE)
        heavy = Case(self._models[True], SMALL, Annotate.NONE, is_heavy=True)
        loads = running.loads()
        with self._stand.job(light) as first, self._stand.job(heavy) as second:
            running.speed(1.0)
            started, begun = time.monotonic(), [self._done(job) for job in (first, second)]
            speed = running.speed(max(BEATS_S, self._stand.seconds))
            elapsed_s, done = time.monotonic() - started, [self._done(job) for job in (first, second)]
        rates = [(after - before) / elapsed_s for before, after in zip(begun, done, strict=True)]
        alone = [self._speeds.get((case.title, 1)) for case in (light, heavy)]
        said = [case.title for case in (light, heavy)]
        said += [f"alone on one {found.images_per_s:.0f}" for found in alone if found]
        said += [f"models loaded {running.loads() - loads} times", _in_use(speed)]
        yield Row(name, figure=" + ".join(f"{rate:.0f}" for rate in rates) + " images/s", note="; ".join(said))

    def _done(self, job: JobSpec) -> int:
        return self._stand.node.store.view(job.job_id).done

    def _pinned(self, model: RegisteredModel) -> Iterator[Row]:
        with self._stand.daemon(self._kind, 2, is_pinned=True) as running:
            for size, how in PINNED:
                case = Case(model, size, how)
                usual, speed = self._speeds.get((case.title, 2)), self._stand.speed(running, case)
                times = f"{speed.images_per_s / usual.images_per_s:.2f} of not pinned" if usual else "alone"
                name = f"{case.title}, {self._title(2)}, pinned"
                yield Row(name, figure=f"{speed.images_per_s:.0f} images/s", note=f"{times}; {_in_use(speed)}")


def _in_use(speed: Speed) -> str:
    return f"{speed.cores:.1f} of {usable_cpus()} cores in use"


def _told(name: str, found: Iterator[Row]) -> Iterator[Row]:
    """Yield rows, and why there are no more."""
    try:
        yield from found
    except NotRun as err:
        yield Row(name, State.NOT_RUN, note=str(err))
    except Exception as err:  # noqa: BLE001 - whatever it is, it belongs into the table, and the next row is measured
        yield Row(name, State.FAILED, note=f"{type(err).__name__}: {err}")
