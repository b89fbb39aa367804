"""The image processes of a pipeline: started when the first image comes, and replaced when they end."""

import asyncio
import selectors
from collections import Counter
from collections.abc import Callable

from trtjob.worker.pipeline.member import Member
from trtjob.worker.pipeline.order import Order
from trtjob.worker.pipeline.recruits import Recruits, end_process
from trtjob.worker.pipeline.ring import Ring

MOST_FAILED_STARTS = 3


class Crew:
    """All image processes of one ring."""

    def __init__(self, ring: Ring, order: Callable[[int], Order], recruits: Recruits | None = None) -> None:
        """order: what the process of a number is told; recruits: who is there already."""
        self.members: list[Member] = []
        self._ring = ring
        self._order = order
        self._ahead = recruits.processes if recruits else []
        self._failed_starts = 0
        self._past_s: Counter[str] = Counter()  # of processes that are gone

    @property
    def is_broken(self) -> bool:
        """Whether processes end before they can work."""
        return self._failed_starts >= MOST_FAILED_STARTS

    def gather(self, loop: asyncio.AbstractEventLoop, ears: selectors.BaseSelector) -> None:
        """Have all be there, and be heard by a selector."""
        if self.is_broken:
            self.dismiss()
        if not self.members:
            self._failed_starts = 0
            ahead, self._ahead = self._ahead, []
            for number in range(self._ring.layout.processes):
                self.members.append(Member(self._order(number), self._ring, *ahead[number : number + 1]))
        for member in self.members:
            member.attach(loop, ears)

    def rest(self) -> None:
        """Have nobody be heard any more, for now."""
        for member in self.members:
            member.detach()

    def replace(self, member: Member, loop: asyncio.AbstractEventLoop, ears: selectors.BaseSelector) -> str:
        """End an image process and start another in its place, unless that has no prospects. Returns how it ended."""
        how = member.end()
        self._past_s.update(member.board.busy_s())
        self._failed_starts = 0 if member.has_worked else self._failed_starts + 1
        if not self.is_broken:
            self.members[member.number] = Member(self._order(member.number), self._ring)
            self.members[member.number].attach(loop, ears)
        return how

    def dismiss(self) -> None:
        """End all image processes."""
        for member in self.members:
            member.dismiss()
        for member in self.members:
            member.end()
            self._past_s.update(member.board.busy_s())
        self.members = []
        for process in self._ahead:
            end_process(process)
        self._ahead = []

    def busy_s(self) -> Counter[str]:
        """Return the seconds of work by stage since the start."""
        total = Counter(self._past_s)
        for member in self.members:
            total.update(member.board.busy_s())
        return total

    def rss_bytes(self) -> int:
        """Return the memory of those that live, without what they share."""
        return sum(member.rss_bytes() for member in self.members)

    def cpu_s(self) -> float:
        """Return the CPU time of those that live."""
        return sum(member.cpu_s() for member in self.members)
