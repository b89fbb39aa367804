"""Which frames of a video are looked at, and from which keyframe each is decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Frames that are decoded rather than passed over by seeking: a seek decodes about so many that nobody wants.
_SEEK_FRAMES = 8
# Once a run has so many, the next keyframe begins another: others can do it, and the decoder is emptied there.
RUN_FRAMES = 48
NEVER = -(1 << 63)  # before all times

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a video are shown, in their order; the first one is a keyframe.

    pts: in units of `time_base`; is_key: which are keyframes; seek: where to look for a keyframe in the file, in the
    same units; origin_s: of the container's clock when its first stream begins; is_hidden: which are decoded and not
    shown, as an edit list says; length_s: from the beginning to the end of the last frame; lost: when the first frame
    would be shown of each range that is missing; stop: where in the file the clock runs back, and resume: where it is
    opened to go on behind that, 0: nowhere.
    """

    pts: IntArray
    is_key: NDArray[np.bool_]
    seek: IntArray
    time_base: Fraction
    origin_s: Fraction
    is_hidden: NDArray[np.bool_]
    length_s: Fraction = Fraction(0)
    lost: tuple[int, ...] = ()
    stop: int = 0
    resume: int = 0

    @property
    def shown(self) -> IntArray:
        """The places of the frames that are shown: the n-th frame of the video is the n-th of these."""
        return np.flatnonzero(~self.is_hidden).astype(np.int64)

    def time_s(self, pts: int) -> Fraction:
        """Return when a frame is shown, in seconds from the beginning, exactly."""
        return pts * self.time_base - self.origin_s


def sampled(times: FrameTimes, sampling: str) -> IntArray:
    """Return the places in `times` of the frames that a sampling takes.

    sampling: `fps=N`: of each 1/N s that has a frame the first one; `every=N`: each N-th; `keyframes`.

    >>> import numpy as np
    >>> pts = np.arange(0, 300, 30)
    >>> sampled(FrameTimes(pts, pts == 0, pts, Fraction(1, 100), Fraction(0), pts < 0), "fps=1").tolist()
    [0, 4, 7]
    """
    kind, _, value = sampling.partition("=")
    shown = times.shown
    if kind == "keyframes":
        return shown[times.is_key[shown]]
    if kind == "every":
        return shown[:: int(value)]
    ticks = times.time_base * Fraction(value)
    pts = times.pts[shown]
    spans = (pts - pts[0]) * ticks.numerator // ticks.denominator
    return shown[np.flatnonzero(np.diff(spans, prepend=-1))]


def run_starts(times: FrameTimes, chosen: IntArray) -> Iterator[int]:
    """Yield, for each chosen frame, the place of the keyframe from which it is decoded.

    Those with the same one are a run: decoded one after another, by one process. So what a frame looks like does not
    depend on who decodes it, nor on what was decoded before.
    """
    numbers = np.arange(len(times.pts), dtype=np.int64)
    keyframes = np.maximum.accumulate(np.where(times.is_key, numbers, 0))
    start, previous = -1, -1
    for frame in chosen.tolist():
        key = int(keyframes[frame])
        if start < 0 or (key > previous and (key - previous > _SEEK_FRAMES or frame - start >= RUN_FRAMES)):
            start = key
        previous = frame
        yield start


class PlannedFrame(NamedTuple):
    """number: of the frame in its video, or of the next one where it is missing; start: the place of the keyframe from
    which it is decoded."""

    pts: int
    number: int
    start: int


def planned_frames(times: FrameTimes, sampling: str) -> list[PlannedFrame]:
    """Return the frames that a sampling takes, and the first one of each range that is missing, as they are shown."""
    chosen = sampled(times, sampling)
    starts = np.fromiter(run_starts(times, chosen), np.int64, len(chosen))
    lost = np.array(times.lost, np.int64)
    before = np.maximum(np.searchsorted(times.pts[chosen], lost) - 1, 0)
    pts, order = np.unique(np.concatenate([times.pts[chosen], lost]), return_index=True)
    starts = np.concatenate([starts, starts[before]])[order]
    numbers = np.searchsorted(times.pts[times.shown], pts)
    return list(map(PlannedFrame, pts.tolist(), numbers.tolist(), starts.tolist()))
