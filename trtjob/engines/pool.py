"""The lanes of an engine that nobody uses now: callers take one, give it back, and at the end none is left out."""

import threading
from collections import deque
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
        self._free: deque[Lane] = deque()
        self._news = threading.Condition()
        self._is_withdrawing = False  # whoever does comes first: among busy callers it would wait for very long
        self._is_closed = False
        self._is_over = False
        self._why: EngineError | None = None

    @contextmanager
    def taken(self) -> Iterator[Lane]:
        """Have a lane for the length of a block, waiting for one. Raises EngineError where the engine is closed."""
        self.check()
        with self._news:
            self._news.wait_for(lambda: self._is_over or (self._free and not self._is_withdrawing))
            if self._is_over:
                raise self._error()
            lane = self._free.popleft()
        try:
            yield lane
        finally:
            self.offer([lane])

    def offer(self, lanes: Iterable[Lane]) -> None:
        """Let callers have lanes that are new, or free again."""
        with self._news:
            self._free.extend(lanes)
            self._news.notify_all()

    def withdraw(self, count: int) -> None:
        """Wait until so many lanes are back, and keep them: with all of them, nobody uses one any more."""
        with self._news:
            self._is_withdrawing = True
            self._news.wait_for(lambda: len(self._free) >= count)
            for _ in range(count):
                self._free.popleft()
            self._is_withdrawing = False
            self._news.notify_all()

    def refuse(self) -> None:
        """Refuse whoever comes from now on; those who wait for a lane may still get one."""
        self._is_closed = True

    def end(self, why: EngineError | None = None) -> None:
        """Send away those who wait for a lane, and all who come: all lanes are withdrawn, for good.

        why: what they are told where the engine was not closed but has failed.
        """
        with self._news:
            self._why = why
            self._is_closed = self._is_over = True
            self._news.notify_all()

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    def check(self) -> None:
        """Raise EngineError where newcomers are refused."""
        if self._is_closed:
            raise self._error()

    def _error(self) -> EngineError:
        return EngineError(_CLOSED) if self._why is None else type(self._why)(str(self._why))
