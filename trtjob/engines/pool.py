"""The lanes of an engine that nobody uses now: callers take one, give it back, and at the end none is left out."""

import queue
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from trtjob.errors import EngineError

RUNS = 2  # at once on a GPU: one computes while the other's batch is copied
LANES = 4  # two more callers copy meanwhile: at a GPU's speed, that takes a core as long as the GPU computes

Lane = TypeVar("Lane")

_CLOSED = "the engine is closed"


class LanePool(Generic[Lane]):
    """Free lanes, for any number of callers, and for one thread that offers, withdraws and closes."""

    def __init__(self) -> None:
        self._free: queue.SimpleQueue[Lane | None] = queue.SimpleQueue()  # None: there will be no more
        self._is_closed = False
        self._why: EngineError | None = None

    @contextmanager
    def taken(self) -> Iterator[Lane]:
        """Have a lane for the length of a block, waiting for one. Raises EngineError where the engine is closed."""
        self.check()
        lane = self._free.get()
        if lane is None:
            self._free.put(None)  # for whoever else waits
            raise self._error()
        try:
            yield lane
        finally:
            self._free.put(lane)

    def offer(self, lanes: Iterable[Lane]) -> None:
        for lane in lanes:
            self._free.put(lane)

    def withdraw(self, count: int) -> None:
        """Wait until so many lanes are back, and keep them: with all of them, nobody uses one any more."""
        for _ in range(count):
            self._free.get()

    def refuse(self) -> None:
        """Refuse whoever comes from now on; those who wait for a lane may still get one."""
        self._is_closed = True

    def end(self, why: EngineError | None = None) -> None:
        """Send away those who wait for a lane, and all who come: all lanes are withdrawn, for good.

        why: what they are told where the engine was not closed but has failed.
        """
        self._why = why
        self._is_closed = True
        self._free.put(None)

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def check(self) -> None:
        """Raise EngineError where newcomers are refused."""
        if self._is_closed:
            raise self._error()

    def _error(self) -> EngineError:
        return EngineError(_CLOSED) if self._why is None else type(self._why)(str(self._why))
