"""The pipeline around the engine: read, decode, resize -> batch -> infer -> NMS, draw, encode, write.

No more than `window` images are anywhere in it, so memory depends on neither the length of the job nor the speed of any
stage. For an engine that likes batches each arrow is a bounded queue between threads of their own; for one that takes
an image at a time, as on a CPU, one thread takes each image all the way. Buckets are read before and written after, by
requests that wait beside each other without a thread. This module only joins the work.
"""

import asyncio
import contextvars
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import NoReturn, TypeVar, TypeVarTuple

import numpy as np

from trtjob.engines.protocol import Engine, Outputs
from trtjob.errors import DeviceLostError, EngineError, FailureKind, ImageError
from trtjob.jobs.listing import Entry
from trtjob.jobs.records import Record
from trtjob.worker.flow import Arrivals, Fetched, Finished, Flow, Inferred, next_item, together
from trtjob.worker.pools import Pools
from trtjob.worker.stages import Prepared, Stages, failure_record

log = logging.getLogger(__name__)

EXIT_DEVICE_LOST = 71

Args = TypeVarTuple("Args")
Result = TypeVar("Result")
Gate = Callable[[list[str]], Awaitable[None]]


class Pipeline:
    """Runs entries through the stages and hands each image's record to `on_record`, in any order."""

    def __init__(
        self,
        stages: Stages,
        engine: Engine,
        pools: Pools,
        room: asyncio.Semaphore | None = None,
        on_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """room: for how many images there is room, where another pipeline shares it; None: the limits' window.

        on_batch: called, by any thread, before each call of the engine.
        """
        self.stages = stages
        self.engine = engine
        self.pools = pools
        self.limits = pools.limits
        self._room = room
        self._on_batch = on_batch

    async def run(
        self,
        entries: Iterable[Entry],
        gate: Gate,
        on_record: Callable[[Record], None],
        on_fed: Callable[[], None] = lambda: None,
    ) -> None:
        """Process every entry.

        gate: awaited with the keys of all images about to be in flight before a group of them is touched; it may raise
        to stop, and the images in flight are dropped. on_record is called in the event loop's thread, on_fed when the
        last image has come in.
        Raises StorageError and EngineError where nothing would fare better; an image's own fault is its record.
        """
        limits, concurrency = self.limits, self.engine.concurrency
        is_fetched, listed = self.stages.source.is_remote, asyncio.Queue[Fetched | None](limits.window)
        flow = Flow(
            room=self._room or asyncio.Semaphore(limits.window),
            listed=listed,
            fetched=asyncio.Queue(limits.requests) if is_fetched else listed,
            finished=asyncio.Queue(limits.requests),
            prepared=Arrivals(2 * limits.batch * concurrency),
            inferred=asyncio.Queue(2 * limits.batch * concurrency),
            on_record=on_record,
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(entries, gate, flow, on_fed))
                if is_fetched:
                    group.create_task(together(limits.requests, lambda: self._fetch(flow), flow.fetched))
                if limits.batch == 1:
                    count = self.pools.size("whole")
                    group.create_task(together(count, lambda: self._process(flow), flow.finished))
                else:
                    group.create_task(together(limits.threads, lambda: self._prepare(flow), flow.prepared))
                    group.create_task(together(concurrency, lambda: self._infer(flow), flow.inferred))
                    group.create_task(together(limits.threads, lambda: self._finish(flow), flow.finished))
                stores = limits.requests if self.stages.output.is_remote else 1
                group.create_task(together(stores, lambda: self._store(flow)))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            flow.abandon()

    async def _feed(self, entries: Iterable[Entry], gate: Gate, flow: Flow, on_fed: Callable[[], None]) -> None:
        """Let entries in, group by group."""
        for group in _chunks(entries, max(1, self.limits.window // 2)):
            flow.inflight.update(entry.key for entry in group)
            await gate(sorted(flow.inflight))
            for entry in group:
                await flow.enter()
                await flow.listed.put(Fetched(entry))
        await flow.listed.put(None)
        on_fed()

    async def _fetch(self, flow: Flow) -> None:
        while listed := await next_item(flow.listed):
            try:
                data = await self.stages.fetch(listed.entry)
            except ImageError as err:
                flow.done(failure_record(listed.entry.key, err))
            else:
                await flow.fetched.put(Fetched(listed.entry, data))

    async def _process(self, flow: Flow) -> None:
        while fetched := await next_item(flow.fetched):
            record, annotated = await self._thread("whole", self._whole, *fetched)
            await self._done_or_stored(flow, record, annotated)

    def _whole(self, entry: Entry, data: bytes | None) -> tuple[Record, tuple[str, bytes] | None]:
        """Take one image all the way in this thread: no hand-over, and the core's caches stay warm."""
        try:
            item = self.stages.prepare(entry, data)
        except ImageError as err:
            return failure_record(entry.key, err), None
        try:
            with self.pools.engine_slots:
                outputs = self._call_engine([item])
        except EngineError as err:
            return _infer_failure(item, err), None
        (inferred,) = _parts([item], outputs)
        return self._finished(inferred), item.annotated

    async def _prepare(self, flow: Flow) -> None:
        while fetched := await next_item(flow.fetched):
            try:
                item = await self._thread("decode", self.stages.prepare, *fetched)
            except ImageError as err:
                flow.done(failure_record(fetched.entry.key, err))
            else:
                await flow.prepared.put(item)

    async def _infer(self, flow: Flow) -> None:
        while batch := await flow.next_batch(self.limits.batch):
            try:
                async for items, outputs in self._outputs(batch, flow):
                    for inferred in _parts(items, outputs):
                        await flow.inferred.put(inferred)
            finally:
                flow.count_call(-1)

    async def _outputs(self, batch: list[Prepared], flow: Flow) -> AsyncIterator[tuple[list[Prepared], Outputs]]:
        """Run a batch; where it fails, its halves, until the culprit stands alone and the others have their results."""
        try:
            outputs = await self._thread("infer", self._call_engine, batch)
        except EngineError as err:
            if len(batch) == 1:
                flow.done(_infer_failure(batch[0], err))
                return
            middle = len(batch) // 2
            for half in (batch[:middle], batch[middle:]):
                async for result in self._outputs(half, flow):
                    yield result
        else:
            yield batch, outputs

    def _call_engine(self, batch: list[Prepared]) -> Outputs:
        with self.stages.watch.stage("infer"):
            self._on_batch()
            images = np.stack([item.tensor for item in batch]) if len(batch) > 1 else batch[0].tensor[None]
            try:
                return self.engine.infer(images)
            except DeviceLostError as err:
                end_without_gpu(err)

    async def _finish(self, flow: Flow) -> None:
        while inferred := await next_item(flow.inferred):
            record = await self._thread("finish", self._finished, inferred)
            await self._done_or_stored(flow, record, inferred.item.annotated)

    async def _done_or_stored(self, flow: Flow, record: Record, annotated: tuple[str, bytes] | None) -> None:
        if annotated is None:
            flow.done(record)
        else:
            await flow.finished.put(Finished(record, annotated))

    async def _store(self, flow: Flow) -> None:
        while finished := await next_item(flow.finished):
            try:
                await self.stages.store(*finished.annotated)
            except ImageError as err:
                err.sha256 = finished.record.sha256
                flow.done(failure_record(finished.record.image, err))
            else:
                flow.done(finished.record)

    def _finished(self, inferred: Inferred) -> Record:
        try:
            return self.stages.finish(*inferred)
        except ImageError as err:
            err.sha256 = inferred.item.sha256
            return failure_record(inferred.item.entry.key, err)

    def _thread(self, pool: str, function: Callable[[*Args], Result], *args: *Args) -> "asyncio.Future[Result]":
        # In this context: what a thread logs says which job it is about.
        run = contextvars.copy_context().run
        return asyncio.get_running_loop().run_in_executor(self.pools.pools[pool], run, function, *args)


def end_without_gpu(err: DeviceLostError) -> NoReturn:
    """End the process: nothing in it can use the GPU again, and each image would fail for no fault of its own."""
    log.critical("the GPU failed: the worker process ends", extra={"error": str(err)})
    os._exit(EXIT_DEVICE_LOST)


def _parts(items: list[Prepared], outputs: Outputs) -> Iterator[Inferred]:
    """Yield each image of a batch with its own outputs."""
    for index, item in enumerate(items):
        yield Inferred(item, None if outputs.boxes is None else outputs.boxes[index], outputs.scores[index])


def _infer_failure(item: Prepared, err: EngineError) -> Record:
    return failure_record(item.entry.key, ImageError(FailureKind.INFER, str(err), item.sha256))


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
