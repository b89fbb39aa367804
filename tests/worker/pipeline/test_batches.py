"""Batches fill while that costs nothing; an engine without work gets what there is."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from worker.pipeline.lines import wait
from worker.plain_engine import PlainEngine

from trtjob.engines.protocol import UInt8Array
from trtjob.worker.pipeline.batches import Batches
from trtjob.worker.pipeline.ring import Layout, Ring


class Bench:
    """Batches around an engine, and the slots that they have taken, batch by batch."""

    def __init__(self, batch: int, on_infer: Callable[[UInt8Array], None] = lambda _images: None) -> None:
        self.taken: list[list[int]] = []
        self.answered: list[int] = []
        self.undecoded: list[int] = []
        self.ring = Ring.create(Layout(1, 64, (8, 8, 3), (1, 6)))
        self.batches = Batches(
            PlainEngine(max_batch=batch, concurrency=4, on_infer=on_infer),
            batch,
            self.ring,
            on_answered=self.answered.extend,
            on_undecoded=self.undecoded.extend,
            on_failed=lambda _slot, _why: None,
            on_dropped=lambda _slots: None,
            on_batch=lambda: None,
        )

    def run(self, play: Callable[["Bench"], Coroutine[Any, Any, None]]) -> None:
        async def all_of_it() -> None:
            self.batches.attach()
            callers = [asyncio.create_task(self.batches.run(self.taken.append)) for _ in range(4)]
            async with asyncio.timeout(20):
                await play(self)
            for caller in callers:
                caller.cancel()
            await asyncio.wait(callers)

        asyncio.run(all_of_it())
        self.batches.close()
        self.ring.close()

    def ready(self, *slots: int) -> None:
        for slot in slots:
            self.batches.expect(-1)
            self.batches.add(slot)


async def until(condition: Callable[[], bool]) -> None:
    await asyncio.to_thread(wait, condition)


def test_with_nothing_on_its_way_an_image_goes_alone_at_once() -> None:
    async def play(bench: Bench) -> None:
        bench.batches.expect(1)
        bench.ready(5)
        await until(lambda: bench.answered == [5])

    bench = Bench(8)
    bench.run(play)
    assert bench.taken == [[5]]


def test_images_that_are_ready_go_together() -> None:
    async def play(bench: Bench) -> None:
        bench.batches.expect(7)
        bench.ready(*range(7))
        await until(lambda: len(bench.answered) == 7)

    bench = Bench(4)
    bench.run(play)
    assert sorted(map(len, bench.taken)) == [3, 4]


def test_while_the_engine_has_enough_to_do_a_batch_waits_until_it_is_full() -> None:
    release = threading.Event()

    def wait_for_release(_images: UInt8Array) -> None:
        release.wait(10)

    async def play(bench: Bench) -> None:
        bench.batches.expect(20)
        bench.ready(0, 1, 2, 3)
        bench.ready(4, 5, 6, 7)
        await until(lambda: len(bench.taken) == 2)
        bench.ready(8)
        await asyncio.sleep(0.1)
        assert len(bench.taken) == 2, "two calls are under way, and more images on theirs"
        bench.ready(9, 10, 11)
        await until(lambda: len(bench.taken) == 3)
        release.set()
        await until(lambda: len(bench.answered) == 12)

    bench = Bench(4, wait_for_release)
    bench.run(play)
    assert bench.taken[2] == [8, 9, 10, 11]


def test_an_engine_without_work_waits_no_longer_than_a_share_of_a_call() -> None:
    def take_a_while(_images: UInt8Array) -> None:
        time.sleep(0.6)

    async def play(bench: Bench) -> None:
        bench.batches.expect(10)
        bench.ready(0, 1, 2, 3)
        await until(lambda: len(bench.answered) == 4)
        start = time.monotonic()
        bench.ready(4)  # five more are on their way, and never come
        await until(lambda: len(bench.taken) == 2)
        waited_s = time.monotonic() - start
        assert 0.06 < waited_s < 0.5
        await until(lambda: len(bench.answered) == 5)

    Bench(4, take_a_while).run(play)


def test_an_engine_of_one_image_is_called_for_several_in_a_turn() -> None:
    calls: list[int] = []

    async def play(bench: Bench) -> None:
        bench.batches.expect(20)
        bench.ready(0)
        await until(lambda: bench.answered == [0])  # now it is known how long a call takes
        bench.ready(*range(1, 17))
        await until(lambda: len(bench.answered) == 17)

    bench = Bench(1, lambda images: calls.append(len(images)))
    bench.run(play)
    assert 1 < max(map(len, bench.taken)) <= 8
    assert calls == [1] * 17


def test_an_engine_of_one_image_that_takes_long_is_called_for_one() -> None:
    async def play(bench: Bench) -> None:
        bench.batches.expect(20)
        bench.ready(0)
        await until(lambda: bench.answered == [0])
        bench.ready(*range(1, 6))
        await until(lambda: len(bench.answered) == 6)

    bench = Bench(1, lambda _images: time.sleep(0.2))
    bench.run(play)
    assert bench.taken == [[slot] for slot in range(6)]


def test_a_batch_that_waits_goes_when_nothing_is_on_its_way_any_more() -> None:
    def take_a_while(_images: UInt8Array) -> None:
        time.sleep(1.0)

    async def play(bench: Bench) -> None:
        bench.batches.expect(9)
        bench.ready(0, 1, 2, 3)
        bench.ready(4, 5, 6, 7)
        await until(lambda: len(bench.taken) == 2)
        bench.batches.expect(1)
        bench.ready(8)
        await asyncio.sleep(0.02)
        assert len(bench.taken) == 2
        bench.batches.expect(-1)
        await until(lambda: len(bench.taken) == 3)

    Bench(4, take_a_while).run(play)


def test_slots_that_are_dropped_are_never_run() -> None:
    async def play(bench: Bench) -> None:
        bench.batches.expect(3)
        bench.batches.call_s = 10.0  # so that it waits
        bench.batches.expect(-2)
        bench.batches.add(1)
        bench.batches.add(2)
        await asyncio.sleep(0.02)
        bench.batches.drop({1, 2})
        bench.batches.expect(-1)
        bench.batches.expect(1)
        bench.ready(3)
        await until(lambda: bench.answered == [3])

    bench = Bench(8)
    bench.run(play)
    assert bench.taken == [[3]]


def test_the_longest_call_under_way_is_told() -> None:
    release = threading.Event()

    def wait_for_release(_images: UInt8Array) -> None:
        release.wait(10)

    async def play(bench: Bench) -> None:
        assert bench.batches.longest_s() == 0.0
        bench.batches.expect(2)
        bench.ready(0)
        await until(lambda: bench.batches.longest_s() > 0.1)
        bench.ready(1)
        assert bench.batches.longest_s() > 0.1
        release.set()
        await until(lambda: len(bench.answered) == 2)
        assert bench.batches.longest_s() == 0.0

    Bench(1, wait_for_release).run(play)
