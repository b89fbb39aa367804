"""A process that lists the frames of videos: `python -m trtjob.imaging.frame_lister`, started by a planner.

It opens no file and asks no bucket, but has the planner read for it.
"""

import io
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice, pairwise
from math import lcm
from typing import Any, BinaryIO

from trtjob.child_process import Say, child_config, end_when_nobody_waits
from trtjob.errors import ImageError
from trtjob.imaging.lister_protocol import LENGTH, UNREADABLE, FrameRow
from trtjob.imaging.sampling import planned_frames
from trtjob.imaging.video_times import Part, video_parts
from trtjob.ranged_file import RangedFile

_PART_BYTES = 1 << 20
_ROWS = 1000  # in one line
_MILLI, _MICRO = 3, 6  # digits of a second


def _read_by_planner(begin: int, end: int, say: Say) -> bytes:
    say({"read": [begin, end - begin]})
    (length,) = LENGTH.unpack(sys.stdin.buffer.read(LENGTH.size))
    if length == UNREADABLE:
        raise OSError("a part of it cannot be read")
    return sys.stdin.buffer.read(length)


def listed_frames(file: BinaryIO, sampling: str, on_step: Callable[[], None] = lambda: None) -> Iterator[FrameRow]:
    """Yield the frames of a video that a sampling takes, and the first one of each range that is missing.

    on_step: called now and then. Raises ImageError.
    """
    parts = video_parts(file, on_step)
    planned = [planned_frames(part.times, sampling) for part in parts]
    texts = iter(_texts([(part, [frame.pts for frame in frames]) for part, frames in zip(parts, planned, strict=True)]))
    before = 0
    for part, frames in zip(parts, planned, strict=True):
        pts, seek = part.times.pts, part.times.seek
        for (shown, number, start), text in zip(frames, texts, strict=False):
            yield text, before + number, shown, int(pts[start]), int(seek[start]), part.begin, part.stop
        before += len(part.times.shown)


def _texts(shown: list[tuple[Part, list[int]]]) -> list[str]:
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


def _denominators(part: Part) -> tuple[int, int, int]:
    return part.times.time_base.denominator, part.times.origin_s.denominator, part.start_s.denominator


def _moments(part: Part, shown: list[int], whole: int) -> list[int]:
    """Return when frames of a part are shown in the video, in parts of a second of which there are `whole`."""
    tick, before = int(part.times.time_base * whole), int((part.times.origin_s - part.start_s) * whole)
    return [pts * tick - before for pts in shown]


def _list(request: dict[str, Any], say: Say) -> None:
    file = io.BufferedReader(RangedFile(int(request["size"]), partial(_read_by_planner, say=say)), _PART_BYTES)
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
