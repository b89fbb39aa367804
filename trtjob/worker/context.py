"""What one worker process holds for its lifetime: its connections, its engine, its threads, and how it is stopped."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from redis import RedisError
from redis.lock import Lock

from trtjob.config import Settings
from trtjob.engines.choice import EngineKind
from trtjob.engines.protocol import Engine
from trtjob.engines.tensorrt.builder import BuildCancelled, BuildProgress
from trtjob.errors import DeviceLostError
from trtjob.jobs.roots import check_spec
from trtjob.jobs.spec import Decode, ModelRef, warm_key
from trtjob.logs import log_context
from trtjob.memory import trim_heap
from trtjob.queue.exclusions import Exclusions
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import lock_key
from trtjob.queue.leases import Lease
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.views import JobView, node_of
from trtjob.worker.engine_choice import can_decode, open_decoder, open_engine
from trtjob.worker.interrupter import Interrupted, Interrupter
from trtjob.worker.model_files import model_file
from trtjob.worker.own_exclusions import OwnExclusions
from trtjob.worker.pipeline.batches import end_without_gpu
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.limits import PipelineLimits
from trtjob.worker.pipeline.prestart import PrestartedProcesses

log = logging.getLogger(__name__)

LOCK_LEASE_S = 20  # a process that dies while it builds a plan holds the others up for so long


class Context:
    """One worker process.

    leases: the units in hand, each with what interrupts it alone; interrupter: interrupts all of them. The heartbeat's
    thread reads and uses both, and the counters.
    exclusions: who stands aside from which job; own_exclusions: the jobs that this process leaves alone for now.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        store: JobStore,
        queue: WorkQueue,
        *,
        engine: EngineKind = "cpu",
        gpu: int | None = None,
        gpu_name: str = "",
        prestarted: PrestartedProcesses | None = None,
        job_id: str | None = None,
        worker_processes: int = 1,
    ) -> None:
        """engine: what is to run models; gpu: the number that this process's own GPU has here, None for the CPU;
        gpu_name: what people call it; prestarted: image processes for the first model; job_id: the only job to work on,
        empty while it is not named; None: all of the queue; worker_processes: how many share the machine."""
        self.name = name
        self.job_id = job_id
        self.engine_kind = engine
        self.gpu = gpu
        self.gpu_name = gpu_name
        self.settings = settings
        self.store = store
        self.queue = queue
        self.node = node_of(name)
        self.exclusions = Exclusions(store, queue.name)
        self.own_exclusions = OwnExclusions(self.exclusions, name)
        self.interrupter = Interrupter()
        self.stopping = False
        self.told_of_labels: set[str] = set()  # jobs of which it was said which letters cannot be drawn
        self.leases: dict[Lease, Interrupter] = {}
        self.steps = 0  # grows with everything that moves in the pipeline: no growth for long means a stand-still
        self.images = self.failed = self.shards = self.batches = 0
        self._busy_before: Counter[str] = Counter()  # of pipelines that were closed
        self._busy_most: Counter[str] = Counter()  # that was ever said
        self._busy_taken: Counter[str] = Counter()
        self._busy_lock = threading.Lock()
        self.pipeline: Pipeline | None = None
        self._prestarted = prestarted
        self._worker_processes = worker_processes
        self._sha256 = self._warm_key = ""
        self.model_name = ""  # of the engine that is warm, or was last
        self.doing = ""  # what keeps images waiting, for a person
        self.conversion = ""  # the id of the one in hand

    def request_stop(self) -> None:
        """End after the unit under way has reached a batch edge. Safe in a signal handler."""
        self.stopping = True
        self.interrupter.interrupt("stop")

    def take_shard(self) -> tuple[str, str] | None:
        """Take the next shard that is for this worker from the queue: its job and the unit; None where none waits."""
        if self.job_id is None:
            return self.queue.take_shard(self.loaded_model)
        unit = self.queue.take_unit_of(self.job_id, shards_only=True)
        return None if unit is None else (self.job_id, unit)

    def view(self, job_id: str) -> JobView:
        """Return a job as it stands. Raises ConfigError where it names a place that is not allowed here."""
        view = self.store.view(job_id)
        check_spec(view.spec, self.settings.roots, self.settings.home)
        return view

    def take_in_hand(self, lease: Lease) -> Interrupter:
        """Have the heartbeat keep a lease, until `holding` ends or it is put down."""
        return self.leases.setdefault(lease, Interrupter())

    def put_down(self, lease: Lease) -> None:
        """Give a unit up that was not begun."""
        if self.leases.pop(lease, None) is not None:
            self.store.release(lease, take_back=True, why="the worker ends")

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Interrupter]:
        """Have a unit in hand for the length of the block: the heartbeat keeps its lease."""
        interrupter = self.take_in_hand(lease)
        try:
            with log_context(job_id=lease.job_id, unit=lease.unit, attempt=lease.attempt):
                yield interrupter
        finally:
            self.leases.pop(lease, None)

    @contextmanager
    def converting(self, request_id: str) -> Iterator[None]:
        """Have a conversion in hand for the length of the block: the process is busy."""
        self.conversion = request_id
        try:
            yield
        finally:
            self.conversion = self.doing = ""

    def interrupt_job(self, job_id: str, reason: str) -> None:
        """Interrupt the units of one job."""
        for lease, interrupter in list(self.leases.items()):
            if lease.job_id == job_id:
                interrupter.interrupt(reason)

    def busy_s(self) -> dict[str, float]:
        """Return the seconds of work by stage since the process began: never less than before, also while an image
        process, or a pipeline, is being replaced."""
        with self._busy_lock:
            pipeline = self.pipeline
            self._busy_most |= self._busy_before + Counter(pipeline.busy_s() if pipeline else {})
            return dict(self._busy_most)

    def take_busy_s(self) -> dict[str, float]:
        """Return the seconds of work by stage that nobody has taken yet."""
        total = Counter(self.busy_s())
        taken, self._busy_taken = total - self._busy_taken, total
        return dict(taken)

    def on_batch(self) -> None:
        """Count a call of the engine; by any thread, so the count may be a few short."""
        self.batches += 1

    def on_step(self) -> None:
        """Count that something moves."""
        self.steps += 1

    def still_wanted(self, interrupter: Interrupter) -> None:
        """Count a step, for what takes long is no stand-still. Raises Interrupted where the unit must be left."""
        self.steps += 1
        self.interrupter.check()
        interrupter.check()

    @property
    def loaded_model(self) -> str:
        """What is warm, as `warm_key` has it, empty where nothing is."""
        return self._warm_key

    @property
    def engine(self) -> Engine | None:
        """The engine that is warm."""
        return None if self.pipeline is None else self.pipeline.engine

    def device_of(self, engine: Engine) -> str:
        """Return what an engine runs on, and by which package."""
        return f"{self.gpu_name}: {engine.device}" if self.gpu_name and engine.name != "cpu" else engine.device

    def pipeline_for(
        self, model: ModelRef, interrupter: Interrupter | None = None, *, decode: Decode = "cpu"
    ) -> Pipeline:
        """Return the pipeline around a model's engine, kept warm from unit to unit; another model's is closed first.

        interrupter: of the unit that needs it, which also ends a fetch or a build that takes long; decode: what decodes
        its images.
        Raises ModelError where the file is missing or is another model, EngineError where it does not load,
        Interrupted.
        """
        if self.pipeline is not None and self.loaded_model == warm_key(model, decode):
            return self.pipeline
        if self.pipeline is not None and self._sha256 == model.sha256:
            engine = self.pipeline.engine
            self._close_pipeline()
        else:
            self.close_engine()
            engine = self._open(model, interrupter or Interrupter())
        return self.adopt_engine(model, engine, decode=decode)

    def _open(self, model: ModelRef, interrupter: Interrupter) -> Engine:
        try:
            self.doing = f"loading the model {model.name}"
            return open_engine(
                self.settings,
                model_file(model, self.settings, lambda _trouble: self.still_wanted(interrupter)),
                model.sha256,
                self.engine_kind,
                self.gpu,
                on_build=self.on_build(interrupter),
                single_flight=lambda name: self.single_flight(name, interrupter),
                model_name=model.name,
            )
        except BuildCancelled:
            raise Interrupted(self.interrupter.reason or interrupter.reason) from None
        except DeviceLostError as err:
            end_without_gpu(err)
        finally:
            self.doing = ""

    def on_build(self, interrupter: Interrupter) -> BuildProgress:
        """Return what a build is watched by: it ends where its unit must be left."""

        started = time.monotonic()

        def goes_on(phase: str, done: int, total: int) -> bool:
            # No exception: it would have to pass through TensorRT, which calls this.
            self.steps += 1
            steps = f" {done}/{total}" if total else ""
            self.doing = f"TensorRT plan for this GPU, {time.monotonic() - started:.0f} s: {phase}{steps}"
            return not (self.interrupter.reason or interrupter.reason)

        return goes_on

    @contextmanager
    def single_flight(self, name: str, interrupter: Interrupter | None = None) -> Iterator[None]:
        """Let one process of all that share the server into the block; the others wait. Raises Interrupted."""
        lock = self.store.redis.lock(lock_key(name), timeout=LOCK_LEASE_S, thread_local=False)
        while not lock.acquire(blocking_timeout=1):
            self.doing = "waiting for a TensorRT plan that another worker builds"
            self.still_wanted(interrupter or self.interrupter)
        ended = threading.Event()
        keeper = threading.Thread(target=_keep_lock, args=(lock, ended), name="trtjob-lock", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            ended.set()
            keeper.join()
            with suppress(RedisError):  # it ran out while the server was away; what is built is good all the same
                lock.release()

    def adopt_engine(self, model: ModelRef, engine: Engine, *, decode: Decode = "cpu") -> Pipeline:
        """Take an engine over, with image processes to match, for all units of its model."""
        settings = self.settings
        limits = PipelineLimits.of(
            settings,
            engine,
            decodes=decode == "gpu" and can_decode(engine, self.gpu),
            worker_processes=self._worker_processes,
        )
        self.pipeline = Pipeline(
            engine,
            limits,
            prestarted=self._prestarted,
            on_batch=self.on_batch,
            on_step=self.on_step,
            open_decoder=partial(open_decoder, engine, self.gpu, limits.batch, limits.batches),
            log_level=settings.log_level,
            log_format=settings.log_format,
        )
        self._prestarted = None
        self._sha256, self._warm_key = model.sha256, warm_key(model, decode)
        self.model_name = model.name
        log.info("model loaded", extra={"model": model.name, "engine": engine.name, "device": self.device_of(engine)})
        return self.pipeline

    def close_engine(self) -> None:
        """End the image processes, then free the engine."""
        engine = self.engine
        self._close_pipeline()
        if engine is not None:
            engine.close()
            trim_heap()  # else a process that changes between models keeps half a megabyte of each change

    def _close_pipeline(self) -> None:
        with self._busy_lock:
            pipeline, self.pipeline = self.pipeline, None
            self._sha256 = self._warm_key = ""
            if pipeline is not None:
                self._busy_before.update(pipeline.busy_s())
        if pipeline is not None:
            pipeline.close()


def _keep_lock(lock: Lock, ended: threading.Event) -> None:
    while not ended.wait(LOCK_LEASE_S / 4):
        with suppress(RedisError):
            lock.reacquire()


_current: Context | None = None


def set_current(context: Context | None) -> None:
    """Make a context the process's own: RQ calls task functions by name, with the message's arguments only.

    None: this is no worker process any more.
    """
    global _current
    _current = context


def current() -> Context:
    """Return the process's context. Raises RuntimeError outside a worker process."""
    if _current is None:
        raise RuntimeError("this function runs only in a worker process: start one with `trtjob worker`")
    return _current
