"""One shard's way through the pipeline: the queues between its stages, and what lies in them."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from trtjob.engines.protocol import FloatArray
from trtjob.jobs.listing import Entry
from trtjob.jobs.records import Record
from trtjob.worker.stages import Prepared

# Batches under way from which on an engine has enough to do: one computes, the next is copied.
BUSY_CALLS = 2

Item = TypeVar("Item")


class Fetched(NamedTuple):
    """An entry, and its bytes where they were fetched from a bucket."""

    entry: Entry
    data: bytes | None = None


class Finished(NamedTuple):
    """A record that is complete once the annotated copy, a key and its bytes, is stored."""

    record: Record
    annotated: tuple[str, bytes]


class Inferred(NamedTuple):
    """An image with its part of a batch's outputs: boxes [K, 4] and scores [K, classes], or None and [classes]."""

    item: Prepared
    boxes: FloatArray | None
    scores: FloatArray


class Arrivals(asyncio.Queue["Prepared | None"]):
    """A queue of images for the engine. news: set when one comes, and by whoever else has something to say."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self.news = asyncio.Event()

    def _put(self, item: Prepared | None) -> None:
        super()._put(item)  # for subclasses, as asyncio says
        self.news.set()


@dataclass(slots=True)
class Flow:
    """One shard's way through the pipeline: each stage's loops take from one queue and put into the next.

    None ends a queue. A loop that takes it puts it back for the others of its stage.
    """

    room: asyncio.Semaphore
    listed: "asyncio.Queue[Fetched | None]"
    fetched: "asyncio.Queue[Fetched | None]"
    prepared: Arrivals
    inferred: "asyncio.Queue[Inferred | None]"
    finished: "asyncio.Queue[Finished | None]"
    on_record: Callable[[Record], None]
    inflight: set[str] = field(default_factory=set)
    inside: int = 0
    gathering: asyncio.Lock = field(default_factory=asyncio.Lock)  # one batch fills at a time
    calls: int = 0

    async def enter(self) -> None:
        await self.room.acquire()
        self.inside += 1

    def done(self, record: Record) -> None:
        self.inflight.discard(record.image)
        self.inside -= 1
        self.room.release()
        self.on_record(record)

    def count_call(self, change: int) -> None:
        """Note that a call of the engine begins (1) or has ended (-1)."""
        self.calls += change
        self.prepared.news.set()

    async def next_batch(self, size: int) -> list[Prepared]:
        """Wait for an image, take what else is ready, and more while the engine has enough to do. Empty at the end.

        A GPU takes as long for a batch that is not full. Whoever takes a batch must say when its call has ended.
        """
        async with self.gathering:
            batch: list[Prepared] = []
            while len(batch) < size:
                while batch and self.prepared.empty() and self.calls >= BUSY_CALLS:
                    self.prepared.news.clear()
                    await self.prepared.news.wait()
                if batch and self.prepared.empty():
                    break
                item = await next_item(self.prepared)
                if item is None:
                    break
                batch.append(item)
            if batch:
                self.count_call(1)
            return batch

    def abandon(self) -> None:
        """Give back the room of images that are not done: another shard may be waiting for it."""
        for _ in range(self.inside):
            self.room.release()
        self.inside = 0


async def together(
    count: int, loop: Callable[[], Coroutine[Any, Any, None]], following: "asyncio.Queue[Any] | None" = None
) -> None:
    """Run so many loops of one stage; when all have ended, end the queue that follows."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(loop())
    if following is not None:
        await following.put(None)


async def next_item(queue: "asyncio.Queue[Item | None]") -> Item | None:
    """Take the next item; None at the end of the queue."""
    item = await queue.get()
    if item is None:
        queue.put_nowait(None)  # there is room: it was just taken out, and nobody puts behind the end
    return item
