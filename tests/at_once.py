"""Calls that begin in the same moment, each in a thread of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def all_at_once(calls: int, call: Callable[[int], T]) -> list[T]:
    """Call with 0, 1 and so on, all at once. Returns what the calls return; raises what one of them raises."""
    barrier = threading.Barrier(calls)

    def begin(number: int) -> T:
        barrier.wait()
        return call(number)

    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(begin, range(calls)))
