"""The wish to stop, which whoever waits for a job's end heeds."""

import asyncio
import signal
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Stop:
    """Whether the user has asked to stop: `event` is set by the first signal, whose number `signal` keeps."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.signal: signal.Signals | None = None

    def ask(self, number: signal.Signals = signal.SIGINT) -> None:
        """Ask to stop; in the event loop's thread."""
        self.signal = number
        self.event.set()

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 after Ctrl-C."""
        return 128 + (self.signal or signal.SIGINT)

    async def sleep(self, seconds: float) -> None:
        """Wait so long, or until the user asks to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.event.wait()
        except TimeoutError:
            pass

    async def unless_stopped(self, work: Awaitable[T]) -> T | None:
        """Return what `work` gives, None where the user asks to stop first: what runs in a thread is left alone."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(self.event.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            stopping.cancel()
            working.cancel()
