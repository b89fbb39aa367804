"""Waiting in an event loop for what has no future of its own: a call that may never return, and pipes."""

import asyncio
import selectors
import threading
from collections.abc import Callable
from contextlib import suppress

from trtjob.errors import StorageError


async def answers_within(call: Callable[[], object], seconds: float) -> bool:
    """Return whether a call that may never return does so in time, and raises nothing of the place."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bool] = loop.create_future()

    def tell(is_well: bool) -> None:
        if not answer.done():
            answer.set_result(is_well)

    def ask() -> None:
        try:
            call()
        except (StorageError, OSError):
            is_well = False
        else:
            is_well = True
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, is_well)

    threading.Thread(target=ask, name="trtjob-probe", daemon=True).start()  # nobody waits for it at the end
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        return False


async def until_readable(selector: selectors.BaseSelector) -> None:
    """Wait until one of a selector's files can be read."""
    loop = asyncio.get_running_loop()
    news, fd = loop.create_future(), selector.fileno()  # type: ignore[attr-defined]
    loop.add_reader(fd, news.set_result, None)
    try:
        await news
    finally:
        loop.remove_reader(fd)
