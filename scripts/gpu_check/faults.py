"""What goes wrong on a GPU, through our own port: its memory is full, a plan is foreign, the process is killed."""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from scripts.gpu_check import need
from scripts.gpu_check.echo import echo_lanes
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.wishes import SAMPLE, Wishes
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.tensorrt.cuda import Device, driver
from trtjob.engines.tensorrt.engine import alone
from trtjob.engines.tensorrt.plans import Gpu, PlanCache, PlanKey
from trtjob.errors import DeviceMemoryError

MIB = 1 << 20
BLOCK_BYTES = 1 << 30
CYCLES = 200
WARM_UP = 5  # cycles in which libraries and the context take what they keep
MAX_GROWTH_MIB = 8
KILLED_BUFFER_BYTES = 64 * MIB
KILLED_COPIES = 400  # of the buffer in a batch: about half a second, so that nearly all the time one is under way
KILLED_AFTER_S = 1.0
FREED_WITHIN_S = 30.0


def out_of_memory(_wishes: Wishes) -> Iterator[Row]:
    """Fill the GPU's memory, and go on."""
    found = need.gpu()
    device = Device(0)
    blocks: list[Any] = []
    message = ""
    while len(blocks) <= found.memory_bytes // BLOCK_BYTES:
        try:
            blocks.append(device.alloc(BLOCK_BYTES))
        except DeviceMemoryError as err:
            message = str(err)
            break
    state = State.OK if message else State.FAILED
    yield Row("a full GPU is a DeviceMemoryError", state, f"after {len(blocks)} GiB", message)
    for block in blocks:
        block.free()
    device.close()
    lanes = echo_lanes(MIB)
    image = np.full((1, MIB), 7, np.uint8)
    is_same = np.array_equal(lanes.run(image)["echo"], image)
    lanes.close()
    yield Row("the process goes on", State.OK if is_same else State.FAILED, "1 MiB there and back")


def foreign_plan(wishes: Wishes) -> Iterator[Row]:
    """Put plans of other GPUs, and a damaged one, where this GPU's would be."""
    found = need.gpu()
    cache = PlanCache(wishes.home / "foreign-plans")
    here = Gpu(found.name, found.compute_capability)
    ours = _key(here)
    for what, gpu in {
        "a plan of a GPU of another name": Gpu("NVIDIA GeForce GTX 1070", found.compute_capability),
        "a plan of another compute capability": Gpu(found.name, (7, 5)),
    }.items():
        theirs = _key(gpu)
        cache.get_or_build(theirs, lambda _learnt: (b"not to be loaded", b""), alone)
        for suffix in (".plan", ".json"):
            (cache.folder / f"{theirs.digest}{suffix}").replace(cache.folder / f"{ours.digest}{suffix}")
        is_refused = cache.get(ours) is None
        yield Row(
            f"{what} is refused", State.OK if is_refused else State.FAILED, note=f"on {found.name}, by its sidecar"
        )
    cache.get_or_build(ours, lambda _learnt: (b"a plan", b""), alone)
    (cache.folder / f"{ours.digest}.plan").write_bytes(b"a plaN")
    is_refused = cache.get(ours) is None
    yield Row("a damaged plan is refused", State.OK if is_refused else State.FAILED, note="by its sha256")


def _key(gpu: Gpu) -> PlanKey:
    return PlanKey("0" * 64, "1:8:32", 3, "tensorrt", "11.4.0", gpu)


def killed(wishes: Wishes) -> Iterator[Row]:
    """Kill a process whose lanes are full, and start another one."""
    need.gpu()
    device = Device(0)
    try:
        yield from _killed_and_started(wishes.home)
    finally:
        device.close()


def _killed_and_started(home: Path) -> Iterator[Row]:
    """To be called with a context: `free_mib` asks in it."""
    free_before = free_mib()
    with _Worker(home) as worker:
        answer, what = worker.answer()
        time.sleep(KILLED_AFTER_S)
        taken = free_before - free_mib()
        worker.kill()
        started = time.perf_counter()
        while free_before - free_mib() > MAX_GROWTH_MIB and time.perf_counter() < started + FREED_WITHIN_S:
            time.sleep(0.01)
        elapsed_s, left = time.perf_counter() - started, free_before - free_mib()
    yield Row("taken by the process", figure=f"{taken:.0f} MiB", note=f"{what}; killed by SIGKILL while it ran batches")
    is_free = left <= MAX_GROWTH_MIB
    yield Row(
        "its memory is free again",
        State.OK if is_free else State.FAILED,
        f"after {elapsed_s:.2f} s" if is_free else f"{left:.0f} MiB missing",
        f"{left:.0f} MiB less free than before",
    )
    started = time.perf_counter()
    with _Worker(home) as worker:
        again, _ = worker.answer()
        elapsed_s = time.perf_counter() - started
        worker.kill()
    state = State.OK if again == answer else State.FAILED
    yield Row("another process does the same work", state, f"first answer after {elapsed_s:.1f} s", "same bytes")


class _Worker:
    """A process that runs batches until it is killed; `answer` is a hash of what the first of them gave."""

    def __init__(self, home: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_run_batches, args=(there, home))
        self._process.start()
        there.close()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def answer(self) -> tuple[str, str]:
        """Raises EOFError where the process ends before it has an answer."""
        answer: tuple[str, str] = self._here.recv()
        return answer

    def kill(self) -> None:
        if self._process.is_alive() and self._process.pid:
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()


def _run_batches(parent: Connection, home: Path) -> None:
    run, images, what = _work(home)
    parent.send((hashlib.sha256(run(images)).hexdigest(), what))
    while True:
        run(images)


def _work(home: Path) -> tuple[Callable[[UInt8Array], bytes], UInt8Array, str]:
    """Return TensorRT's work where it runs, else copies through lanes of ours."""
    try:
        title = need.tensorrt(home)
    except NotRun:
        lanes = echo_lanes(KILLED_BUFFER_BYTES, copies=KILLED_COPIES)
        images = np.random.default_rng(4).integers(0, 256, (1, KILLED_BUFFER_BYTES), np.uint8)
        what = f"{KILLED_COPIES} copies of 64 MiB a batch on two lanes, without TensorRT"
        return lambda batch: lanes.run(batch)["echo"].tobytes(), images, what
    engine = need.opened(need.model(SAMPLE, home), home, "tensorrt")
    images = np.random.default_rng(4).integers(0, 256, (8, *engine.spec.input_hw, engine.spec.channels), np.uint8)
    return lambda batch: engine.infer(batch).scores.tobytes(), images, f"the sample model on {title}"


def cycles(wishes: Wishes) -> Iterator[Row]:
    """Open and close the lanes, and TensorRT's engine where it runs, again and again."""
    need.gpu()
    yield _grown("lanes: stream, page-locked and device memory", lambda: _use_lanes(8 * MIB))
    try:
        title = need.tensorrt(wishes.home)
    except NotRun as err:
        yield Row("TensorRT's engine with the sample model", State.NOT_RUN, note=str(err))
        return
    yield _grown(
        f"the engine of {title} with the sample model",
        lambda: need.opened(need.model(SAMPLE, wishes.home), wishes.home, "tensorrt").close(),
    )


def _use_lanes(size_bytes: int) -> None:
    lanes = echo_lanes(size_bytes)
    lanes.run(np.zeros((1, size_bytes), np.uint8))
    lanes.close()


def _grown(name: str, cycle: Callable[[], None]) -> Row:
    for _ in range(WARM_UP):
        cycle()
    before, started = _free_mib_anew(), time.perf_counter()
    for _ in range(CYCLES):
        cycle()
    each_ms = (time.perf_counter() - started) / CYCLES * 1000
    growth = before - _free_mib_anew()
    state = State.OK if growth <= MAX_GROWTH_MIB else State.FAILED
    return Row(name, state, f"{growth:.1f} MiB more in use after {CYCLES} cycles", f"{each_ms:.0f} ms a cycle")


def free_mib() -> float:
    """Return how much of the GPU's memory is free, for all processes together; a context must be current."""
    free, _total = driver().mem_get_info()
    return float(free / MIB)


def _free_mib_anew() -> float:
    """Return the same, in a context that is there for this only."""
    device = Device(0)
    try:
        return free_mib()
    finally:
        device.close()
