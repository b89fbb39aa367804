"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from trtjob.cli.ui.say import say

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the user has asked to stop: `event` is set by the first signal, whose number `signal` keeps."""

    def __init__(self) -> None:
        self.event = asyncio.Event()
        self.signal: signal.Signals | None = None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it: 130 after Ctrl-C."""
        return 128 + (self.signal or signal.SIGINT)

    @contextmanager
    def on_signals(self, notice: str) -> Iterator[None]:
        """Listen for the length of the block. notice: printed at the first signal; the second cancels the task."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def stop(number: signal.Signals) -> None:
            if self.signal is not None:
                task.cancel()
                return
            self.signal = number
            self.event.set()
            # The terminal has written ^C at the start of the line.
            say(*([""] if sys.stderr.isatty() else []), notice, err=True)

        for number in _SIGNALS:
            loop.add_signal_handler(number, stop, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

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


def run_until_stopped(main: Coroutine[Any, Any, T]) -> T | int:
    """Run a command's coroutine and return what it gives; 130 where a second Ctrl-C ended it."""
    try:
        return asyncio.run(main)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 128 + signal.SIGINT
