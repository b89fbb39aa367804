"""Ask a place for many objects at once, and use the answers in order: most of the time of a request is waiting."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

REQUESTS = 8

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def prefetch_map(ask: Callable[[Item], Answer], items: Iterable[Item], *, requests: int = REQUESTS) -> Iterator[Answer]:
    """Yield `ask(item)` of each item, in their order; `requests` calls run at a time, each in a thread.

    At most twice as many items are taken as calls run, and an answer that has come is not kept waiting for them. What
    `ask` raises comes out in its turn; the calls that have not begun by then are not made.

    >>> list(prefetch_map(len, ["a", "bb", "ccc"]))
    [1, 2, 3]
    """
    coming: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(requests, "trtjob-ahead") as pool:
        try:
            for item in items:
                coming.append(pool.submit(ask, item))
                while coming and (coming[0].done() or len(coming) >= 2 * requests):
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:
                future.cancel()
