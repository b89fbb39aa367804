"""Batches for the engine: they fill while that costs nothing, and an engine that has nothing to do never waits long."""

import asyncio
import contextvars
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import NoReturn, Protocol

from trtjob.engines.protocol import AnyImage, Engine
from trtjob.errors import DeviceLostError, EngineError
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.worker.exit_codes import DEVICE_LOST
from trtjob.worker.pipeline.ring import Ring
from trtjob.worker.pipeline.stopwatch import Stopwatch

log = logging.getLogger(__name__)

MOST_FAILED = 10  # images that fail one after another before the engine is to blame

# How long a batch that is not full waits for images that are on their way, as a share of a call's time and by how many
# calls are under way: an engine with nothing else to do loses that, one with a call under way does not. With two it has
# enough to do, one computes and the next is copied: then the batch waits until it is full.
_PATIENCE = {0: 0.25, 1: 1.0}
_NEWEST = 0.2  # weight of the newest call in what a call is thought to take
# An engine that takes one image at a call is called for several in a turn of its thread, where they take no longer than
# so: waking a thread, the event loop and image processes for each one costs nearly a CPU-ms.
_TURN_S, _MOST_IN_TURN = 0.1, 8


class Decoder(Protocol):
    """What decodes files for an engine.

    title: for a person; busy_s: how long it has decoded so far.
    """

    title: str
    busy_s: float

    def decoded(self, images: EncodedImages) -> AbstractContextManager[Sequence[AnyImage | None]]:
        """Have each image as the network's input for the length of the block; None for one that cannot be decoded.

        The others' pixels are where they are wanted. By as many threads at once as call the engine. Raises EngineError.
        """
        ...

    def close(self) -> None: ...


class Batches:
    """Takes slots that are ready, runs them, and says what has become of them.

    on_answered: called with slots whose answers lie in the ring; on_undecoded: with slots whose file the GPU does not
    decode; on_failed: with a slot that the engine cannot run, and why; on_dropped: with slots of a batch that ended in
    an error which is no image's; on_batch: by any thread, before each call.
    """

    def __init__(
        self,
        engine: Engine,
        batch: int,
        ring: Ring,
        *,
        on_answered: Callable[[list[int]], None],
        on_undecoded: Callable[[list[int]], None],
        on_failed: Callable[[int, str], None],
        on_dropped: Callable[[list[int]], None],
        on_batch: Callable[[], None],
        at_once: int = 0,
    ) -> None:
        """at_once: how many batches are under way, 0 for as many as the engine takes."""
        self.engine = engine
        self.batch = batch
        self.ring = ring
        self.decoder: Decoder | None = None  # for files in slots, which come only where there is one
        self.watch = Stopwatch()
        self.on_the_way = 0  # images that will be ready without anybody's doing
        self._on_answered = on_answered
        self._on_undecoded = on_undecoded
        self._on_failed = on_failed
        self._on_dropped = on_dropped
        self._on_batch = on_batch
        self.at_once = at_once or engine.concurrency
        self._pool = ThreadPoolExecutor(self.at_once, "trtjob-infer")
        self._ready: deque[int] = deque()
        self._files: set[int] = set()  # slots in which no tensor lies
        self._turns = 0
        self._began: dict[int, float] = {}  # the calls under way, by thread
        self.call_s = 0.0
        self._failed_in_a_row = 0  # images, each alone in a batch
        self.attach()

    def attach(self) -> None:
        """Begin anew, for another event loop."""
        self._news = asyncio.Event()
        self._gathering = asyncio.Lock()  # one batch fills at a time
        self._turns = 0

    def add(self, slot: int, *, is_file: bool = False) -> None:
        """Take a slot that is ready. is_file: it holds a file, not the network's input."""
        self._ready.append(slot)
        if is_file:
            self._files.add(slot)
        else:
            self._files.discard(slot)
        # Who gathers a batch is not woken for each image.
        if len(self._ready) == 1 or self._is_enough():
            self._news.set()

    def _is_enough(self) -> bool:
        return len(self._ready) >= self._most_in_turn() or not self.on_the_way

    def _most_in_turn(self) -> int:
        """Return how many images a turn takes: a batch, or so many of one image."""
        if self.batch > 1 or not self.call_s:
            return self.batch
        return min(max(1, int(_TURN_S / self.call_s)), _MOST_IN_TURN)

    def drop(self, slots: set[int]) -> None:
        """Forget slots that wait for a batch."""
        self._ready = deque(slot for slot in self._ready if slot not in slots)

    def expect(self, change: int) -> None:
        """Count images that come on their way (1), or are not any more (-1)."""
        self.on_the_way += change
        if not self.on_the_way:
            self._news.set()

    async def run(self, on_taken: Callable[[list[int]], None]) -> None:
        """Run batch after batch, until cancelled. on_taken: told which slots the engine has from now on."""
        while True:
            slots = await self._next()
            on_taken(slots)
            self._turns += 1
            try:
                await self._infer(slots)
            except Exception:
                self._on_dropped(slots)
                raise
            finally:
                self._turns -= 1
                self._news.set()

    def longest_s(self) -> float:
        """Return for how long the longest call under way has lasted. Safe in any thread."""
        began = list(self._began.values())
        return time.monotonic() - min(began) if began else 0.0

    def close(self) -> None:
        """Wait for the calls under way."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _next(self) -> list[int]:
        async with self._gathering:
            while True:
                while not self._ready:
                    await self._wait(None)
                since = time.monotonic()
                while self._ready and not self._is_enough():
                    share, turn_s = _PATIENCE.get(self._turns), self._most_in_turn() / self.batch * self.call_s
                    left_s = None if share is None else share * turn_s - (time.monotonic() - since)
                    if left_s is not None and left_s <= 0:
                        break
                    await self._wait(left_s)
                if self._ready:  # else they were dropped
                    return [self._ready.popleft() for _ in range(min(self._most_in_turn(), len(self._ready)))]

    async def _wait(self, seconds: float | None) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    async def _infer(self, slots: list[int]) -> None:
        """Run a turn; where it fails, its halves, until the culprit stands alone and the others have their answers."""
        run = contextvars.copy_context().run  # what the thread logs says which job it is about
        try:
            undecoded = await asyncio.get_running_loop().run_in_executor(self._pool, run, self._call, slots)
        except Exception as err:  # noqa: BLE001 - whatever it is, it may be one image's
            if len(slots) == 1:
                self._note_failure(slots[0], err)
                return
            middle = len(slots) // 2
            await self._infer(slots[:middle])
            await self._infer(slots[middle:])
        else:
            self._failed_in_a_row = 0
            self._on_answered([slot for slot in slots if slot not in undecoded])
            if undecoded:
                self._on_undecoded(undecoded)

    def _note_failure(self, slot: int, err: Exception) -> None:
        """Let one image fail. Raises EngineError where so many have in a row that it is no fault of theirs."""
        said = str(err)
        if not isinstance(err, EngineError):
            log.error("unexpected error", exc_info=None if self._failed_in_a_row else err)
            said = f"unexpected {type(err).__name__}: {err}. The worker's log says where"
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= MOST_FAILED:
            raise EngineError(
                f"the engine fails, for {self._failed_in_a_row} images one after another: {said}"
            ) from err
        self._on_failed(slot, said)

    def _call(self, slots: list[int]) -> list[int]:
        """Run a turn. Returns those whose file the GPU does not decode; the others have their answers."""
        start = self._began[threading.get_ident()] = time.monotonic()
        undecoded: list[int] = []
        try:
            for start_at in range(0, len(slots), self.batch):
                batch = slots[start_at : start_at + self.batch]
                with self._inputs(batch) as inputs:
                    undecoded += [slot for slot in batch if slot not in inputs]
                    if inputs:
                        self._on_batch()
                        with self.watch.stage("infer"):
                            self.engine.answer(list(inputs.values()), [self.ring.answers[slot] for slot in inputs])
        except DeviceLostError as err:
            end_without_gpu(err)
        finally:
            del self._began[threading.get_ident()]
        took_s = (time.monotonic() - start) / -(-len(slots) // self.batch)
        self.call_s += (took_s - self.call_s) * (_NEWEST if self.call_s else 1.0)
        return undecoded

    @contextmanager
    def _inputs(self, slots: list[int]) -> Iterator[dict[int, AnyImage]]:
        """Yield each slot's input of the network, where it can be had: files are decoded now."""
        inputs: dict[int, AnyImage] = {slot: self.ring.tensors[slot] for slot in slots}
        if not (files := [slot for slot in slots if slot in self._files]):
            yield inputs
            return
        assert self.decoder is not None
        with self.decoder.decoded(self.ring.encoded(files)) as decoded:
            for slot, image in zip(files, decoded, strict=True):
                if image is None:
                    del inputs[slot]
                else:
                    inputs[slot] = image
            yield inputs


def end_without_gpu(err: DeviceLostError) -> NoReturn:
    """End the process: nothing in it can use the GPU again, and each image would fail for no fault of its own."""
    log.critical("the GPU failed: the worker process ends", extra={"error": str(err)})
    os._exit(DEVICE_LOST)
