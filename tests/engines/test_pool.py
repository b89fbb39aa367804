import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from trtjob.engines.pool import LanePool
from trtjob.errors import DeviceLostError, EngineError


def test_a_lane_is_one_callers_at_a_time() -> None:
    pool: LanePool[list[int]] = LanePool()
    pool.offer([[], []])
    inside: set[int] = set()
    lock = threading.Lock()

    def use(_number: int) -> None:
        with pool.taken() as lane:
            with lock:
                assert id(lane) not in inside
                inside.add(id(lane))
            lane.append(1)
            with lock:
                inside.remove(id(lane))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(500)))
    with pool.taken() as one, pool.taken() as two:
        assert len(one) + len(two) == 500


def test_a_caller_that_fails_gives_its_lane_back() -> None:
    pool: LanePool[str] = LanePool()
    pool.offer(["a"])
    with pytest.raises(ZeroDivisionError), pool.taken():
        raise ZeroDivisionError
    with pool.taken() as lane:
        assert lane == "a"


def test_with_all_lanes_withdrawn_nobody_uses_one_however_many_come_and_are_refused() -> None:
    """Who is refused must not pass for a lane that came back: it would be freed while another still uses it."""
    for _ in range(200):
        pool: LanePool[dict[str, bool]] = LanePool()
        lanes = [{"in use": False} for _ in range(4)]
        pool.offer(lanes)
        started = threading.Barrier(6)
        told: list[str] = []

        def come(pool: LanePool[dict[str, bool]] = pool, started: threading.Barrier = started) -> None:
            started.wait()
            while True:
                try:
                    with pool.taken() as lane:
                        lane["in use"] = True
                        lane["in use"] = False
                except EngineError as err:
                    told.append(str(err))  # noqa: B023 - joined below, before the next round
                    return

        callers = [threading.Thread(target=come) for _ in range(5)]
        for caller in callers:
            caller.start()
        started.wait()
        pool.refuse()
        pool.withdraw(len(lanes))
        assert not any(lane["in use"] for lane in lanes)
        pool.end()
        for caller in callers:
            caller.join(10)
        assert told == ["the engine is closed"] * 5


def test_whoever_withdraws_comes_before_busy_callers() -> None:
    pool: LanePool[int] = LanePool()
    lanes = range(4)
    pool.offer(lanes)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            with pool.taken():
                time.sleep(0.001)

    callers = [threading.Thread(target=work) for _ in range(5)]
    for caller in callers:
        caller.start()
    started = time.monotonic()
    for _ in range(50):
        pool.withdraw(len(lanes))
        pool.offer(lanes)
    took_s = time.monotonic() - started
    is_over.set()
    for caller in callers:
        caller.join(10)
    assert took_s < 2


def test_where_an_engine_has_failed_all_are_told_how() -> None:
    pool: LanePool[str] = LanePool()
    pool.end(DeviceLostError("the GPU's memory is full"))
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="the GPU's memory is full"), pool.taken():
            pass


def test_who_waits_for_a_lane_is_sent_away_at_the_end() -> None:
    pool: LanePool[str] = LanePool()

    def wait() -> str:
        with pool.taken() as lane:
            return lane

    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(wait) for _ in range(2)]
        pool.end()
        for answer in waiting:
            with pytest.raises(EngineError, match="the engine is closed"):
                answer.result(10)
