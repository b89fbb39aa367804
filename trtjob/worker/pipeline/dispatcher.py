"""Which image goes to which image process next."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.flow import Flow
from trtjob.worker.pipeline.process_handle import ProcessHandle
from trtjob.worker.pipeline.process_pool import Packets, ProcessPool
from trtjob.worker.pipeline.slots import Slots

_AHEAD = 2  # images that an image process has beside the one that it prepares
_AHEAD_OF_GPU = 8  # where the GPU decodes them: so many are prepared before the engine process listens again
# Where that is all, and nothing is drawn, so many are given to one process at once, whenever it has no more than the
# half: each word to a process wakes it, which costs both more than the image does.
_AHEAD_AT_ONCE = 16


class Dispatcher:
    """Gives out the images of all shards in the pipeline. flows: those shards, the first one first; requests: to a
    bucket, at once, by each image process."""

    def __init__(self, process_pool: ProcessPool, slots: Slots, flows: list[Flow], *, requests: int) -> None:
        self._process_pool = process_pool
        self._slots = slots
        self._flows = flows
        self._requests = requests

    def dispatch(self) -> None:
        """Give images to those that have too few, the first shard's first."""
        self._reserve()
        packets: Packets = defaultdict(list)
        for handle in self._turns():
            if not self._slots.free:
                break
            if not (handle.alone or handle.is_gone):
                taken = self._next(handle.number)
                if taken is not None:  # another one may have frames of a video still to come
                    packets[handle.number].append(self._slots.give(handle, *taken))
        self._process_pool.send(packets)

    def _turns(self) -> Iterator[ProcessHandle]:
        """Yield who is to get an image, again and again, as long as there are any."""
        handles, flows = self._process_pool.handles, self._flows
        remote = self._requests if any(flow.is_remote for flow in flows) else 0
        on_gpu = any(flow.is_decoded_by_gpu for flow in flows)
        if on_gpu and not any(flow.is_drawn for flow in flows):
            each = self._slots.count // max(1, len(handles))  # what the GPU does not decode is for all of them
            most = min(1 + max(_AHEAD_AT_ONCE, remote), max(1 + _AHEAD, each))
            waiting = [handle for handle in handles if handle.unprepared <= most // 2]
            if len(self._slots.free) < sum(most - handle.unprepared for handle in waiting):
                for handle in waiting:
                    yield from [handle] * (most - handle.unprepared)
            else:  # so that a few images are spread over all
                yield from _by_turns(waiting, most)
            return
        yield from _by_turns(handles, 1 + max(_AHEAD, remote, _AHEAD_OF_GPU if on_gpu else 0))

    def _next(self, process: int) -> tuple[Flow, Entry] | None:
        for flow in self._flows:
            if not flow.is_left and (entry := flow.next_entry(process)) is not None:
                return flow, entry
        return None

    def _reserve(self) -> None:
        """See to images that are suspected: each goes to an image process that has nothing else."""
        if any(handle.alone for handle in self._process_pool.handles):
            return
        for flow in self._flows:
            if flow.suspects and not flow.is_left:
                there = [handle for handle in self._process_pool.handles if not handle.is_gone]
                handle = min(there, key=lambda handle: len(handle.in_hand), default=None)
                if handle is None or not (handle.in_hand or self._slots.free):
                    return
                if not (handle.in_hand or handle.is_fresh):  # what another image has left in it must not count
                    if self._process_pool.will_be_filled:
                        return  # by a fresh one; this one, ended, might be the last
                    self._process_pool.replace(handle)
                    handle = self._process_pool.handles[handle.number]
                    if handle.is_gone:
                        return
                for each in self._flows:
                    each.disown(handle.number)
                handle.alone = True  # from now on it gets nothing else, and the image once it has finished the rest
                if not handle.in_hand:
                    handle.send(self._slots.give(handle, flow, flow.suspects.popleft()))
                return


def _by_turns(handles: Sequence[ProcessHandle], most: int) -> Iterator[ProcessHandle]:
    """Yield who has the fewest images, until each has so many that it is given while this goes on."""
    for level in range(most):
        for handle in handles:
            if handle.unprepared <= level:
                yield handle
