"""What a worker process holds: how it is interrupted, and which engine it has."""

import asyncio
import ctypes
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
from engines import tiny
from redis import Redis
from samples import MODEL
from worker.mean_model import write_model
from worker.plain_engine import PlainEngine

from trtjob.config import Settings
from trtjob.engines.tensorrt.builder import BuildCancelled, BuildOptions, build_plan
from trtjob.errors import EngineError, ModelError, TrtjobError
from trtjob.memory import usable_bytes
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.context import Context, current, set_current
from trtjob.worker.interrupter import Interrupted, Interrupter


def make_context(redis: Redis, settings: Settings) -> Context:
    return Context("worker", settings, JobStore(redis), WorkQueue(redis, settings.queue))


@pytest.fixture
def context(redis: Redis, settings: Settings) -> Iterator[Context]:
    context = make_context(redis, settings)
    yield context
    context.close_engine()


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_without_an_interruption_the_check_passes() -> None:
    interrupter = Interrupter()
    interrupter.check()
    assert interrupter.reason == ""


def test_the_check_raises_the_first_reason() -> None:
    interrupter = Interrupter()
    interrupter.interrupt("lost")
    interrupter.interrupt("stop")
    with pytest.raises(Interrupted) as caught:
        interrupter.check()
    assert caught.value.reason == interrupter.reason == "lost"


def test_a_reset_forgets_the_interruption() -> None:
    interrupter = Interrupter()
    interrupter.interrupt("lost")
    interrupter.reset()
    interrupter.check()


def test_an_interruption_from_another_thread_wakes_the_loop() -> None:
    interrupter = Interrupter()

    async def wait() -> None:
        event = asyncio.Event()
        with interrupter.listening(event):
            threading.Timer(0.01, interrupter.interrupt, ["cancelled"]).start()
            async with asyncio.timeout(10):
                await event.wait()

    asyncio.run(wait())
    assert interrupter.reason == "cancelled"


def test_an_interruption_before_the_loop_listens_is_heard() -> None:
    interrupter = Interrupter()
    interrupter.interrupt("stop")

    async def listen() -> bool:
        event = asyncio.Event()
        with interrupter.listening(event):
            return event.is_set()

    assert asyncio.run(listen())


def test_an_interruption_after_the_loop_has_ended_does_no_harm() -> None:
    interrupter = Interrupter()

    async def listen() -> None:
        with interrupter.listening(asyncio.Event()):
            pass

    asyncio.run(listen())
    interrupter.interrupt("stop")
    assert interrupter.reason == "stop"


@pytest.mark.timeout(20)
def test_a_signal_handler_may_interrupt_while_the_lock_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler runs in the main thread between any two steps of it, so also inside `interrupt`."""
    interrupter, handled = Interrupter(), list[int]()

    def stop(number: int, _frame: FrameType | None) -> None:
        handled.append(number)
        interrupter.interrupt("stop")

    def wake(*_: object) -> None:
        if not handled:
            signal.raise_signal(signal.SIGUSR1)

    async def listen() -> None:
        with monkeypatch.context() as patch, interrupter.listening(asyncio.Event()):
            patch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", wake)
            interrupter.interrupt("first")

    earlier = signal.signal(signal.SIGUSR1, stop)
    try:
        asyncio.run(listen())
    finally:
        signal.signal(signal.SIGUSR1, earlier)
    assert handled
    assert interrupter.reason == "first"


def test_a_request_to_stop_interrupts_and_stays(context: Context) -> None:
    context.request_stop()
    assert context.stopping
    assert context.interrupter.reason == "stop"


# -- engines -----------------------------------------------------------------------------------------------------------


def test_a_models_engine_is_opened_and_runs(context: Context, tmp_path: Path) -> None:
    engine = context.pipeline_for(write_model(tmp_path / "mean.onnx")).engine
    assert engine.infer(np.full((1, 8, 8, 3), 51, np.uint8)).scores.tolist() == [[pytest.approx(0.2), 0]]


def test_what_an_engine_runs_on_is_told_with_the_name_of_the_gpu(context: Context) -> None:
    context.gpu_name = "GPU 1"
    with PlainEngine() as engine:
        assert context.device_of(engine) == "GPU 1: test"


def test_what_the_cpu_runs_in_the_place_of_a_gpu_is_not_told_as_the_gpus(context: Context, tmp_path: Path) -> None:
    context.gpu_name = "GPU 1"
    engine = context.pipeline_for(write_model(tmp_path / "mean.onnx")).engine
    assert context.device_of(engine) == "CPU"


def test_an_engine_is_kept_for_the_next_unit_of_its_model(context: Context, tmp_path: Path) -> None:
    model = write_model(tmp_path / "mean.onnx")
    first = context.pipeline_for(model)
    (tmp_path / "mean.onnx").unlink()  # nobody looks at it again
    assert context.pipeline_for(model) is first


def test_what_decodes_changes_the_pipeline_and_leaves_the_engine(context: Context, tmp_path: Path) -> None:
    model = write_model(tmp_path / "mean.onnx")
    first = context.pipeline_for(model)
    warm = context.loaded_model
    second = context.pipeline_for(model, decode="gpu")
    assert second is not first
    assert second.engine is first.engine
    assert context.loaded_model != warm
    assert context.pipeline_for(model, decode="gpu") is second
    assert context.pipeline_for(model).engine is first.engine
    assert context.loaded_model == warm


def test_another_models_engine_takes_the_place_of_the_first(context: Context, tmp_path: Path) -> None:
    first = context.pipeline_for(write_model(tmp_path / "one.onnx")).engine
    second = context.pipeline_for(write_model(tmp_path / "two.onnx", factor=0.5)).engine
    assert second.infer(np.full((1, 8, 8, 3), 51, np.uint8)).scores[0, 0] == pytest.approx(0.1)
    with pytest.raises(EngineError, match="closed"):
        first.infer(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.fixture
def on_a_gpu(context: Context) -> Context:
    """A worker process that was given a GPU which is not there, as happens when a driver has gone."""
    context.engine_kind, context.gpu = "tensorrt", 99
    return context


def test_a_model_that_no_engine_on_the_gpu_can_run_is_run_by_the_cpu(on_a_gpu: Context, tmp_path: Path) -> None:
    engine = on_a_gpu.pipeline_for(write_model(tmp_path / "mean.onnx")).engine
    assert engine.name == "cpu"


def test_who_asks_for_tensorrt_gets_no_other_engine(on_a_gpu: Context, tmp_path: Path) -> None:
    on_a_gpu.settings = on_a_gpu.settings.model_copy(update={"engine": "tensorrt"})
    with pytest.raises(TrtjobError, match=r"pycuda|CUDA"):
        on_a_gpu.pipeline_for(write_model(tmp_path / "mean.onnx"))


# -- one process of many -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_process_flies_and_the_others_wait(context: Context, redis: Redis) -> None:
    other = make_context(redis, context.settings)
    config: list[str] = []
    is_flying = threading.Event()

    def wait_for_it() -> None:
        is_flying.wait(10)
        with other.single_flight("plan"):
            config.append("other")

    waiting = threading.Thread(target=wait_for_it)
    waiting.start()
    with context.single_flight("plan"):
        is_flying.set()
        while not other.steps:  # who waits is not taken for one that stands still
            time.sleep(0.05)
        config.append("first")
    waiting.join(10)
    assert config == ["first", "other"]


def test_who_waits_can_be_interrupted(context: Context, redis: Redis) -> None:
    other = make_context(redis, context.settings)
    other.request_stop()
    with context.single_flight("plan"), pytest.raises(Interrupted, match="stop"), other.single_flight("plan"):
        pass


def test_who_waits_leaves_when_its_own_unit_is_lost(context: Context, redis: Redis) -> None:
    other, interrupter = make_context(redis, context.settings), Interrupter()
    interrupter.interrupt("lost")
    with (
        context.single_flight("plan"),
        pytest.raises(Interrupted, match="lost"),
        other.single_flight("plan", interrupter),
    ):
        pass


@pytest.mark.extra
@pytest.mark.parametrize("reason", ["stop", "cancelled"])
def test_a_build_ends_when_the_process_must_stop_or_its_job_is_cancelled(
    context: Context, tmp_path: Path, reason: str
) -> None:
    interrupter = Interrupter()
    model = tiny.write_model(tmp_path / "tiny.onnx")
    assert build_plan(model, BuildOptions(), on_progress=context.on_build(interrupter)).plan
    assert re.match(r"TensorRT plan for this GPU, \d+ s: ", context.doing)
    (context.interrupter if reason == "stop" else interrupter).interrupt(reason)
    with pytest.raises(BuildCancelled):
        build_plan(model, BuildOptions(), on_progress=context.on_build(interrupter))
    assert context.steps > 0


def test_different_flights_do_not_wait_for_each_other(context: Context) -> None:
    with context.single_flight("one plan"), context.single_flight("another"):
        pass


def test_a_model_file_that_is_gone_is_named(context: Context) -> None:
    with pytest.raises(ModelError, match=r"model 'tiny' cannot be read: /models/tiny.onnx: No such file"):
        context.pipeline_for(MODEL)


def test_a_model_file_that_has_changed_is_refused(context: Context, tmp_path: Path) -> None:
    model = write_model(tmp_path / "mean.onnx")
    write_model(tmp_path / "mean.onnx", factor=3)
    with pytest.raises(ModelError, match="is not the model 'mean' that the job was submitted with"):
        context.pipeline_for(model)
    assert context.engine is None


def test_closing_frees_the_engine_and_may_be_done_twice(context: Context) -> None:
    engine = PlainEngine()
    context.adopt_engine(MODEL, engine)
    context.close_engine()
    context.close_engine()
    assert engine.is_closed
    assert context.engine is None


def test_memory_that_an_engine_has_freed_is_handed_back(context: Context) -> None:
    engine = HeapEngine(64 << 20)
    context.adopt_engine(MODEL, engine)
    before = own_rss_bytes()
    context.close_engine()
    assert before - own_rss_bytes() > 48 << 20


class HeapEngine(PlainEngine):
    """Has small blocks of the C library's heap, with one behind them that stays."""

    _BLOCK_BYTES = 64 << 10

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self._libc = ctypes.CDLL(None)
        self._libc.malloc.restype = ctypes.c_void_p
        self._blocks = [self._block() for _ in range(size_bytes // self._BLOCK_BYTES + 1)]

    def _block(self) -> ctypes.c_void_p:
        at = self._libc.malloc(ctypes.c_size_t(self._BLOCK_BYTES))
        ctypes.memset(at, 1, self._BLOCK_BYTES)
        return ctypes.c_void_p(at)

    def close(self) -> None:
        super().close()
        for block in self._blocks[:-1]:
            self._libc.free(block)
        self._blocks = []


def own_rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_an_engine_that_is_taken_over_serves_its_model(context: Context) -> None:
    engine = PlainEngine()
    context.adopt_engine(MODEL, engine)
    assert context.pipeline_for(MODEL).engine is engine


@pytest.mark.parametrize(
    ("wished", "processes", "batch", "slots"),
    [
        pytest.param({"threads": 3}, 3, 4, 2 * 4 + 6 * 3, id="by-itself"),
        pytest.param({"image_processes": 1, "batch": 50}, 1, 50, 2 * 50 + 6, id="room-for-the-batches-of-all-callers"),
        pytest.param({"threads": 2, "batch": 2, "window": 5}, 2, 2, 5, id="as-set"),
    ],
)
def test_the_pipelines_limits_follow_settings_and_engine(
    redis: Redis, tmp_path: Path, wished: dict[str, int], processes: int, batch: int, slots: int
) -> None:
    context = make_context(redis, Settings.model_validate({"home": tmp_path, **wished}))
    limits = context.adopt_engine(MODEL, PlainEngine(max_batch=4, concurrency=2)).limits
    context.close_engine()
    assert (limits.processes, limits.batch, limits.slots) == (processes, batch, slots)


def test_worker_processes_of_one_machine_share_its_memory_for_large_images(redis: Redis, settings: Settings) -> None:
    store, queue = JobStore(redis), WorkQueue(redis, settings.queue)
    rooms = []
    for processes in 1, 2:
        context = Context("worker", settings, store, queue, worker_processes=processes)
        rooms.append(context.adopt_engine(MODEL, PlainEngine()).limits.large_bytes)
        context.close_engine()
    assert rooms == [usable_bytes() // 8, usable_bytes() // 16]


# -- the process's own -------------------------------------------------------------------------------------------------


def test_a_task_outside_a_worker_process_is_told_how_to_start_one() -> None:
    with pytest.raises(RuntimeError, match="trtjob worker"):
        current()


def test_a_task_finds_its_process_context(context: Context) -> None:
    set_current(context)
    assert current() is context
