"""Which frames videos have, told by a process of its own: `python -m trtjob.jobs.frame_listing`, started by a planner.

FFmpeg's demuxers run there, on files of anybody's making: one that crashes them, fills the memory or has them run for
ever ends that process, and no worker. It opens no file and asks no bucket, but has the planner read for it.

Standard input brings the config, which is empty, then a line of JSON for each video: `{"size": ..., "sampling": ...}`.
Standard output asks for parts of it, `{"read": [where, bytes]}`; the answer is their length, four bytes, and they; or
UNREADABLE. It says that something is done, `{}`; and then brings `{"frames": [...]}` as often as is needed, at last
`{"is_read": ...}`: whether the file can be read. Frames are as `listed_frames` gives them.
"""

import io
import json
import logging
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from math import lcm
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from trtjob.child_process import (
    BEAT_S,
    Allowance,
    Say,
    child_config,
    end_when_nobody_waits,
    how_it_ended,
    said,
    started,
)
from trtjob.errors import ImageError, StorageError
from trtjob.storage.listing import Entry, Frame
from trtjob.storage.protocol import ImageStorage

if TYPE_CHECKING:
    from trtjob.imaging.video_times import Part  # loads numpy: only where videos are planned

log = logging.getLogger(__name__)

FrameRow = tuple[str, int, int, int, int, int, int]  # when it is shown, as in its key, and the numbers of `Frame`
FramesOf = Callable[[Entry], Iterator[Entry]]

UNREADABLE = (1 << 32) - 1
_LENGTH = struct.Struct(">I")
# Of the most frames that a video may have, twice what they take.
_MEMORY_BYTES = 2 << 30
STALL_S = 120.0  # without a word, such a process hangs
_PART_BYTES = 1 << 20
_ROWS = 1000  # in one line
_COSTLY_BYTES = 64 << 20  # read of one video, that is worth a word to who waits
_MILLI, _MICRO = 3, 6  # digits of a second


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
                child = _Child(*children.enter_context(started(__name__, {}, allowance=_ALLOWANCE)))
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
        return _LENGTH.pack(UNREADABLE)
    return _LENGTH.pack(len(data)) + data


def _what_is_read(video: Entry, read_bytes: int) -> str:
    if read_bytes < _COSTLY_BYTES:
        return f"looking for the frames of {video.key}"
    mb, whole_mb = read_bytes / 1e6, video.size_bytes / 1e6
    return f"{video.key} has no index of its frames, so all of it is read: {mb:,.0f} of {whole_mb:,.0f} MB"


# -- in the process itself ---------------------------------------------------------------------------------------------


class _AskedFor(io.RawIOBase):
    """A file whose parts the planner reads."""

    def __init__(self, size_bytes: int, say: Say) -> None:
        self._size = size_bytes
        self._say = say
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        size_bytes = min(len(buffer), self._size - self._at)
        if size_bytes <= 0:
            return 0
        self._say({"read": [self._at, size_bytes]})
        (length,) = _LENGTH.unpack(sys.stdin.buffer.read(_LENGTH.size))
        if length == UNREADABLE:
            raise OSError("a part of it cannot be read")
        buffer[:length] = sys.stdin.buffer.read(length)
        self._at += length
        return int(length)


def listed_frames(file: BinaryIO, sampling: str, on_step: Callable[[], None] = lambda: None) -> Iterator[FrameRow]:
    """Yield the frames of a video that a sampling takes, and the first one of each range that is missing.

    on_step: called now and then. Raises ImageError.
    """
    from trtjob.imaging.sampling import planned_frames
    from trtjob.imaging.video_times import video_parts

    parts = video_parts(file, on_step)
    planned = [planned_frames(part.times, sampling) for part in parts]
    texts = iter(_texts([(part, [frame.pts for frame in frames]) for part, frames in zip(parts, planned, strict=True)]))
    before = 0
    for part, frames in zip(parts, planned, strict=True):
        pts, seek = part.times.pts, part.times.seek
        for (shown, number, start), text in zip(frames, texts, strict=False):
            yield text, before + number, shown, int(pts[start]), int(seek[start]), part.begin, part.stop
        before += len(part.times.shown)


def _texts(shown: "list[tuple[Part, list[int]]]") -> list[str]:
    """Return when frames are shown, in seconds, as long as the last one's: so their keys are sorted as they are shown.

    To the millisecond; where that does not tell them apart, to the microsecond.
    """
    # Whole numbers: fractions take ten times as long, and there may be millions.
    whole = lcm(*(denominator for part, _ in shown for denominator in _denominators(part)))
    moments = [moment for part, pts in shown for moment in _moments(part, pts, whole)]
    width = len(str(moments[-1] // whole))
    for digits in (_MILLI, _MICRO):
        texts = [f"{(2 * moment * 10**digits + whole) // (2 * whole):0{width + digits}d}" for moment in moments]
        if all(before < after for before, after in pairwise(texts)):
            break
    return [f"{text[:-digits]}.{text[-digits:]}" for text in texts]


def _denominators(part: "Part") -> tuple[int, int, int]:
    return part.times.time_base.denominator, part.times.origin_s.denominator, part.start_s.denominator


def _moments(part: "Part", shown: list[int], whole: int) -> list[int]:
    """Return when frames of a part are shown in the video, in parts of a second of which there are `whole`."""
    tick, before = int(part.times.time_base * whole), int((part.times.origin_s - part.start_s) * whole)
    return [pts * tick - before for pts in shown]


def _list(request: dict[str, Any], say: Say) -> None:
    file = cast(BinaryIO, io.BufferedReader(_AskedFor(int(request["size"]), say), _PART_BYTES))
    try:
        rows = listed_frames(file, request["sampling"], lambda: say({}))
        while chunk := list(islice(rows, _ROWS)):
            say({"frames": chunk})
    except ImageError:
        say({"is_read": False})
    else:
        say({"is_read": True})


def main() -> None:
    """List the frames of the videos that standard input names, until it ends."""
    with child_config() as (_, say):
        end_when_nobody_waits()
        while line := sys.stdin.buffer.readline():
            _list(json.loads(line), say)


if __name__ == "__main__":
    main()
