"""Which frames videos have, told by processes of their own (`trtjob.imaging.frame_lister`), as a planner asks.

FFmpeg's demuxers run there, on files of anybody's making: one that crashes them, fills the memory or has them run for
ever ends that process, and no worker.
"""

import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import IO, Any, BinaryIO

from trtjob.child_process import BEAT_S, STALL_S, Allowance, how_it_ended, said, started
from trtjob.errors import ImageError, StorageError
from trtjob.imaging.lister_protocol import LENGTH, LISTER, UNREADABLE
from trtjob.storage.listing import Entry, Frame
from trtjob.storage.protocol import ImageStorage

log = logging.getLogger(__name__)

FramesOf = Callable[[Entry], Iterator[Entry]]

# Of the most frames that a video may have, twice what they take.
_MEMORY_BYTES = 2 << 30
COSTLY_BYTES = 64 << 20  # read of one video, that is worth a word to who waits


@contextmanager
def frame_listing(
    source: ImageStorage, sampling: str | None, on_wait: Callable[[str], None] = lambda _what: None
) -> Iterator[FramesOf | None]:
    """Yield what lists the frames of a video that a sampling takes (see `sampled`), in the order in which they are
    shown; None where it takes none.

    Where some are missing in the file, the first one of each range is among these: it ends as an error record. A video
    that cannot be read is one image itself: who processes it says what is wrong. on_wait: told once a second what
    is waited for; it may raise to stop. Several threads may list frames, each of a video of its own.
    """
    if sampling is None:
        yield None
        return
    with ExitStack() as children:
        idle: list[_Child] = []

        def frames_of(video: Entry) -> Iterator[Entry]:
            # Names such as `a.mkv!.mkv` are read before all frames of `a.mkv` are taken, and others by other threads.
            try:
                child = idle.pop()
            except IndexError:
                child = _Child(*children.enter_context(started(LISTER, {}, allowance=_ALLOWANCE, env=_ONE_THREAD)))
            is_any = False
            for entry in child.frames_of(video, source, sampling, on_wait):
                is_any = True
                yield entry
            if child.is_well:
                idle.append(child)
            elif is_any:
                raise StorageError(f"a process that listed the frames of {video.key} was ended: run the command again")
            if not is_any:
                yield video

        yield frames_of


_ALLOWANCE = Allowance(memory_bytes=_MEMORY_BYTES)
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # others wait for work, of which there is none, and take a core to do so


@dataclass(slots=True)
class _Child:
    """One process that lists frames. is_well: whether it can be asked again."""

    process: subprocess.Popen[bytes]
    stream: IO[bytes]
    is_well: bool = True

    def frames_of(
        self, video: Entry, source: ImageStorage, sampling: str, on_wait: Callable[[str], None]
    ) -> Iterator[Entry]:
        try:
            file = source.open(video)
        except ImageError:
            return
        self.is_well = False
        with file, suppress(BrokenPipeError):
            self._send(json.dumps({"size": video.size_bytes, "sampling": sampling}).encode() + b"\n")
            for news in self._news(video, on_wait):
                if "read" in news:
                    self._send(_part(file, *news["read"]))
                for text, *numbers in news.get("frames", ()):
                    yield replace(video, key=f"{video.key}#t={text}", frame=Frame(*numbers))
                if "is_read" in news:
                    self.is_well = True
                    return
        how = how_it_ended(self.process.wait())
        log.warning("no frames of a video are listed", extra={"video": video.key, "cause": how})

    def _news(self, video: Entry, on_wait: Callable[[str], None]) -> Iterator[dict[str, Any]]:
        """Yield what the process says, until it ends or hangs."""
        read_bytes, heard_at = 0, time.monotonic()
        waited_at = heard_at
        for news in said(self.stream):
            now = time.monotonic()
            if now - waited_at >= BEAT_S:
                on_wait(_what_is_read(video, read_bytes))
                waited_at = now
            if news is not None:
                read_bytes += news.get("read", (0, 0))[1]
                yield news
                heard_at = time.monotonic()
            elif now - heard_at > STALL_S:
                self.process.kill()
                return

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()


def _part(file: BinaryIO, where: int, size_bytes: int) -> bytes:
    """Return a part of a file as the process takes it."""
    try:
        file.seek(where)
        data = file.read(size_bytes)
    except (ImageError, OSError):  # who processes the video meets it, too, and says so
        return LENGTH.pack(UNREADABLE)
    return LENGTH.pack(len(data)) + data


def _what_is_read(video: Entry, read_bytes: int) -> str:
    if read_bytes < COSTLY_BYTES:
        return f"looking for the frames of {video.key}"
    mb, whole_mb = read_bytes / 1e6, video.size_bytes / 1e6
    return f"{video.key} has no index of its frames, so all of it is read: {mb:,.0f} of {whole_mb:,.0f} MB"
