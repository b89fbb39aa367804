"""Waiting for a coroutine, whatever runs in the caller's thread."""

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest

from trtjob.api.in_thread import waited_for
from trtjob.api.stop import Stop
from trtjob.errors import JobError


@pytest.fixture(autouse=True)
def _as_python_has_it() -> Iterator[None]:
    """Whatever other tests have made of Ctrl-C in this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def twice_two(_stop: Stop) -> int:
    await asyncio.sleep(0)
    return 4


def test_it_waits_also_where_an_event_loop_runs_as_in_a_notebook() -> None:
    async def cell() -> int:
        return waited_for(twice_two)

    assert asyncio.run(cell()) == 4


def test_what_it_raises_comes_out() -> None:
    async def fail(_stop: Stop) -> None:
        raise JobError("no", job_id="a")

    with pytest.raises(JobError, match=r"^no$"):
        waited_for(fail)


def interrupt() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


def test_an_interrupt_asks_it_to_stop_and_is_raised_when_it_has() -> None:
    done: list[str] = []

    async def work(stop: Stop) -> None:
        asyncio.get_running_loop().call_later(0.05, interrupt)
        await stop.event.wait()
        done.append("in order")

    with pytest.raises(KeyboardInterrupt):
        waited_for(work)
    assert done == ["in order"]


def test_an_interrupt_while_it_begins_is_heard() -> None:
    async def work(stop: Stop) -> None:
        interrupt()
        await stop.event.wait()

    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            waited_for(work)


def test_a_second_interrupt_ends_it() -> None:
    async def work(stop: Stop) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, interrupt)
        await stop.event.wait()
        interrupt()
        await asyncio.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        waited_for(work)


def test_who_sees_to_interrupts_does_so_again_afterwards() -> None:
    heard: list[int] = []
    own = lambda number, _frame: heard.append(number)  # noqa: E731
    signal.signal(signal.SIGINT, own)
    assert waited_for(twice_two) == 4
    interrupt()
    assert (signal.getsignal(signal.SIGINT), heard) == (own, [signal.SIGINT])
