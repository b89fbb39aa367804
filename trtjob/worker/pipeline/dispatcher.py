"""Which image goes to which image process next."""

from collections import defaultdict

from trtjob.storage import is_s3
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.flow import Flow
from trtjob.worker.pipeline.process_pool import Crew, Packets
from trtjob.worker.pipeline.slots import Slots

_AHEAD = 2  # images that an image process has beside the one that it prepares
_AHEAD_OF_GPU = 8  # where the GPU decodes them: so many are prepared before the engine process listens again


class Dealer:
    """Deals the images of all shards in the pipeline. flows: those shards, the first one first; requests: to a bucket,
    at once, by each image process."""

    def __init__(self, crew: Crew, slots: Slots, flows: list[Flow], *, requests: int) -> None:
        self._crew = crew
        self._slots = slots
        self._flows = flows
        self._requests = requests

    def deal(self) -> None:
        """Give images to those that have too few, the first shard's first."""
        self._reserve()
        packets: Packets = defaultdict(list)
        # A shard's last images are spread over all.
        for level in range(1 + self._ahead()):
            for member in self._crew.members:
                if member.unprepared <= level and not (member.alone or member.is_gone) and self._slots.free:
                    taken = self._next()
                    if taken is None:
                        break
                    packets[member.number].append(self._slots.give(member, *taken))
        self._crew.send(packets)

    def _ahead(self) -> int:
        specs = [flow.spec for flow in self._flows]
        remote = self._requests if any(is_s3(spec.source.root) for spec in specs) else 0
        on_gpu = _AHEAD_OF_GPU if any(spec.options.decode == "gpu" for spec in specs) else 0
        return max(_AHEAD, remote, on_gpu)

    def _next(self) -> tuple[Flow, Entry] | None:
        for flow in self._flows:
            if not flow.is_left and (entry := flow.next_entry()) is not None:
                return flow, entry
        return None

    def _reserve(self) -> None:
        """See to images that are suspected: each goes to an image process that has nothing else."""
        if any(member.alone for member in self._crew.members):
            return
        for flow in self._flows:
            if flow.suspects and not flow.is_left:
                there = [member for member in self._crew.members if not member.is_gone]
                member = min(there, key=lambda member: len(member.in_hand), default=None)
                if member is None or not (member.in_hand or self._slots.free):
                    return
                if not (member.in_hand or member.is_fresh):  # what another image has left in it must not count
                    self._crew.replace(member)
                    member = self._crew.members[member.number]
                    if member.is_gone:
                        return
                member.alone = True  # from now on it gets nothing else, and the image once it has finished the rest
                if not member.in_hand:
                    member.send(self._slots.give(member, flow, flow.suspects.popleft()))
                return
