"""The pipeline around the engine: read, decode, resize -> batch -> infer -> NMS, draw, encode, write.

Each arrow is a bounded queue, and no more than `window` images are anywhere in it, so memory depends on neither the
length of the job nor the speed of any stage. All blocking work runs in threads; this module only joins them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar, TypeVarTuple

import numpy as np

from trtjob.engines.protocol import Engine, Outputs
from trtjob.errors import EngineError, ImageError
from trtjob.jobs.listing import Entry
from trtjob.jobs.records import Record
from trtjob.jobs.states import FailureKind
from trtjob.worker.stages import POOLS, Prepared, Stages, failure_record

Args = TypeVarTuple("Args")
Result = TypeVar("Result")
Gate = Callable[[list[str]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Limits:
    """threads: of the stages before and after the engine, each; batch: images in one call of the engine;
    window: images in the pipeline at once."""

    threads: int
    batch: int
    window: int


class Pools:
    """The threads of a worker process, kept from shard to shard."""

    def __init__(self, limits: Limits, concurrency: int) -> None:
        self.limits = limits
        self.concurrency = concurrency
        sizes = {"decode": limits.threads, "infer": concurrency, "finish": limits.threads}
        self.pools = {name: ThreadPoolExecutor(size, f"trtjob-{name}") for name, size in sizes.items()}

    def close(self) -> None:
        for pool in self.pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def shares(self, busy_s: dict[str, float], elapsed_s: float) -> dict[str, float]:
        """Return how busy each pool was, 0 to 1, from seconds of work by stage."""
        return {
            name: round(sum(busy_s.get(stage, 0.0) for stage in stages) / elapsed_s / self.pools[name]._max_workers, 3)
            for name, stages in POOLS.items()
        }


@dataclass(slots=True)
class _Flow:
    """One shard's way through the pipeline."""

    room: asyncio.Semaphore
    prepared: "asyncio.Queue[Prepared | None]"
    inferred: "asyncio.Queue[tuple[list[Prepared], Outputs] | None]"
    inflight: set[str] = field(default_factory=set)


class Pipeline:
    """Runs entries through the stages and hands each image's record to `on_record`, in any order."""

    def __init__(self, stages: Stages, engine: Engine, pools: Pools) -> None:
        self.stages = stages
        self.engine = engine
        self.pools = pools
        self.limits = pools.limits

    async def run(self, entries: Iterable[Entry], gate: Gate, on_record: Callable[[Record], None]) -> None:
        """Process every entry.

        gate: awaited with the keys of all images about to be in flight before a group of them is touched; it may raise
        to stop, and the images in flight are dropped. on_record is called in the event loop's thread.
        Raises StorageError and EngineError where nothing would fare better; an image's own fault is its record.
        """
        flow = _Flow(
            asyncio.Semaphore(self.limits.window),
            asyncio.Queue(2 * self.limits.batch * self.engine.concurrency),
            asyncio.Queue(2 * self.engine.concurrency),
        )

        def done(record: Record) -> None:
            flow.inflight.discard(record.image)
            flow.room.release()
            on_record(record)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(entries, gate, flow, done))
                group.create_task(self._infer_all(flow, done))
                group.create_task(self._finish_all(flow, done))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    async def _feed(self, entries: Iterable[Entry], gate: Gate, flow: _Flow, done: Callable[[Record], None]) -> None:
        """Let entries in, group by group, and prepare each in a thread."""

        async def prepare(entry: Entry) -> None:
            try:
                item = await self._thread("decode", self.stages.prepare, entry)
            except ImageError as err:
                done(failure_record(entry.key, err))
            else:
                await flow.prepared.put(item)

        group_size = max(1, self.limits.window // 2)
        async with asyncio.TaskGroup() as preparing:
            for chunk in _chunks(entries, group_size):
                flow.inflight.update(entry.key for entry in chunk)
                await gate(sorted(flow.inflight))
                for entry in chunk:
                    await flow.room.acquire()
                    preparing.create_task(prepare(entry))
        await flow.prepared.put(None)

    async def _infer_all(self, flow: _Flow, done: Callable[[Record], None]) -> None:
        async def infer(batch: list[Prepared]) -> None:
            async for items, outputs in self._infer(batch, done):
                await flow.inferred.put((items, outputs))
            slots.release()

        slots = asyncio.Semaphore(self.engine.concurrency)
        async with asyncio.TaskGroup() as inferring:
            while batch := await self._next_batch(flow.prepared, slots):
                inferring.create_task(infer(batch))
        await flow.inferred.put(None)

    async def _next_batch(self, prepared: "asyncio.Queue[Prepared | None]", slots: asyncio.Semaphore) -> list[Prepared]:
        """Wait for a free slot of the engine and an image, then take what else is ready. Empty at the end."""
        await slots.acquire()
        batch: list[Prepared] = []
        while len(batch) < self.limits.batch and (not batch or not prepared.empty()):
            item = await prepared.get()
            if item is None:
                if batch:
                    prepared.put_nowait(None)  # there is room: this sentinel was just taken out
                break
            batch.append(item)
        return batch

    async def _infer(
        self, batch: list[Prepared], done: Callable[[Record], None]
    ) -> AsyncIterator[tuple[list[Prepared], Outputs]]:
        """Run a batch; where it fails, its halves, until the culprit stands alone and the others have their results."""
        try:
            outputs = await self._thread("infer", self._call_engine, batch)
        except EngineError as err:
            if len(batch) == 1:
                entry = batch[0].entry
                done(failure_record(entry.key, ImageError(FailureKind.INFER, str(err), batch[0].sha256)))
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                async for result in self._infer(half, done):
                    yield result
        else:
            yield batch, outputs

    def _call_engine(self, batch: list[Prepared]) -> Outputs:
        with self.stages.watch.stage("infer"):
            images = np.stack([item.tensor for item in batch]) if len(batch) > 1 else batch[0].tensor[None]
            return self.engine.infer(images)

    async def _finish_all(self, flow: _Flow, done: Callable[[Record], None]) -> None:
        async def finish(item: Prepared, outputs: Outputs, index: int) -> None:
            boxes = None if outputs.boxes is None else outputs.boxes[index]
            try:
                done(await self._thread("finish", self.stages.finish, item, boxes, outputs.scores[index]))
            except ImageError as err:
                err.sha256 = item.sha256
                done(failure_record(item.entry.key, err))

        async with asyncio.TaskGroup() as finishing:
            while result := await flow.inferred.get():
                items, outputs = result
                for index, item in enumerate(items):
                    finishing.create_task(finish(item, outputs, index))

    def _thread(self, pool: str, function: Callable[[*Args], Result], *args: *Args) -> "asyncio.Future[Result]":
        return asyncio.get_running_loop().run_in_executor(self.pools.pools[pool], function, *args)


def _first(errors: BaseExceptionGroup) -> BaseException:
    """Return the error that a group of tasks ended with: the others were cancelled because of it."""
    for error in errors.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    return errors


def _chunks(entries: Iterable[Entry], size: int) -> Iterable[list[Entry]]:
    chunk: list[Entry] = []
    for entry in entries:
        chunk.append(entry)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
