"""Wait for a coroutine where an event loop may be running already, as in a notebook."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

from trtjob.api.stop import Stop

T = TypeVar("T")


def waited_for(main: Callable[[Stop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine in an event loop of a thread's own. Returns what it gives.

    Ctrl-C asks it to stop, and is raised here when it has; the second ends it at once.

    >>> async def answer(stop: Stop) -> int:
    ...     return 42
    >>> waited_for(answer)
    42
    """
    begun: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object], Stop]] = Future()

    async def run() -> T:
        stop, task = Stop(), asyncio.current_task()
        assert task is not None
        begun.set_result((asyncio.get_running_loop(), task.cancel, stop))
        return await main(stop)

    with ThreadPoolExecutor(1, "trtjob") as pool:
        running = pool.submit(copy_context().run, asyncio.run, run())
        try:
            return running.result()
        except KeyboardInterrupt:
            loop, cancel, stop = begun.result()
            loop.call_soon_threadsafe(stop.ask)
            try:
                running.exception()
            except KeyboardInterrupt:
                loop.call_soon_threadsafe(cancel)
            raise
