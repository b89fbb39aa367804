"""Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once."""

import asyncio
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from trtjob.api.stop import Stop
from trtjob.cli.ui.say import say

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopped_by_signals(notice: str) -> Iterator[Stop]:
    """Listen for the length of the block. notice: printed at the first signal; the second cancels the task."""
    loop, task, stop = asyncio.get_running_loop(), asyncio.current_task(), Stop()
    assert task is not None

    def on_signal(number: signal.Signals) -> None:
        if stop.signal is not None:
            task.cancel()
            return
        stop.ask(number)
        # The terminal has written ^C at the start of the line.
        say(*([""] if sys.stderr.isatty() else []), notice, err=True)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def run_until_stopped(main: Coroutine[Any, Any, T]) -> T | int:
    """Run a command's coroutine and return what it gives; 130 where a second Ctrl-C ended it."""
    try:
        return asyncio.run(main)
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 128 + signal.SIGINT
