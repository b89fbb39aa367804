"""Which frames of a video are looked at, and from which keyframe each is decoded."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

# Frames that are decoded rather than passed over by seeking: a seek decodes about so many that nobody wants.
_SEEK_FRAMES = 8
# Once a run has so many, the next keyframe begins another: what is decoded twice is little, and others can do it.
_RUN_FRAMES = 48

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """When the frames of a video are shown, in their order; the first one is a keyframe.

    pts: in units of `time_base`; is_key: which are keyframes; seek: where to look for a keyframe in the file, in the
    same units; origin_s: of the container's clock when its first stream begins; lost_pts: when the first frame would be
    shown of those that the file should have behind these, None where it has all.
    """

    pts: IntArray
    is_key: NDArray[np.bool_]
    seek: IntArray
    time_base: Fraction
    origin_s: Fraction
    lost_pts: int | None = None

    def time_s(self, pts: int) -> Fraction:
        """Return when a frame is shown, in seconds from the beginning, exactly."""
        return pts * self.time_base - self.origin_s


def sampled(times: FrameTimes, sampling: str) -> IntArray:
    """Return the numbers of the frames that a sampling takes.

    sampling: `fps=N`: of each 1/N s that has a frame the first one; `every=N`: each N-th; `keyframes`.

    >>> import numpy as np
    >>> pts = np.arange(0, 300, 30)
    >>> sampled(FrameTimes(pts, pts == 0, pts, Fraction(1, 100), Fraction(0)), "fps=1").tolist()
    [0, 4, 7]
    """
    kind, _, value = sampling.partition("=")
    if kind == "keyframes":
        return np.flatnonzero(times.is_key).astype(np.int64)
    if kind == "every":
        return np.arange(0, len(times.pts), int(value), dtype=np.int64)
    ticks = times.time_base * Fraction(value)
    spans = (times.pts - times.pts[0]) * ticks.numerator // ticks.denominator
    return np.flatnonzero(np.diff(spans, prepend=-1)).astype(np.int64)


def run_starts(times: FrameTimes, chosen: IntArray) -> Iterator[int]:
    """Yield, for each chosen frame, the number of the keyframe from which it is decoded.

    Those with the same one are a run: decoded one after another, by one process. So what a frame looks like does not
    depend on who decodes it, nor on what was decoded before.
    """
    numbers = np.arange(len(times.pts), dtype=np.int64)
    keyframes = np.maximum.accumulate(np.where(times.is_key, numbers, 0))
    start, previous = -1, -1
    for frame in chosen.tolist():
        key = int(keyframes[frame])
        if start < 0 or (key > previous and (key - previous > _SEEK_FRAMES or frame - start >= _RUN_FRAMES)):
            start = key
        previous = frame
        yield start
