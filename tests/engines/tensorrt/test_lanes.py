import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from engines.tensorrt.fake_lane import FakeLane

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.engines.tensorrt.lanes import Lane, Lanes
from trtjob.errors import DeviceLostError, EngineError


def images(count: int, value: int) -> list[UInt8Array]:
    return [np.full((2, 2, 3), value, np.uint8) for _ in range(count)]


def answer(lanes: Lanes, batch: list[UInt8Array], name: str = "scores") -> list[list[float]]:
    found: list[FloatArray] = [np.empty(1, np.float32) for _ in batch]
    lanes.run(batch, {name: found})
    return [values.tolist() for values in found]


def waited_for(event: threading.Event) -> None:
    assert event.wait(10)


@contextmanager
def opened(*lanes: FakeLane) -> Iterator[Lanes]:
    notes = lanes[0].notes
    running = Lanes(lambda: lanes, lambda: notes.append("device closed"), runs=2)
    try:
        yield running
    finally:
        running.close()


def test_a_batch_gives_its_own_rows_and_no_more() -> None:
    with opened(FakeLane("a", [])) as lanes:
        assert answer(lanes, images(3, 7)) == [[7.0], [7.0], [7.0]]


def test_only_the_outputs_that_are_wanted_are_brought() -> None:
    lane = FakeLane("a", [])
    with opened(lane) as lanes:
        assert answer(lanes, images(1, 3), "largest") == [[3.0]]
        assert np.isnan(lane.outputs["scores"]).all()
        assert answer(lanes, images(1, 4), "scores") == [[4.0]]
        assert np.isnan(lane.outputs["largest"]).all()


def test_images_are_taken_from_wherever_they_lie() -> None:
    turned = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)[::-1, :, ::-1]
    with opened(FakeLane("a", [])) as lanes:
        assert answer(lanes, list(turned), "largest") == [[35.0], [23.0], [11.0]]


def test_images_that_a_lane_reaches_are_not_copied() -> None:
    lane, batch = FakeLane("a", []), images(2, 6)
    found: list[FloatArray] = [np.empty(1, np.float32) for _ in batch]
    lane.reached += batch
    with opened(lane) as lanes:
        lanes.run(batch, {"scores": found})
    assert lane.launched is batch
    assert [values.tolist() for values in found] == [[6.0], [6.0]]


def test_an_errand_is_done_in_the_gpus_thread_when_no_batch_is_under_way() -> None:
    lane = FakeLane("a", [])
    lane.computing.set()
    threads: list[int] = []

    def errand() -> None:
        threads.append(threading.get_ident())
        lane.notes.append("errand")

    with opened(lane) as lanes, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(answer, lanes, images(1, 9))
        while "a launch 1" not in lane.notes:
            pass
        lanes.do(errand)
        assert waiting.result(10) == [[9.0]]
    assert lane.notes[:3] == ["a launch 1", "a wait", "errand"]
    assert set(threads) == lane.threads


def test_an_errand_that_fails_raises_for_its_caller_alone() -> None:
    def fail() -> None:
        raise EngineError("no")

    with opened(FakeLane("a", [])) as lanes:
        with pytest.raises(EngineError, match="no"):
            lanes.do(fail)
        assert answer(lanes, images(1, 5)) == [[5.0]]
        lanes.close()
        with pytest.raises(EngineError, match="the engine is closed"):
            lanes.do(fail)


def test_an_answer_is_not_overwritten_by_the_next_batch() -> None:
    with opened(FakeLane("a", [])) as lanes:
        first = answer(lanes, images(1, 1))
        answer(lanes, images(1, 2))
        assert first == [[1.0]]


def test_the_next_batch_is_launched_before_the_first_is_done() -> None:
    notes: list[str] = []
    first, second = FakeLane("a", notes), FakeLane("b", notes)
    launched = threading.Event()
    second.before_launch = launched.set
    started = threading.Event()
    first.before_launch = lambda: waited_for(started)
    with opened(first, second) as lanes, ThreadPoolExecutor(2) as pool:
        waited = [pool.submit(answer, lanes, images(1, value)) for value in (1, 2)]
        # Both have filled their lane and are in the queue before the GPU's thread comes to the second.
        while lanes.waiting < 1:
            pass
        started.set()
        assert [each.result(10) for each in waited] == [[[1.0]], [[2.0]]]
    assert launched.is_set()
    assert notes[:2] == ["a launch 1", "b launch 1"]


def test_no_more_lanes_compute_at_once_than_may() -> None:
    notes: list[str] = []
    lanes = [FakeLane(name, notes) for name in "abc"]
    started = threading.Event()
    lanes[0].before_launch = lambda: waited_for(started)
    with opened(*lanes) as running, ThreadPoolExecutor(3) as pool:
        waited = [pool.submit(answer, running, images(1, value)) for value in (1, 2, 3)]
        while running.waiting < 2:  # the first is being launched, the others wait
            pass
        started.set()
        assert [each.result(10) for each in waited] == [[[1.0]], [[2.0]], [[3.0]]]
    first, second, freed, third = (note.split()[1] for note in notes[:4])
    assert (first, second, freed, third) == ("launch", "launch", "wait", "launch")


def test_a_batch_that_comes_while_another_computes_is_launched_at_once() -> None:
    notes: list[str] = []
    first, second = FakeLane("a", notes), FakeLane("b", notes)
    launched = threading.Event()
    first.computing.set()
    second.before_launch = launched.set
    with opened(first, second) as lanes, ThreadPoolExecutor(2) as pool:
        one = pool.submit(answer, lanes, images(1, 1))
        while "a launch 1" not in notes:
            pass
        threading.Event().wait(0.02)  # the GPU's thread has nothing to do but wait for the first
        two = pool.submit(answer, lanes, images(1, 2))
        assert launched.wait(10)
        first.computing.clear()
        assert [each.result(10) for each in (one, two)] == [[[1.0]], [[2.0]]]
    assert notes.index("b launch 1") < notes.index("a wait")


def test_many_callers_each_get_their_own_answer() -> None:
    with opened(FakeLane("a", []), FakeLane("b", [])) as lanes, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda value: answer(lanes, images(1 + value % 4, value)), range(200)))
    assert answers == [[[float(value)]] * (1 + value % 4) for value in range(200)]


def test_the_gpu_is_used_from_one_thread_only_and_not_from_the_callers() -> None:
    lane = FakeLane("a", [])
    with opened(lane) as lanes:
        answer(lanes, images(1, 1))
    assert len(lane.threads) == 1
    assert threading.get_ident() not in lane.threads


@pytest.mark.parametrize("step", ["before_launch", "before_wait"])
def test_a_batch_that_fails_raises_for_its_caller_alone(step: str) -> None:
    lane = FakeLane("a", [])

    def fail() -> None:
        raise DeviceLostError("an illegal memory access was encountered")

    with opened(lane) as lanes:
        setattr(lane, step, fail)
        with pytest.raises(DeviceLostError, match="illegal memory access"):
            answer(lanes, images(1, 1))
        setattr(lane, step, lambda: None)
        assert answer(lanes, images(1, 5)) == [[5.0]]


def test_closing_finishes_what_is_under_way_then_frees_in_order() -> None:
    notes: list[str] = []
    first, second = FakeLane("a", notes), FakeLane("b", notes)
    hold = threading.Event()
    first.before_wait = lambda: waited_for(hold)
    with ThreadPoolExecutor(2) as pool, opened(first, second) as lanes:
        waiting = pool.submit(answer, lanes, images(1, 9))
        while "a launch 1" not in notes:
            pass
        closing = pool.submit(lanes.close)
        hold.set()
        closing.result(10)
        assert waiting.result(10) == [[9.0]]
    assert notes[-3:] == ["a close", "b close", "device closed"]


def test_callers_that_copy_are_waited_for_before_lanes_are_freed() -> None:
    for _ in range(100):
        lanes = Lanes(lambda: [FakeLane(name, []) for name in "abcd"], lambda: None, runs=2)
        problems: list[str] = []
        started = threading.Event()

        def run(lanes: Lanes = lanes, problems: list[str] = problems, started: threading.Event = started) -> None:
            while True:
                try:
                    answer(lanes, images(4, 1))
                    started.set()
                except EngineError as err:
                    problems.append(str(err))
                    return
                except Exception as err:  # noqa: BLE001 - whatever a freed lane leads to
                    problems.append(repr(err))
                    return

        callers = [threading.Thread(target=run) for _ in range(6)]
        for caller in callers:
            caller.start()
        assert started.wait(10)
        lanes.close()
        for caller in callers:
            caller.join(10)
        assert problems == ["the engine is closed"] * 6


def test_a_closed_engine_says_so_and_closes_twice() -> None:
    with opened(FakeLane("a", [])) as lanes:
        lanes.close()
        with pytest.raises(EngineError, match="the engine is closed"):
            answer(lanes, images(1, 1))


def test_where_nothing_can_be_given_back_either_the_first_reason_is_told() -> None:
    def fail() -> list[Lane]:
        raise DeviceLostError("an illegal memory access was encountered")

    def fail_again() -> None:
        raise DeviceLostError("the context is destroyed")

    with pytest.raises(DeviceLostError, match="illegal memory access"):
        Lanes(fail, fail_again, runs=2)


def test_lanes_that_cannot_be_opened_raise_and_leave_no_thread() -> None:
    def fail() -> list[Lane]:
        raise EngineError("no GPU")

    notes: list[str] = []
    with pytest.raises(EngineError, match="no GPU"):
        Lanes(fail, lambda: notes.append("device closed"), runs=2)
    assert notes == ["device closed"]
    assert "trtjob-gpu" not in {thread.name for thread in threading.enumerate()}
