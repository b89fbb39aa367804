"""What image processes say, and what it means for the images in hand."""

from collections.abc import Callable

from trtjob.errors import PlaceError, StorageError
from trtjob.storage import note_trouble
from trtjob.worker.pipeline.flow import Flow, Outcome
from trtjob.worker.pipeline.process_handle import ProcessHandle
from trtjob.worker.pipeline.slots import Slots
from trtjob.worker.pipeline.wire import Frame, Kind, failure_of, unpacked_bytes


class Replies:
    """Takes what image processes say. flows: the shards in the pipeline."""

    def __init__(self, slots: Slots, flows: list[Flow]) -> None:
        self._slots = slots
        self._flows = flows

    def take(self, handle: ProcessHandle, told: Frame) -> None:
        """Do what a frame from an image process asks for."""
        _BY_KIND[told.kind](self, handle, told)

    def _on_prepared(self, _handle: ProcessHandle, told: Frame) -> None:
        self._slots.prepared(told.number, is_file=bool(told.flag))

    def _on_record(self, _handle: ProcessHandle, told: Frame) -> None:
        hand = self._slots.hands[told.number]
        self._slots.let_go(told.number)
        if not hand.flow.is_left:
            hand.flow.finish(Outcome(hand.entry.key, told.payload, failure_of(told.flag)))

    def _on_large(self, _handle: ProcessHandle, told: Frame) -> None:
        self._slots.grants.ask(told.number, unpacked_bytes(told.payload))

    def _on_left(self, handle: ProcessHandle, told: Frame) -> None:
        for slot in [slot for slot in handle.in_hand if self._slots.hands[slot].flow.number == told.number]:
            self._slots.let_go(slot)

    def _on_ended(self, _handle: ProcessHandle, told: Frame) -> None:
        for flow in self._flows:
            if flow.number == told.number:
                kind = PlaceError if told.flag else StorageError
                flow.fail(kind(told.payload.decode()))

    def _on_trouble(self, handle: ProcessHandle, told: Frame) -> None:
        note_trouble(f"image process {handle.number}", told.payload.decode())

    def _on_ready(self, _handle: ProcessHandle, _told: Frame) -> None:
        """That it spoke is all."""


_BY_KIND: dict[int, Callable[[Replies, ProcessHandle, Frame], None]] = {
    Kind.PREPARED: Replies._on_prepared,
    Kind.RECORD: Replies._on_record,
    Kind.LARGE: Replies._on_large,
    Kind.LEFT: Replies._on_left,
    Kind.ENDED: Replies._on_ended,
    Kind.TROUBLE: Replies._on_trouble,
    Kind.READY: Replies._on_ready,
}
