"""How a unit of work is told that it must be left, from whichever thread."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from trtjob.queue.leases import Done

OUTAGE = "outage"


class Interrupted(Exception):
    """The unit must be left: `stop` (the process ends), `lost` (another has it), `outage` (storage fails here, and
    others can go on) or the job's new state. kept: what is done of it, where a checkpoint keeps that."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kept: Done | None = None


@dataclass(slots=True)
class Interrupter:
    """Lets other threads, and signal handlers, interrupt a unit of work, or all of a process."""

    _lock: threading.RLock = field(default_factory=threading.RLock)
    _wakes: set[Callable[[], object]] = field(default_factory=set)
    _reason: str = ""

    def interrupt(self, reason: str) -> None:
        """Interrupt what is under way; the first reason counts."""
        with self._lock:
            self._reason = self._reason or reason
            for wake in self._wakes:
                wake()

    @contextmanager
    def listening(self, event: asyncio.Event) -> Iterator[None]:
        """Set `event`, in the running loop, when there is an interruption."""
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(event.set)

        with self._lock:
            self._wakes.add(wake)
            if self._reason:
                event.set()
        try:
            yield
        finally:
            with self._lock:
                self._wakes.discard(wake)

    def reset(self) -> None:
        with self._lock:
            self._reason = ""

    @property
    def reason(self) -> str:
        return self._reason

    def check(self) -> None:
        """Raise Interrupted where there is a reason."""
        if self._reason:
            raise Interrupted(self._reason)
