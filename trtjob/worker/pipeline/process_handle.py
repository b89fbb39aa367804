"""One image process as the engine process sees it: its pipes, its board, and the slots that it has in hand."""

import asyncio
import os
import selectors
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from trtjob.worker.pipeline.child_config import ChildConfig
from trtjob.worker.pipeline.prestart import Started, end_process, start_process
from trtjob.worker.pipeline.ring import IDLE, WAITING, Ring
from trtjob.worker.pipeline.wire import READ_BYTES, Frame, FrameReader, Kind, frame, widen

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ProcessHandle:
    """One image process.

    in_hand: the slots that it was given and has not handed back; unprepared: how many of them are not prepared yet;
    alone: it has, or waits for, an image that nothing else may be beside; is_fresh: it never had an image.
    """

    def __init__(self, config: ChildConfig, ring: Ring, started: Started | None = None) -> None:
        """started: its process, where that was started already. Raises OSError."""
        self._started = started or start_process(ring.fd)
        self.process = self._started.process
        self.number = config.number
        self.in_hand: set[int] = set()
        self.jobs: set[int] = set()
        self.unprepared = 0
        self.alone = False
        self.is_fresh = True
        self.has_begun = False
        self.is_gone = False
        self.board = ring.boards[config.number]
        self.board.clear()
        self._reader = FrameReader()
        self._backlog, self._held = bytearray(), bytearray()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._selector: selectors.BaseSelector | None = None
        self._moved = (0, time.monotonic())
        self._pinged_at: float | None = None
        self._commands, self._answers = self._started.commands, self._started.answers
        for pipe in (self._commands, self._answers):
            widen(pipe)
            os.set_blocking(pipe, False)
        self.send(frame(Kind.START, 0, config.document()))

    def attach(self, loop: asyncio.AbstractEventLoop, selector: selectors.BaseSelector) -> None:
        """Be heard by a selector, and send what finds no room in a loop."""
        self._loop, self._selector = loop, selector
        selector.register(self._answers, selectors.EVENT_READ, self)
        if self._backlog:
            loop.add_writer(self._commands, self._send_backlog)

    def detach(self) -> None:
        if self._loop is not None and self._selector is not None:
            self._selector.unregister(self._answers)
            self._loop.remove_writer(self._commands)
        self._loop = self._selector = None

    def hold(self, data: bytes) -> None:
        """Send frames with those that are sent next."""
        self._held += data

    def send(self, data: bytes = b"") -> None:
        """Send frames, behind those that were held. Never waits: what finds no room goes later, and what finds nobody
        is not needed any more.
        """
        if self._held:
            data = bytes(self._held) + data
            self._held.clear()
        if self.is_gone or not data:
            return
        if not self._backlog:
            with suppress(BlockingIOError, BrokenPipeError):
                data = data[os.write(self._commands, data) :]
            if not data:
                return
            if self._loop is not None:
                self._loop.add_writer(self._commands, self._send_backlog)
        self._backlog += data

    def _send_backlog(self) -> None:
        try:
            del self._backlog[: os.write(self._commands, self._backlog)]
        except BlockingIOError:
            return
        except BrokenPipeError:  # its death is heard on the other pipe
            self._backlog.clear()
        if not self._backlog and self._loop is not None:
            self._loop.remove_writer(self._commands)

    def hear(self) -> Iterator[Frame] | None:
        """Return what has been said since the last time; None where the process is gone."""
        try:
            data = os.read(self._answers, READ_BYTES)
        except BlockingIOError:
            return iter(())
        if not data:
            return None
        self.has_begun, self._pinged_at = True, None
        return self._reader.frames(data)

    def hangs(self, stall_s: float) -> bool:
        """Tell whether it has been at one image for too long, or is at none and does not answer. To be asked again and
        again."""
        steps, now = self.board.steps, time.monotonic()
        if self.board.slot == IDLE:
            self._moved = (steps, now)
            return self._is_silent(stall_s)
        if steps != self._moved[0]:
            self._moved = (steps, now)
        return now - self._moved[1] > stall_s

    @property
    def is_at_place(self) -> bool:
        """Whether it waits for a file or a bucket: who stands still there says nothing of the image."""
        return self.board.slot != IDLE and self.board.stage_now in WAITING

    def _is_silent(self, stall_s: float) -> bool:
        if not self.in_hand:
            return False
        if self._pinged_at is None:
            self._pinged_at = time.monotonic()
            self.send(frame(Kind.PING, 0))
        return time.monotonic() - self._pinged_at > stall_s

    @property
    def idle_s(self) -> float:
        """For how long there was no step, as far as `hangs` has seen."""
        return time.monotonic() - self._moved[1]

    def rss_bytes(self) -> int:
        """Return what the process has in memory that nobody shares with it."""
        if not self.has_begun:
            return 0
        try:
            _, resident, shared, *_ = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        except (OSError, ValueError):
            return 0
        return (int(resident) - int(shared)) * _PAGE_BYTES

    def cpu_s(self) -> float:
        """Return the process's CPU time (proc(5): utime and stime, the 12th and 13th behind the name)."""
        if not self.has_begun:
            return 0.0
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S

    def end(self) -> str:
        """End the process and give everything back. Returns how it ended."""
        self.is_gone = True
        self.detach()
        return end_process(self._started)
