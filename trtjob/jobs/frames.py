"""Frames of videos as images of their own: `clip.mp4#t=12.040` is what `clip.mp4` shows at 12.04 seconds.

Which frames a video has is known when the job is planned, so that each is planned, done, counted and tried again as
every image is.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from trtjob.errors import ImageError
from trtjob.storage.listing import VIDEO_SUFFIXES, Entry, Frame, suffix_of
from trtjob.storage.protocol import ImageStorage

if TYPE_CHECKING:
    from trtjob.imaging.sampling import FrameTimes  # loads numpy: only where videos are planned

_MILLI, _MICRO = 3, 6  # digits of a second


def is_video(key: str) -> bool:
    """Whether a file is a video, by its name.

    >>> is_video("night/CLIP.MP4"), is_video("a.jpg")
    (True, False)
    """
    return suffix_of(key) in VIDEO_SUFFIXES


def time_s(key: str) -> float:
    """Return when the frame with this key is shown, in seconds.

    >>> time_s("clip.mp4#t=12.040")
    12.04
    """
    return float(key.rpartition("#t=")[2])


def video_key(key: str) -> str:
    """Return the video in which the frame with this key is.

    >>> video_key("clip.mp4#t=12.040")
    'clip.mp4'
    """
    return key.rpartition("#t=")[0]


def names_frame(key: str) -> bool:
    """Whether an image's key names a frame of a video.

    >>> names_frame("clip.mp4#t=12.040"), names_frame("a#t=1.jpg")
    (True, False)
    """
    return is_video(video_key(key))


def frames_of(
    video: Entry, source: ImageStorage, sampling: str, on_step: Callable[[], None] = lambda: None
) -> Iterator[Entry]:
    """Yield the frames of a video that a sampling takes (see `sampled`), in the order in which they are shown.

    Where some are missing at the end of the file, the first one of them is among these: it ends as an error record. A
    video that cannot be read is one image itself: who processes it says what is wrong. on_step: called now and then.
    """
    from trtjob.imaging.sampling import run_starts, sampled
    from trtjob.imaging.video import frame_times

    try:
        with source.open(video) as file:
            times = frame_times(file, on_step)
    except ImageError:
        yield video
        return
    chosen = sampled(times, sampling)
    numbers, starts = chosen.tolist(), list(run_starts(times, chosen))
    shown = times.pts[chosen].tolist()
    if times.lost_pts is not None:
        numbers.append(len(times.pts))
        shown.append(times.lost_pts)
        starts.append(starts[-1])
    for number, pts, start, time in zip(numbers, shown, starts, _texts(times, shown), strict=True):
        frame = Frame(number, pts, int(times.pts[start]), int(times.seek[start]))
        yield replace(video, key=f"{video.key}#t={time}", frame=frame)


def _texts(times: "FrameTimes", shown: list[int]) -> list[str]:
    """Return when frames are shown, in seconds, as long as the last one's: so their keys are sorted as they are shown.

    To the millisecond; where that does not tell them apart, to the microsecond.
    """
    seconds = [times.time_s(pts) for pts in shown]
    width = len(str(int(seconds[-1])))
    for digits in (_MILLI, _MICRO):
        texts = [f"{round(second * 10**digits):0{width + digits}d}" for second in seconds]
        if all(before < after for before, after in pairwise(texts)):
            break
    return [f"{text[:-digits]}.{text[-digits:]}" for text in texts]
