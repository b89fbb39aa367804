"""The image processes of a pipeline: started when the first image comes, and replaced when they end."""

import asyncio
import logging
import selectors
from collections import Counter
from collections.abc import Callable
from functools import partial

from trtjob.errors import EngineError
from trtjob.worker.pipeline.child_config import ChildConfig
from trtjob.worker.pipeline.prestart import PrestartedProcesses, end_process
from trtjob.worker.pipeline.process_handle import ProcessHandle
from trtjob.worker.pipeline.ring import Ring

log = logging.getLogger(__name__)

# Processes that end before they have begun, since one last spoke: after so many the next waits for `fill`; after so
# many, and with nobody left, there are no prospects.
_FAILED_AT_ONCE, MOST_FAILED_STARTS = 2, 6

# Frames by the number of the image process that they are for.
Packets = dict[int, list[bytes]]


class ProcessPool:
    """All image processes of one ring."""

    def __init__(
        self, ring: Ring, config: Callable[[int], ChildConfig], prestarted: PrestartedProcesses | None = None
    ) -> None:
        """config: what the process of a number is told; prestarted: who is there already."""
        self.handles: list[ProcessHandle] = []
        self._ring = ring
        self._config = config
        self._ahead = prestarted.started if prestarted else []
        self._failed_starts = 0
        self._past_s: Counter[str] = Counter()  # of processes that are gone

    @property
    def is_broken(self) -> bool:
        """Whether processes end before they can work, and none is left."""
        return self._failed_starts >= MOST_FAILED_STARTS and all(handle.is_gone for handle in self.handles)

    @property
    def will_be_filled(self) -> bool:
        """Whether one is missing that may still be started."""
        return self._failed_starts < MOST_FAILED_STARTS and any(handle.is_gone for handle in self.handles)

    def gather(self, loop: asyncio.AbstractEventLoop, selector: selectors.BaseSelector) -> None:
        """Have all be there, and be heard by a selector. Raises EngineError where they cannot be started."""
        if self.is_broken:
            self.dismiss()
        if not self.handles:
            self._failed_starts = 0
            ahead, self._ahead = self._ahead, []
            try:
                for number in range(self._ring.layout.processes):
                    self.handles.append(ProcessHandle(self._config(number), self._ring, *ahead[number : number + 1]))
            except OSError as err:
                self.dismiss()
                count = self._ring.layout.processes
                raise EngineError(
                    f"{count} image processes cannot be started: {err.strerror}. Choose fewer with --image-processes, "
                    "or allow more open files and processes (ulimit -n, ulimit -u)"
                ) from err
        self._attach = partial(ProcessHandle.attach, loop=loop, selector=selector)
        for handle in self.handles:
            if not handle.is_gone:
                self._attach(handle)

    def note_life(self) -> None:
        """Note that one of them has spoken."""
        self._failed_starts = 0

    def fill(self) -> None:
        """Start those that are missing, as far as that can be done now."""
        for number, handle in enumerate(self.handles):
            if handle.is_gone:
                self._start(number)

    def _start(self, number: int) -> None:
        try:
            handle = self.handles[number] = ProcessHandle(self._config(number), self._ring)
        except OSError as err:
            self._failed_starts += 1
            log.warning("an image process cannot be started", extra={"error": str(err)})
        else:
            self._attach(handle)

    def send(self, packets: Packets) -> None:
        """Say to each all that is for it, and to all what was held."""
        for handle in self.handles:
            handle.send(b"".join(packets.get(handle.number, ())))

    def flush(self) -> None:
        """Say to each what was held."""
        self.send({})

    def rest(self) -> None:
        """Have nobody be heard any more, for now."""
        for handle in self.handles:
            handle.detach()

    def replace(self, handle: ProcessHandle) -> str:
        """End an image process and start another in its place, now or later. Returns how it ended."""
        how = handle.end()
        self._past_s.update(handle.board.busy_s())
        if not handle.has_begun:
            self._failed_starts += 1
        if self._failed_starts < _FAILED_AT_ONCE:
            self._start(handle.number)
        return how

    def dismiss(self) -> None:
        """End all image processes."""
        for handle in self.handles:
            if not handle.is_gone:
                handle.end()
                self._past_s.update(handle.board.busy_s())
        self.handles = []
        for started in self._ahead:
            end_process(started)
        self._ahead = []

    def busy_s(self) -> Counter[str]:
        """Return the seconds of work by stage since the start."""
        total = Counter(self._past_s)
        for handle in self.handles:
            if not handle.is_gone:
                total.update(handle.board.busy_s())
        return total

    def rss_bytes(self) -> int:
        """Return the memory of those that live, without what they share."""
        return sum(handle.rss_bytes() for handle in self.handles)

    def cpu_s(self) -> float:
        """Return the CPU time of those that live."""
        return sum(handle.cpu_s() for handle in self.handles)
