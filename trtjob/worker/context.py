"""What one worker process holds for its lifetime: its connections, its engine, its threads, and how it is stopped."""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis import RedisError
from redis.lock import Lock

from trtjob.config import Settings
from trtjob.engines.protocol import Engine
from trtjob.errors import ModelError
from trtjob.jobs.models import ModelRef
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.store import Claim, JobStore
from trtjob.worker.engine import open_engine
from trtjob.worker.pipeline import Limits, Pools

log = logging.getLogger(__name__)

LOCK_LEASE_S = 20  # a process that dies while it builds a plan holds the others up for so long


class Interrupted(Exception):
    """The unit must be left: `stop` (the process ends), `lost` (another has it) or the job's new state."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(slots=True)
class Interrupter:
    """Lets other threads, and signal handlers, interrupt the unit that the main thread works on."""

    _lock: threading.RLock = field(default_factory=threading.RLock)
    _wake: Callable[[], object] | None = None
    _reason: str = ""

    def interrupt(self, reason: str) -> None:
        """Interrupt the unit under way; the first reason counts."""
        with self._lock:
            self._reason = self._reason or reason
            if self._wake is not None:
                self._wake()

    @contextmanager
    def listening(self, event: asyncio.Event) -> Iterator[None]:
        """Set `event`, in the running loop, when there is an interruption."""
        loop = asyncio.get_running_loop()
        with self._lock:
            self._wake = lambda: loop.call_soon_threadsafe(event.set)
            if self._reason:
                event.set()
        try:
            yield
        finally:
            with self._lock:
                self._wake = None

    def reset(self) -> None:
        with self._lock:
            self._reason = ""

    @property
    def reason(self) -> str:
        return self._reason

    def check(self) -> None:
        """Raise Interrupted where there is a reason."""
        if self._reason:
            raise Interrupted(self._reason)


class Context:
    """One worker process. `claim` and `progress` are read by the heart's thread."""

    def __init__(
        self, name: str, settings: Settings, store: JobStore, queue: WorkQueue, *, gpu: int | None = None
    ) -> None:
        """gpu: the number of the GPU that is this process's own; None: it works on the CPU."""
        self.name = name
        self.gpu = gpu
        self.settings = settings
        self.store = store
        self.queue = queue
        self.interrupter = Interrupter()
        self.stopping = False
        self.claim: Claim | None = None
        self.steps = 0  # grows with every image that leaves the pipeline: no growth for long means a stand-still
        self.images = 0
        self.busy_s: Callable[[], dict[str, float]] = dict
        self.engine: Engine | None = None
        self.pools: Pools | None = None
        self._engine_sha256 = ""

    def request_stop(self) -> None:
        """End after the unit under way has reached a batch edge. Safe in a signal handler."""
        self.stopping = True
        self.interrupter.interrupt("stop")

    def engine_for(self, model: ModelRef) -> tuple[Engine, Pools]:
        """Return the engine of a model, kept warm from unit to unit; another model's is closed first.

        Raises ModelError where the file is missing or is another model, EngineError where it does not load.
        """
        if self.engine is not None and self.pools is not None and self._engine_sha256 == model.sha256:
            return self.engine, self.pools
        self.close_engine()
        _check_identity(model)
        return self.adopt_engine(model, self._open(model))

    def _open(self, model: ModelRef) -> Engine:
        from trtjob.engines.tensorrt.builder import BuildCancelled

        def on_build(_phase: str, _done: int, _total: int) -> bool:
            self.steps += 1  # a build takes minutes, and is no stand-still
            return not self.interrupter.reason

        try:
            return open_engine(
                self.settings,
                Path(model.path),
                model.sha256,
                self.gpu,
                on_build=on_build,
                single_flight=self.single_flight,
            )
        except BuildCancelled:
            raise Interrupted(self.interrupter.reason) from None

    @contextmanager
    def single_flight(self, name: str) -> Iterator[None]:
        """Let one process of all that share the server into the block; the others wait. Raises Interrupted."""
        lock = self.store.redis.lock(f"trtjob:lock:{name}", timeout=LOCK_LEASE_S, thread_local=False)
        while not lock.acquire(blocking_timeout=1):
            self.steps += 1
            self.interrupter.check()
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

    def adopt_engine(self, model: ModelRef, engine: Engine) -> tuple[Engine, Pools]:
        """Take an engine over, with threads to match, for all units of its model."""
        self.engine = engine
        self.pools = Pools(Limits.of(self.settings, engine), engine.concurrency)
        self._engine_sha256 = model.sha256
        log.info("model loaded", extra={"model": model.name, "engine": engine.name, "device": engine.device})
        return self.engine, self.pools

    def close_engine(self) -> None:
        """Wait for the threads, then free the engine."""
        if self.pools is not None:
            self.pools.close()
        if self.engine is not None:
            self.engine.close()
        self.pools = self.engine = None
        self._engine_sha256 = ""


def _keep_lock(lock: Lock, ended: threading.Event) -> None:
    while not ended.wait(LOCK_LEASE_S / 4):
        with suppress(RedisError):
            lock.reacquire()


def _check_identity(model: ModelRef) -> None:
    try:
        with Path(model.path).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as err:
        raise ModelError(
            f"the model '{model.name}' cannot be read: {model.path}: {err.strerror}. "
            "Convert it again, then run the job again"
        ) from err
    if digest != model.sha256:
        raise ModelError(
            f"the file {model.path} is not the model '{model.name}' that the job was submitted with "
            f"(sha256 {digest[:12]}..., expected {model.sha256[:12]}...). Submit the job again with the model you want"
        )


_current: Context | None = None


def set_current(context: Context) -> None:
    """Make a context the process's own: RQ calls task functions by name, with the message's arguments only."""
    global _current
    _current = context


def current() -> Context:
    """Return the process's context. Raises RuntimeError outside a worker process."""
    if _current is None:
        raise RuntimeError("this function runs only in a worker process: start one with `trtjob worker`")
    return _current
