"""The engine process's side: which image goes into which slot and to which image process, and what becomes of it.

Python's work here is by the batch: frames come and go many at a time, and the pixels never pass through.
"""

import asyncio
import logging
import selectors
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count
from threading import Lock

from trtjob.engines.protocol import Engine
from trtjob.errors import EngineError
from trtjob.jobs.spec import JobSpec
from trtjob.storage import note_trouble
from trtjob.storage.listing import Entry
from trtjob.utf8 import escaped
from trtjob.worker.pipeline.batches import Batches, Decoder
from trtjob.worker.pipeline.child_config import ChildConfig
from trtjob.worker.pipeline.dispatcher import Dispatcher
from trtjob.worker.pipeline.flow import Flow, Outcome, State
from trtjob.worker.pipeline.hanging_place import fault_of_place
from trtjob.worker.pipeline.limits import PipelineLimits
from trtjob.worker.pipeline.prestart import PrestartedProcesses
from trtjob.worker.pipeline.process_handle import ProcessHandle
from trtjob.worker.pipeline.process_pool import ProcessPool
from trtjob.worker.pipeline.replies import Replies
from trtjob.worker.pipeline.ring import Layout, Ring
from trtjob.worker.pipeline.slots import Slots
from trtjob.worker.pipeline.waiting import until_readable
from trtjob.worker.pipeline.wire import Kind, frame

log = logging.getLogger(__name__)

LEAVE_S = 5.0  # an image process that has not let go of a shard after so long is ended
WATCH_S = 1.0
LISTEN_S = 0.003  # a process that sleeps and wakes for each frame would do little else


class Pipeline:
    """The ring, the image processes and the batches around one engine; kept from shard to shard."""

    def __init__(
        self,
        engine: Engine,
        limits: PipelineLimits,
        *,
        prestarted: PrestartedProcesses | None = None,
        on_batch: Callable[[], None] = lambda: None,
        on_step: Callable[[], None] = lambda: None,
        open_decoder: Callable[[], Decoder] | None = None,
        log_level: str = "WARNING",
        log_format: str = "text",
    ) -> None:
        """prestarted: image processes that were started ahead; on_batch: called, by any thread, before each call of the
        engine; on_step: whenever something moves; open_decoder: called when a job first wants its files decoded by
        the engine's GPU; None: no job does.

        Raises EngineError where there is no memory for the ring.
        """
        self.engine = engine
        self.limits = limits
        self.ring = _ring_for(engine, limits, prestarted)
        engine.pin(self.ring.memory)
        self._log_form = (log_level, log_format)
        self._on_step = on_step
        self.batches = Batches(
            engine,
            limits.batch,
            self.ring,
            on_answered=self._answered,
            on_undecoded=self._undecoded,
            on_failed=self._failed,
            on_dropped=self._dropped,
            on_batch=on_batch,
            at_once=limits.batches,
        )
        self._open_decoder = open_decoder
        self._opening = Lock()
        self._numbers = count(1)
        self._pauses = False  # before it listens again
        self.slots = Slots(limits.slots, self.batches, limits.large_bytes)
        self.flows: list[Flow] = []
        self._runs = 0
        self.process_pool = ProcessPool(self.ring, self._config, prestarted)
        self._replies = Replies(self.slots, self.flows)
        self._dispatcher = Dispatcher(self.process_pool, self.slots, self.flows, requests=limits.requests_each)

    # -- for others -----------------------------------------------------------------------------------------------

    async def run(
        self,
        spec: JobSpec,
        entries: Iterable[Entry],
        on_done: Callable[[Outcome], None],
        on_fed: Callable[[], None] = lambda: None,
    ) -> None:
        """Process every entry of a job. on_done: called with each image's outcome, in any order; on_fed: when the last
        image has come in. Both are called in the event loop's thread.

        Where this is cancelled, or on_done raises, what is in hand is dropped.
        Raises StorageError where nothing would fare better, EngineError where image processes cannot live here,
        EngineError and MissingDependencyError where the GPU cannot decode and should, and what on_done raises; an
        image's own fault is its record.
        """
        if spec.options.decode == "gpu":
            await asyncio.to_thread(self._have_decoder)
        async with self._at_work():
            flow = Flow.of(next(self._numbers), spec, entries, on_done, on_fed)
            self.flows.append(flow)
            try:
                self._dispatcher.dispatch()
                flow.end_if_over()
                await flow.done
            finally:
                self.flows.remove(flow)
                await self._leave(flow)

    def _have_decoder(self) -> None:
        with self._opening:
            if self.batches.decoder is None and self._open_decoder is not None:
                self.batches.decoder = self._open_decoder()
                log.info("decoding on the GPU", extra={"by": self.batches.decoder.title})

    def busy_s(self) -> dict[str, float]:
        """Return the seconds of work by stage since the start."""
        decoder = self.batches.decoder
        decoding = Counter({"decode_gpu": decoder.busy_s} if decoder is not None else {})
        return dict(self.process_pool.busy_s() + Counter(self.batches.watch.busy_s()) + decoding)

    def close(self) -> None:
        """End the image processes and give the ring back; the engine is the caller's."""
        self.process_pool.dismiss()
        self.batches.close()
        if self.batches.decoder is not None:
            self.batches.decoder.close()
        self.ring.close()

    # -- image processes ------------------------------------------------------------------------------------------

    def _config(self, number: int) -> ChildConfig:
        limits = self.limits
        return ChildConfig(
            number=number,
            layout=self.ring.layout,
            model=self.engine.spec,
            max_pixels=limits.max_pixels,
            jpeg_quality=limits.jpeg_quality,
            memory_bytes=limits.memory_bytes,
            requests=limits.requests_each,
            allow_local=limits.allow_local,
            log_level=self._log_form[0],
            log_format=self._log_form[1],
        )

    @asynccontextmanager
    async def _at_work(self) -> AsyncIterator[None]:
        """Listen and compute in the running loop; the first shard in it begins that, the last ends it."""
        if not self._runs:
            loop, self._selector = asyncio.get_running_loop(), selectors.DefaultSelector()
            self.batches.attach()
            try:
                self.process_pool.gather(loop, self._selector)
            except EngineError:
                self._selector.close()
                raise
            work: list[Callable[[], Awaitable[None]]] = [partial(self._listen, self._selector), self._watch]
            work += [partial(self.batches.run, self._taken)] * self.batches.at_once
            self._tasks = [loop.create_task(self._guarded(doing)) for doing in work]
        self._runs += 1
        try:
            yield
        finally:
            self._runs -= 1
            if not self._runs:
                self.process_pool.rest()
                selector, tasks = self._selector, self._tasks  # another shard may begin before these have ended
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                selector.close()

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception as err:  # noqa: BLE001 - it is for those who wait for their shards
                self._fail_all(err)
                await asyncio.sleep(LISTEN_S)  # let them hear it

    async def _watch(self) -> None:
        """Once a second: start image processes that are missing, and end those that hang."""
        while True:
            await asyncio.sleep(WATCH_S)
            self.process_pool.fill()
            self._fail_if_broken("see the log")
            self._go_on()
            for handle in [handle for handle in self.process_pool.handles if not handle.is_gone]:
                if handle.hangs(self.limits.stall_s):
                    await self._hangs(handle)

    async def _hangs(self, handle: ProcessHandle) -> None:
        """End an image process that stands still; where the place of its file does, leave that place's shard."""
        stall_s, slot = self.limits.stall_s, handle.board.slot
        hand = self.slots.hands.get(slot)
        if hand is not None and not hand.flow.is_left and handle.is_at_place:
            self._on_step()  # what is done about it is no stand-still
            fault = await fault_of_place(hand, handle.board.stage_now, stall_s)
            if not handle.hangs(stall_s) or handle.board.slot != slot:
                return
            self._on_step()
            if fault is not None:
                hand.flow.fail(fault)
                return
        self._lost(handle, f"no progress in {stall_s:.0f} s")

    def _lost(self, handle: ProcessHandle, why: str = "") -> None:
        """Replace an image process that is gone or hangs; what it had in hand goes to the others."""
        culprit = handle.board.slot
        waits_at = handle.board.stage_now if why and handle.is_at_place else ""
        ended = self.process_pool.replace(handle)
        how = why or ended
        held = sorted(handle.in_hand)
        fields = {"image_process": handle.number, "how": how, "images_in_hand": len(held)}
        if culprit in handle.in_hand:
            fields["image"] = self.slots.hands[culprit].entry.key
        log.warning("an image process died", extra=fields)
        self._fail_if_broken(how)
        for flow in self.flows:
            flow.disown(handle.number)
        was_alone = handle.alone and held == [culprit]
        for slot in held:
            hand = self.slots.hands[slot]
            if not hand.flow.is_left:
                if slot == culprit:
                    hand.flow.accuse(hand.entry, how, waits_at, was_alone=was_alone)
                else:
                    hand.flow.again.append(hand.entry)
            self.slots.let_go(slot)
        note_trouble(f"image process {handle.number}", "")
        self._go_on()

    # -- and come back --------------------------------------------------------------------------------------------

    async def _listen(self, selector: selectors.BaseSelector) -> None:
        """Hear all image processes, again and again: a little later much more is to be heard at once."""
        self._pauses = False
        while True:
            if speaking := selector.select(0):
                for key, _ in speaking:
                    self._hear(key.data)
                self._go_on()
                self._pauses = True
                await asyncio.sleep(LISTEN_S)
                self._pauses = False
            else:
                self.process_pool.flush()
                await until_readable(selector)

    def _hear(self, handle: ProcessHandle) -> None:
        self._on_step()
        frames = handle.hear()
        if frames is None:
            self._lost(handle)
            return
        self.process_pool.note_life()
        for told in frames:
            self._replies.take(handle, told)

    def _go_on(self) -> None:
        self._dispatcher.dispatch()
        for flow in self.flows:
            flow.end_if_over()

    def _fail_if_broken(self, how: str) -> None:
        if self.process_pool.is_broken:
            message = f"image processes end before they can work: {how}. Their reason is in the log above"
            self._fail_all(EngineError(message))

    def _fail_all(self, err: BaseException) -> None:
        for flow in self.flows:
            flow.fail(err)

    def _taken(self, slots: list[int]) -> None:
        for slot in slots:
            self.slots.hands[slot].state = State.COMPUTING

    def _answered(self, slots: list[int]) -> None:
        for slot in slots:
            if (handle := self._back_from_engine(slot)) is not None:
                handle.hold(frame(Kind.ANSWER, slot))
        if not self._pauses:  # else what is given out soon goes with it: a process that is written to twice wakes twice
            self.process_pool.flush()

    def _undecoded(self, slots: list[int]) -> None:
        for slot in slots:
            if (handle := self._back_from_engine(slot)) is not None:
                self.slots.undecoded(slot)
                handle.send(frame(Kind.DECODE, slot))

    def _failed(self, slot: int, why: str) -> None:
        if (handle := self._back_from_engine(slot)) is not None:
            handle.send(frame(Kind.FAILED, slot, escaped(why).encode()))

    def _dropped(self, slots: list[int]) -> None:
        """Take slots back from an engine that has broken down."""
        for slot in slots:
            hand = self.slots.hands.get(slot)
            if hand is not None and hand.state is State.COMPUTING:
                hand.state = State.PREPARED
                if hand.is_orphan:
                    self.slots.release(slot)

    def _back_from_engine(self, slot: int) -> ProcessHandle | None:
        """Return whose image it is that the engine has done with; None where nobody waits for it any more."""
        self._on_step()
        hand = self.slots.hands[slot]
        if hand.is_orphan:
            self.slots.release(slot)
            self._go_on()
            return None
        hand.state = State.ANSWERED
        return None if hand.flow.is_left else hand.owner

    async def _leave(self, flow: Flow) -> None:
        """Have everybody forget a shard, and drop what is in hand of it."""
        flow.is_left = True
        for handle in self.process_pool.handles:
            if flow.number in handle.jobs:
                handle.jobs.discard(flow.number)
                handle.send(frame(Kind.LEAVE, flow.number))
        if not flow.in_hand:
            return
        flow.emptied.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                await flow.emptied.wait()
        for handle in {hand.owner for hand in self.slots.hands.values() if hand.flow is flow}:
            if any(self.slots.hands[slot].flow is flow for slot in handle.in_hand):
                self._lost(handle, "it did not let go of a shard")
        if flow.in_hand and not all(task.done() for task in self._tasks):  # the engine is at it, and will tell
            flow.emptied.clear()
            await flow.emptied.wait()


def _ring_for(engine: Engine, limits: PipelineLimits, prestarted: PrestartedProcesses | None) -> Ring:
    """Return shared memory for the images in hand and an engine's answers. Raises EngineError where there is none."""
    tensor = (*engine.spec.input_hw, engine.spec.channels)
    layout = Layout(limits.processes, limits.slots, tensor, engine.answer_shape, limits.file_bytes)
    try:
        return Ring.create(layout, prestarted.fd if prestarted else -1)
    except OSError as err:
        raise EngineError(
            f"no memory for {limits.slots} images of {layout.slot_bytes:,} bytes: {err.strerror}. "
            "Choose fewer with TRTJOB_WINDOW or TRTJOB_BATCH"
        ) from err
