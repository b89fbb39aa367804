"""What goes wrong on a GPU: its memory is full, the process is killed, engines come and go and share it."""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from redis import Redis

from scripts.gpu_check import need, zoo
from scripts.gpu_check.apart import Answer, apart
from scripts.gpu_check.memory import free_mib, nearly_full, own_mib, process_mib
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.plans import ONE_IMAGE, SMALL
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.zoo import Variant
from trtjob.engines.choice import EngineKind
from trtjob.engines.cuda.device import gpus
from trtjob.engines.onnxruntime.cuda_model import CudaOptions, session_of
from trtjob.engines.pool import LANES
from trtjob.engines.protocol import Engine, UInt8Array
from trtjob.engines.spec import INPUT_NAME
from trtjob.engines.tensorrt.engine import alone
from trtjob.engines.tensorrt.plans import Gpu, PlanCache, PlanKey
from trtjob.errors import DeviceMemoryError, EngineError
from trtjob.jobs.spec import ModelRef
from trtjob.memory import trim_heap
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.context import Context

OTHER, PRECISION = "yolov4-tiny", "fp16"
# What is left of the GPU's memory. With TensorRT the plan for one image, since every half of a batch is a plan more.
LEFT_MIB: dict[EngineKind, tuple[int, ...]] = {"cuda": (200, 1000), "tensorrt": (4,)}
CYCLES, SWITCHES = 200, 50
WARM_UP = 5  # cycles in which libraries and the context take what they keep
MAX_GROWTH_MIB = 16
MAX_HOST_GROWTH_MIB = 64
KILLED_AFTER_S = 1.0
FREED_WITHIN_S = 30.0
BATCH = 8


def check(options: CheckOptions) -> Iterator[Row]:
    need.gpu()
    yield from foreign_plan(options)
    for kind in need.ON_GPU:
        try:
            need.engine(kind)
        except NotRun as err:
            yield Row(f"{kind}: faults", State.NOT_RUN, note=str(err))
            continue
        for left in LEFT_MIB[kind]:
            yield _row(f"{kind}: memory full, {left} MiB left", apart(with_little_memory, kind, left, options))
        yield _row(f"{kind}: killed in mid batch", apart(killed, kind, options))


def growth(options: CheckOptions) -> Iterator[Row]:
    """Open and close engines, switch between them, and have several at once: nothing grows, no answer changes."""
    need.gpu()
    for kind in need.ON_GPU:
        try:
            need.engine(kind)
        except NotRun as err:
            yield Row(f"{kind}: growth", State.NOT_RUN, note=str(err))
            continue
        cycles = CYCLES // 4 if options.is_quick else CYCLES
        yield _row(f"{kind}: opened and closed {cycles} times", apart(opened_and_closed, kind, cycles, options))
        if kind == "cuda":
            yield _row(f"ONNX Runtime's own sessions, {cycles} times", apart(bare_sessions, cycles, options))
        switches = SWITCHES // 2 if options.is_quick else SWITCHES
        yield _row(f"{kind}: a worker switches {switches} times", apart(switched, kind, switches, options))
    yield _row("two engines in one process", apart(side_by_side_in_one_process, options))


def _row(name: str, answer: Answer[tuple[State, str]]) -> Row:
    if answer.value is None:
        return answer.row(name)
    state, figure = answer.value
    return Row(name, state, figure, f"{answer.seconds:.0f} s")


def _batch(engine: Engine, count: int = BATCH) -> UInt8Array:
    shape = (count, *engine.spec.input_hw, engine.spec.channels)
    return np.random.default_rng(4).integers(0, 256, shape, np.uint8)


def _opened(name: str, kind: EngineKind, options: CheckOptions, more: dict[str, object] | None = None) -> Engine:
    settings = {**Variant(name, PRECISION).settings, **(more or {})}
    return need.opened(zoo.converted(name, PRECISION, options), options, kind, **settings)


def _answer(engine: Engine) -> str:
    """Return a hash of what an engine says of the same batch."""
    outputs = engine.infer(_batch(engine))
    digest = hashlib.sha256(outputs.scores.tobytes())
    digest.update(b"" if outputs.boxes is None else outputs.boxes.tobytes())
    return digest.hexdigest()


def _verdict(is_good: bool) -> State:
    return State.OK if is_good else State.FAILED


def with_little_memory(kind: EngineKind, left_mib: int, options: CheckOptions) -> tuple[State, str]:
    """Open a model where nearly all memory is taken: smaller batches, or an error of ours; then with all of it."""
    more = ONE_IMAGE if kind == "tensorrt" else {}
    with _opened(SMALL, kind, options, more) as engine:
        wanted, most = _answer(engine), engine.max_batch
    with nearly_full(left_mib):
        try:
            with _opened(SMALL, kind, options, more) as engine:
                same = "the same bytes" if _answer(engine) == wanted else "other bytes"
                what = f"batches of {engine.max_batch} instead of {most}, {same}"
        except EngineError as err:
            if not isinstance(err, DeviceMemoryError) and "memory" not in str(err).lower():
                raise
            what = f"an error: {err}"
    with _opened(SMALL, kind, options, more) as engine:
        is_good = _answer(engine) == wanted and engine.max_batch == most
    return _verdict(is_good), f"{what}; afterwards {'as before' if is_good else 'not as before'}"


def killed(kind: EngineKind, options: CheckOptions) -> tuple[State, str]:
    """Kill a process in the middle of its batches: its memory comes back, and another one gives the same bytes."""
    before = free_mib()
    with _Worker(kind, options) as worker:
        answer = worker.answer()
        time.sleep(KILLED_AFTER_S)
        taken = before - free_mib()
        worker.kill()
        started = time.perf_counter()
        while before - free_mib() > MAX_GROWTH_MIB and time.perf_counter() < started + FREED_WITHIN_S:
            time.sleep(0.01)
        elapsed_s, left = time.perf_counter() - started, before - free_mib()
    with _Worker(kind, options) as worker:
        again = worker.answer()
    is_good = again == answer and left <= MAX_GROWTH_MIB
    figure = f"{taken:.0f} MiB free again after {elapsed_s:.2f} s" if left <= MAX_GROWTH_MIB else f"{left:.0f} MiB lost"
    return _verdict(is_good), f"{figure}; another process gives {'the same' if again == answer else 'other'} bytes"


class _Worker:
    """A process that runs batches until it is killed."""

    def __init__(self, kind: EngineKind, options: CheckOptions) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe(duplex=False)
        self._process = context.Process(target=_run_batches, args=(there, kind, options))
        self._process.start()
        there.close()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def answer(self) -> str:
        """Return a hash of its first answer. Raises EOFError where the process ends before it has one."""
        return str(self._here.recv())

    def kill(self) -> None:
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


def _run_batches(parent: Connection, kind: EngineKind, options: CheckOptions) -> None:
    engine = _opened(SMALL, kind, options)
    parent.send(_answer(engine))
    images, ours = _batch(engine, engine.max_batch), os.getppid()
    while os.getppid() == ours:  # else nobody is left to kill it
        engine.infer(images)


def opened_and_closed(kind: EngineKind, cycles: int, options: CheckOptions) -> tuple[State, str]:
    """Open a model, run it and close it, again and again, as a worker does."""
    answers = set()

    def cycle() -> None:
        with _opened(SMALL, kind, options) as engine:
            answers.add(_answer(engine))
        trim_heap()

    return _grown(cycle, cycles, answers)


def bare_sessions(cycles: int, options: CheckOptions) -> tuple[State, str]:
    """Open and close sessions of ONNX Runtime, with as many threads as our engine has lanes and nothing of ours: what
    grows is the library's."""
    model = zoo.converted(SMALL, PRECISION, options)
    image = np.zeros((BATCH, *model.spec.input_hw, model.spec.channels), np.uint8)
    gpu, told = gpus()[0], CudaOptions()

    def cycle() -> None:
        _run_in_threads(session_of(model.path, gpu, told, is_fused=True), {INPUT_NAME: image})
        trim_heap()

    _, figure = _grown(cycle, cycles, {""})
    return State.OK, figure.rpartition(";")[0]


def _run_in_threads(session: Any, inputs: dict[str, UInt8Array]) -> None:
    with ThreadPoolExecutor(LANES) as pool:
        for _ in pool.map(lambda _: session.run(None, inputs), range(LANES)):
            pass


def _grown(cycle: Callable[[], None], cycles: int, answers: set[str]) -> tuple[State, str]:
    """Return how much memory cycles have cost; `answers` must have one answer at the end."""
    for _ in range(WARM_UP):
        cycle()
    gpu, host, started = own_mib(), process_mib(), time.perf_counter()
    for _ in range(cycles):
        cycle()
    each_ms = (time.perf_counter() - started) / cycles * 1000
    gpu_mib, host_mib = own_mib() - gpu, process_mib() - host
    is_good = gpu_mib <= MAX_GROWTH_MIB and host_mib <= MAX_HOST_GROWTH_MIB and len(answers) == 1
    same = "always the same bytes" if len(answers) == 1 else f"{len(answers)} different answers"
    return _verdict(is_good), f"GPU {gpu_mib:+.0f} MiB, process {host_mib:+.0f} MiB; {each_ms:.0f} ms each; {same}"


def switched(kind: EngineKind, switches: int, options: CheckOptions) -> tuple[State, str]:
    """Have a worker process's context change between two models, as jobs of different models make it."""
    models = [zoo.converted(name, PRECISION, options) for name in (SMALL, OTHER)]
    refs = [
        ModelRef(name=m.name, sha256=m.sha256, path=str(m.path), task=m.spec.task.value, labels=m.spec.labels)
        for m in models
    ]
    answers: list[set[str]] = [set(), set()]
    server = EmbeddedServer(options.home / f"server-{kind}")
    server.open()
    with server:
        redis = Redis.from_url(server.url)
        settings = need.settings(options, kind, **Variant(SMALL, PRECISION).settings)
        context = Context("gpu-check", settings, JobStore(redis), WorkQueue(redis, settings.queue), engine=kind, gpu=0)

        def cycle() -> None:
            for ref, found in zip(refs, answers, strict=True):
                found.add(_answer(context.pipeline_for(ref).engine))

        try:
            state, figure = _grown(cycle, switches // 2, answers[0])
        finally:
            context.close_engine()
            redis.close()
    return (state if len(answers[1]) == 1 else State.FAILED), figure


def side_by_side_in_one_process(options: CheckOptions) -> tuple[State, str]:
    """Have engines of two models compute at once, in one process: each says what it says alone."""
    cases: list[tuple[str, EngineKind]] = [(SMALL, "cuda"), (OTHER, "cuda"), (SMALL, "tensorrt"), (OTHER, "tensorrt")]
    usable = [case for case in cases if _is_usable(case[1])]
    if not usable:
        raise NotRun("no engine can be used on the GPU")
    engines = [_opened(name, kind, options) for name, kind in usable]
    wanted = [_answer(engine) for engine in engines]
    found: list[set[str]] = [set() for _ in engines]
    end = time.perf_counter() + options.seconds

    def run(number: int) -> None:
        while time.perf_counter() < end:
            found[number].add(_answer(engines[number]))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for engine in engines:
        engine.close()
    is_good = all(answers == {answer} for answers, answer in zip(found, wanted, strict=True))
    what = ", ".join(f"{name} on {kind}" for name, kind in usable)
    return _verdict(is_good), f"{what}: {'the same bytes as alone' if is_good else 'other bytes than alone'}"


def _is_usable(kind: EngineKind) -> bool:
    try:
        need.engine(kind)
    except NotRun:
        return False
    return True


def foreign_plan(options: CheckOptions) -> Iterator[Row]:
    """Put plans of another GPU and another TensorRT, and a damaged one, where this GPU's would be."""
    found = need.gpu()
    cache = PlanCache(options.home / "foreign-plans")
    ours = _key(Gpu(found.name, found.compute_capability))
    others = {
        "a GPU of another name": _key(Gpu("NVIDIA GeForce GTX 1070", found.compute_capability)),
        "another compute capability": _key(Gpu(found.name, (6, 1))),
        "another TensorRT": _key(ours.gpu, version="8.5.3"),
    }
    for what, theirs in others.items():
        cache.get_or_build(theirs, lambda _learnt: (b"not to be loaded", b""), alone)
        _move(cache.folder, theirs, ours)
        yield Row(f"a plan of {what}", _verdict(cache.get(ours) is None), "refused", f"on {found.name}, by its sidecar")
    cache.get_or_build(ours, lambda _learnt: (b"a plan", b""), alone)
    (cache.folder / f"{ours.digest}.plan").write_bytes(b"a plaN")
    yield Row("a damaged plan", _verdict(cache.get(ours) is None), "refused", "by its sha256")


def _key(gpu: Gpu, *, version: str = "8.6.1") -> PlanKey:
    return PlanKey("0" * 64, "1:8:32", 3, "tensorrt", version, gpu)


def _move(folder: Path, theirs: PlanKey, ours: PlanKey) -> None:
    for suffix in (".plan", ".json"):
        (folder / f"{theirs.digest}{suffix}").replace(folder / f"{ours.digest}{suffix}")
