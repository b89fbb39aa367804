"""Wait for a coroutine where an event loop may be running already, as in a notebook."""

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Any, TypeVar

from trtjob.api.stop import Stop

T = TypeVar("T")

HEARD_WITHIN_S = 0.25
"""How often the waiting thread looks up: a signal that meets it just before it begins to wait does not end the wait."""


def waited_for(main: Callable[[Stop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop of a thread's own. Returns what it gives.

    Ctrl-C asks it to stop, and is raised here when it has; the second ends it at once.

    >>> async def answer(stop: Stop) -> int:
    ...     return 42
    >>> waited_for(answer)
    42
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object], Stop]] = Future()
    interrupts = 0

    async def run() -> T:
        stop, task = Stop(), asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task.cancel, stop))
        return await main(stop)

    def ask() -> None:
        nonlocal interrupts
        interrupts += 1
        is_first = interrupts == 1

        def tell(began: "Future[tuple[asyncio.AbstractEventLoop, Callable[[], object], Stop]]") -> None:
            loop, cancel, stop = began.result()
            with suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(stop.ask if is_first else cancel)

        begun.add_done_callback(tell)

    with _interrupts_call(ask), ThreadPoolExecutor(1, "trtjob") as pool:
        running = pool.submit(copy_context().run, asyncio.run, run())
        while not wait([running], HEARD_WITHIN_S).done:
            pass
    if interrupts:
        raise KeyboardInterrupt
    return running.result()


@contextmanager
def _interrupts_call(ask: Callable[[], None]) -> Iterator[None]:
    """Have Ctrl-C call something, wherever it meets this thread, and raise nothing; unless it is ignored here."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: ask())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
