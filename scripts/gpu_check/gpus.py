"""Several GPUs of one machine: what the second adds, what the cores allow, and what becomes of the work of one that
ends. All by `trtjob worker`, as a user starts it."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.node import Node
from scripts.gpu_check import need, zoo
from scripts.gpu_check.daemon import LOOK_S, Beat, Daemon, Speed, daemon
from scripts.gpu_check.feed import BATCH, HEAVY, HOW, LARGE, LIGHT, LIMITING, PRECISION, SMALL, roomy_memory
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from trtjob.bench.synthetic_images import write_pictures
from trtjob.config import Settings
from trtjob.converters.registry import RegisteredModel
from trtjob.cpus import by_neighbourhood, near_cpus, usable_cpus
from trtjob.engines.choice import EngineKind
from trtjob.engines.cuda.device import gpus
from trtjob.engines.cuda.survey import survey
from trtjob.errors import TrtjobError
from trtjob.imaging.gpu.nvjpeg import installed_package
from trtjob.jobs.spec import Annotate, Decode, JobSpec
from trtjob.jobs.states import TERMINAL
from trtjob.queue.connection import Connection
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import job_key
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.core_shares import core_shares

EVERY_WAY = [(size, how) for size in (SMALL, LARGE) for how in (Annotate.NONE, Annotate.ALL)]
# By what decodes, and whether the model is heavy. Where the GPU decodes, an image to draw on is decoded twice.
CASES: dict[Decode, dict[bool, list[tuple[str, Annotate]]]] = {
    "cpu": {False: EVERY_WAY, True: EVERY_WAY},
    "gpu": {
        True: [(SMALL, Annotate.NONE), (LARGE, Annotate.NONE)],
        False: [(SMALL, Annotate.NONE), (LARGE, Annotate.NONE), (LARGE, Annotate.ALL)],
    },
}
PINNED = [(SMALL, Annotate.NONE), (LARGE, Annotate.ALL)]
SECOND_ADDS = 0.95
AS_BEFORE = 0.9  # of its speed: a process that was started again is at work as before
DISTINCT = 12
FEW, SHARD = "few", 64  # the pictures, and the images in a unit of work, of a job that comes to its end
PATIENCE_S = 40.0
LEASE_S = 4  # a worker hears within a quarter of it that a job is cancelled
LEFT_S = 10.0
BEATS_S = 4.0  # a job's progress is told once a second
CALM_S = 4.0  # longer than a worker works for one job before it turns to another that waits


@dataclass(frozen=True, slots=True)
class Load:
    """What is fed. names: how many names there are of the pictures of each size; few: of those whose results are
    compared."""

    names: dict[str, int] = field(default_factory=lambda: {SMALL: 90_000, LARGE: 60_000})
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
    yield from rows(LIGHT, HEAVY, options)


def places() -> Iterator[Row]:
    """Say where the GPUs are, and which cores their processes get."""
    found = survey().gpus
    near = [near_cpus(gpu.pci_bus_id) for gpu in found]
    shares = core_shares(near, by_neighbourhood(os.sched_getaffinity(0)))
    for gpu, node, share in zip(found, near, shares, strict=True):
        note = f"{gpu.name}, {gpu.visible_as}; near it are {ranges(node) or 'none that the kernel names'}"
        yield Row(f"GPU {gpu.index} at {gpu.pci_bus_id}", figure=f"cores {ranges(share)}", note=note)


def ranges(cores: Set[int]) -> str:
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
    heavy: str,
    options: CheckOptions,
    *,
    kind: EngineKind | None = None,
    load: Load | None = None,
) -> Iterator[Row]:
    """Measure a light and a heavy model. kind: whatever there is for the model; the CPU stands in for GPUs where there
    are none, each worker process for one."""
    with _stand(options, load or Load()) as stand:
        models: list[tuple[EngineKind, RegisteredModel, bool]] = []
        for name, is_heavy in (light, False), (heavy, True):
            try:
                model = zoo.converted(name, PRECISION, options)
                models.append((kind or _kind(model, options), model, is_heavy))
            except (NotRun, TrtjobError) as err:
                yield Row(name, State.NOT_RUN, note=str(err))
        for each in dict.fromkeys(found for found, *_ in models):
            ours = {is_heavy: model for found, model, is_heavy in models if found == each}
            yield from _Checks(stand, each, ours).rows()


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


@contextmanager
def _stand(options: CheckOptions, load: Load) -> "Iterator[_Stand]":
    room = roomy_memory()
    with TemporaryDirectory(prefix="trtjob-gpu-check-", dir=room, ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        for size, names in load.names.items():
            _pictures(folder / size, size, names)
        _pictures(folder / FEW, SMALL, load.few)
        with EmbeddedServer(folder / "server") as server:
            settings = Settings.model_validate({"home": folder, "redis_url": server.url})
            with Connection(settings) as connection:
                yield _Stand(options, folder, server.url, connection)


def _pictures(folder: Path, size: str, names: int) -> None:
    """Write a few pictures under many names."""
    write_pictures(folder, size, min(DISTINCT, names))
    for number in range(DISTINCT, names):
        os.link(folder / f"{number % DISTINCT:06d}.jpg", folder / f"{number:06d}.jpg")


class _Stand:
    """The queue's server, the pictures, and room for results."""

    def __init__(self, options: CheckOptions, folder: Path, url: str, connection: Connection) -> None:
        self.seconds = max(1.0, options.seconds)
        self.store = JobStore(connection.redis)
        self._connection = connection
        self._home = options.home
        self._folder = folder
        self._url = url
        self._numbers = count()

    @contextmanager
    def team(self, kind: EngineKind, processes: int, *, is_pinned: bool = False) -> "Iterator[_Team]":
        """Run a daemon on so many GPUs, or with so many processes on the CPU in their place, with a queue of its own.

        So several are ready at once, and one works while the others have nothing to do.
        """
        if kind == "cpu":
            where = ["--processes", str(processes)]
        else:
            where = ["--gpus", ",".join(map(str, range(processes))), "--batch", str(BATCH)]
        name = f"team-{next(self._numbers)}"
        environment = {
            "TRTJOB_HOME": str(self._home),
            "TRTJOB_REDIS_URL": self._url,
            "TRTJOB_QUEUE": name,
            "TRTJOB_LEASE_S": str(LEASE_S),
            "TRTJOB_PLAN_BATCHES": need.PLAN_BATCHES,
            "TRTJOB_PLAN_CACHE_GIB": "200",
            "TRTJOB_PIN_CORES": str(is_pinned),
        }
        node = Node(self._connection, self.store, WorkQueue(self._connection.redis, name))
        log = self._folder / f"{name}.log"
        with daemon(["--engine", kind, *where], environment, processes, self.store, log) as running:
            yield _Team(running, node, self)

    @contextmanager
    def job(self, node: Node, case: Case, pictures: str = "", *, shard_size: int = 256) -> Iterator[JobSpec]:
        """Have a job under way for the length of the block; what it writes goes with it."""
        output = self._folder / f"out-{next(self._numbers)}"
        job = node.submit(
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
            node.cancel(job.job_id)
            self._wait_until_left(job.job_id)
            shutil.rmtree(output, ignore_errors=True)

    def _wait_until_left(self, job_id: str) -> None:
        """Return when nobody works on a job any more, but not late."""
        end = time.monotonic() + LEFT_S
        while self.store.redis.hlen(f"{job_key(job_id)}:holders") and time.monotonic() < end:
            time.sleep(LOOK_S)

    def why_over(self, job: JobSpec) -> str:
        """Say why a job is not under way any more, empty while it is."""
        view = self.store.view(job.job_id)
        return f"the job is {view.state}: {view.message}" if view.state in TERMINAL else ""


@dataclass(frozen=True, slots=True)
class _Team:
    """A daemon and the queue that it works on."""

    daemon: Daemon
    node: Node
    stand: _Stand

    def speed(self, case: Case) -> Speed:
        """Measure a job without end; of a heavy model for longer, for there a hundredth counts."""
        seconds = self.stand.seconds * (2 if case.is_heavy else 1)
        with self.stand.job(self.node, case) as job:
            return self.daemon.speed(seconds, lambda: self.stand.why_over(job))


# What is measured under a name.
Step = Callable[[str], Row]


class _Checks:
    """What is measured with one engine, and what was found so far. models: by whether they are heavy."""

    def __init__(self, stand: _Stand, kind: EngineKind, models: dict[bool, RegisteredModel]) -> None:
        self._stand = stand
        self._kind = kind
        self._models = models
        self._steady = Case(models.get(True) or models[False], SMALL, Annotate.NONE, is_heavy=True)
        self._speeds: dict[str, tuple[Speed, Speed]] = {}  # with one and with two, by the case's title
        self._digests: list[str] = []

    def rows(self) -> Iterator[Row]:
        """Measure with one and with two by turns, so that what is compared was measured within seconds."""
        try:
            with ExitStack() as stack:
                one, two = (stack.enter_context(self._stand.team(self._kind, count)) for count in (1, 2))
                pinned = stack.enter_context(self._stand.team(self._kind, 2, is_pinned=True))
                for number, (name, step) in enumerate(self._steps(one, two, pinned)):
                    row = _row(f"{self._kind}, {name}", step)
                    yield row
                    if number == 0 and row.state is State.FAILED:  # where this cannot be, no other can
                        return
        except TrtjobError as err:  # a daemon does not start
            yield Row(self._kind, State.FAILED, note=str(err))

    def _steps(self, one: _Team, two: _Team, pinned: _Team) -> Iterator[tuple[str, Step]]:
        """Yield what to measure, by its name, so that models are seldom loaded, and what matters most comes first."""
        for case in self._cases("cpu", is_heavy=False):
            yield case.title, partial(self._speed, case, one, two)
        for size, how in PINNED if False in self._models else []:
            case = Case(self._models[False], size, how)
            yield f"{case.title}, pinned", partial(self._pinned, case, pinned)
        for case in self._cases("cpu", is_heavy=True):
            yield case.title, partial(self._speed, case, one, two)
        yield "results of one", partial(self._results, one)
        yield "results of two", partial(self._results, two)
        yield "results of two, an engine process is killed", partial(self._results, two, is_killed=True)
        yield "two, an engine process is killed", partial(self._killed, two)
        yield "two jobs at once on two", partial(self._two_jobs, two)
        if self._kind != "cpu":
            yield from self._decoded_on_gpu(one, two)

    def _decoded_on_gpu(self, one: _Team, two: _Team) -> Iterator[tuple[str, Step]]:
        if not installed_package():
            yield "decoded on the GPU", _without_decoder
            return
        for is_heavy in True, False:
            for case in self._cases("gpu", is_heavy=is_heavy):
                yield case.title, partial(self._speed, case, one, two)

    def _cases(self, decode: Decode, *, is_heavy: bool) -> Iterator[Case]:
        if is_heavy in self._models:
            for size, how in CASES[decode][is_heavy]:
                yield Case(self._models[is_heavy], size, how, decode, is_heavy)

    def _speed(self, case: Case, one: _Team, two: _Team, name: str) -> Row:
        first, both = self._speeds[case.title] = one.speed(case), two.speed(case)
        if not first.images_per_s:
            raise TrtjobError("no image was done in time")
        adds = both.images_per_s / first.images_per_s - 1
        is_limited = both.cores >= LIMITING * usable_cpus()
        said = [
            " + ".join(f"{rate:.0f}" for rate in both.each.values()),
            f"{first.cores:.1f} / {both.cores:.1f} of {usable_cpus()} cores in use",
            f"engine processes {_cores(first.engine_cores)} / {_cores(both.engine_cores)}",
            "the cores limit" if is_limited else "",
            "" if first.is_steady and both.is_steady else "not all were at work until the end",
            f"goal: {SECOND_ADDS:g}" if case.is_heavy else "",
        ]
        is_good = not case.is_heavy or adds >= SECOND_ADDS or is_limited or self._kind == "cpu"
        figure = f"{first.images_per_s:.0f} / {both.images_per_s:.0f} / {adds:.2f}"
        return Row(name, State.OK if is_good else State.FAILED, figure, "; ".join(filter(None, said)))

    def _pinned(self, case: Case, pinned: _Team, name: str) -> Row:
        speed, usual = pinned.speed(case), self._speeds.get(case.title)
        times = f"{speed.images_per_s / usual[1].images_per_s:.2f} of not pinned; " if usual else ""
        note = f"{times}{speed.cores:.1f} of {usable_cpus()} cores in use"
        return Row(name, figure=f"- / {speed.images_per_s:.0f} / -", note=note)

    def _results(self, team: _Team, name: str, *, is_killed: bool = False) -> Row:
        """Let a job come to its end, and compare what it has found with what the first has."""
        node, started = team.node, time.monotonic()
        with self._stand.job(node, self._steady, FEW, shard_size=SHARD) as job:
            if is_killed:
                node.wait(job.job_id, lambda view: view.done > 0, PATIENCE_S)
                os.kill(team.daemon.workers()[0].pid, signal.SIGKILL)
            view = node.wait(job.job_id, timeout_s=PATIENCE_S)
            self._digests.append(hashlib.sha256((Path(job.uri) / "results.jsonl").read_bytes()).hexdigest())
        took_s = time.monotonic() - started
        first, *_, last = self._digests * 2
        figure = "the first" if len(self._digests) == 1 else f"{'the same' if last == first else 'other'} bytes"
        is_good = first == last and view.failed == 0 and view.ok == view.images
        note = f"{view.ok} of {view.images} images ok, {took_s:.1f} s; sha256 {last[:16]}"
        return Row(name, State.OK if is_good else State.FAILED, figure, note)

    def _killed(self, team: _Team, name: str) -> Row:
        """Kill an engine process in the middle of its work, and wait until the one in its place is as fast."""
        running = team.daemon
        with self._stand.job(team.node, self._steady):
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
        note = f"at work after {first_s:.1f} s, told once a second; before {usual:.0f} images/s"
        return Row(name, figure=f"{full_s:.1f} s until full speed", note=note)

    def _two_jobs(self, team: _Team, name: str) -> Row:
        """Run jobs of two models side by side."""
        if len(self._models) < 2:
            raise NotRun("the two models have no engine in common, or one is not there")
        running = team.daemon
        light = Case(self._models[False], LARGE, Annotate.NONE)
        heavy = Case(self._models[True], SMALL, Annotate.NONE, is_heavy=True)
        loads = running.loads()
        with self._stand.job(team.node, light) as first, self._stand.job(team.node, heavy) as second:
            settled_s = running.until(self._is_settled(running, first, second), "both at work", PATIENCE_S)
            started, begun = time.monotonic(), [self._done(job) for job in (first, second)]
            speed = running.speed(max(BEATS_S, self._stand.seconds))
            elapsed_s, done = time.monotonic() - started, [self._done(job) for job in (first, second)]
        rates = [(after - before) / elapsed_s for before, after in zip(begun, done, strict=True)]
        alone = [self._speeds.get(case.title) for case in (light, heavy)]
        said = [case.title for case in (light, heavy)]
        said += [f"alone on one {found[0].images_per_s:.0f}" for found in alone if found]
        said += [f"both at work after {settled_s:.1f} s, models loaded {running.loads() - loads} times"]
        said += [f"{speed.cores:.1f} of {usable_cpus()} cores in use"]
        return Row(name, figure=" + ".join(f"{rate:.0f}" for rate in rates) + " images/s", note="; ".join(said))

    def _is_settled(self, running: Daemon, *jobs: JobSpec) -> Callable[[], bool]:
        """Return what tells whether all jobs are under way, and no model has been loaded for a while: which worker has
        which is found out first."""
        seen, since = -1, 0.0

        def look() -> bool:
            nonlocal seen, since
            if (loads := running.loads()) != seen or not all(map(self._done, jobs)):
                seen, since = loads, time.monotonic()
            return time.monotonic() - since > CALM_S

        return look

    def _done(self, job: JobSpec) -> int:
        return self._stand.store.view(job.job_id).done


def _cores(each: Iterable[float]) -> str:
    return " + ".join(f"{cores:.1f}" for cores in each)


def _without_decoder(_name: str) -> Row:
    raise NotRun("nvJPEG is not installed")


def _row(name: str, step: Step) -> Row:
    """Take a step. Returns its row, or one that says why there is none."""
    try:
        return step(name)
    except NotRun as err:
        return Row(name, State.NOT_RUN, note=str(err))
    except Exception as err:  # noqa: BLE001 - whatever it is, it belongs into the table, and the next row is measured
        return Row(name, State.FAILED, note=f"{type(err).__name__}: {err}")
