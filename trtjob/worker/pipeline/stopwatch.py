"""Where the time of an image goes, by stage."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Protocol


class Watch(Protocol):
    """Who wants to know how long each stage takes."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Count a block's seconds among a stage's."""
        ...


class Stopwatch:
    """Seconds of work by stage, added up over threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._busy_s: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self._busy_s[name] += elapsed

    def busy_s(self) -> dict[str, float]:
        with self._lock:
            return dict(self._busy_s)
