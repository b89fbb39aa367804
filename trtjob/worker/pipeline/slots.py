"""Which image lies in which slot of the ring, and whose it is."""

from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.batches import Batches
from trtjob.worker.pipeline.flow import Flow, InHand, State
from trtjob.worker.pipeline.memory_grants import MemoryGrants
from trtjob.worker.pipeline.process_handle import ProcessHandle
from trtjob.worker.pipeline.wire import Kind, frame, packed_bytes, packed_image


class Slots:
    """The slots of a ring.

    count: of all; free: those with nothing in them; hands: what lies in the others; grants: memory for images that are
    larger than their image process's budget.
    """

    def __init__(self, count: int, batches: Batches, large_bytes: int = 0) -> None:
        """large_bytes: what those larger images may take together."""
        self.count = count
        self.free = list(range(count))
        self.hands: dict[int, InHand] = {}
        self._batches = batches
        self.grants = MemoryGrants(large_bytes, self._tell_granted)

    def give(self, handle: ProcessHandle, flow: Flow, entry: Entry) -> bytes:
        """Put an image into a free slot. Returns what is to be said to its image process."""
        slot = self.free.pop()
        self.hands[slot] = InHand(flow, entry, handle)
        handle.in_hand.add(slot)
        handle.is_fresh = False
        handle.unprepared += 1
        flow.in_hand += 1
        self._batches.expect(1)
        said = b""
        if flow.number not in handle.jobs:
            handle.jobs.add(flow.number)
            said = frame(Kind.JOB, flow.number, flow.spec.model_dump_json().encode())
        return said + frame(Kind.IMAGE, slot, packed_image(flow.number, entry))

    def prepared(self, slot: int, *, is_file: bool = False) -> None:
        """Note that a slot holds its image's input, or its file: unless its shard was left, a batch may take it."""
        hand = self.hands[slot]
        hand.state = State.PREPARED
        hand.owner.unprepared -= 1
        self._batches.expect(-1)
        if not hand.flow.is_left:
            self._batches.add(slot, is_file=is_file)

    def undecoded(self, slot: int) -> None:
        """Note that the file in a slot was none for the GPU: its image is to be prepared once more."""
        hand = self.hands[slot]
        hand.state = State.SENT
        hand.owner.unprepared += 1
        self._batches.expect(1)

    def let_go(self, slot: int) -> None:
        """Take a slot back from its image process; what the engine has of it is free when it has done."""
        hand = self.hands[slot]
        handle = hand.owner
        handle.in_hand.discard(slot)
        if not handle.in_hand:
            handle.alone = False
        if hand.state is State.SENT:
            handle.unprepared -= 1
            self._batches.expect(-1)
        self.grants.end(slot)
        if hand.state is State.COMPUTING:
            hand.is_orphan = True
            return
        if hand.state is State.PREPARED:
            self._batches.drop({slot})
        self.release(slot)

    def release(self, slot: int) -> None:
        """Make a slot free that nobody has any more."""
        flow = self.hands.pop(slot).flow
        self.free.append(slot)
        flow.in_hand -= 1
        if not flow.in_hand:
            flow.emptied.set()

    def _tell_granted(self, slot: int, granted_bytes: int) -> None:
        self.hands[slot].owner.send(frame(Kind.GRANT, slot, packed_bytes(granted_bytes)))
