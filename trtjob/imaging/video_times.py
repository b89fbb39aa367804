"""When the frames of a video are shown, and which are missing: told by its index or its packets, without decoding."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, BinaryIO, cast

import numpy as np

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.avi_times import is_avi
from trtjob.imaging.file_parts import EmptiedFile, part_of
from trtjob.imaging.sampling import NEVER, FrameTimes, IntArray
from trtjob.imaging.video_file import check_package, errors, listening, opened, packets, shown_at

# A day at 60 a second. An index may name the same bytes as any number of frames.
MOST_FRAMES = 5_000_000
MOST_PARTS = 1_000
_MOST_SHORT_S = 1  # what a file may be shorter than it says
_NEAR = 16  # frames: so far from where FFmpeg complains can be what it has not found
_ENDS = "File ended prematurely"  # said of Matroska
# What it takes to say that a frame is not coded ends within 8 bytes (ISO/IEC 14496-2, 6.2.5, with 16 bits of time); one
# that is begins with 57 bits, and has one for each 16 x 16 pixels.
_LEAST_VOP_BYTES, _TINY_PIXELS = 9, 8 * 16 * 16
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_GAP = 2  # steps between frames: from so many on, some may be missing


def frame_times(file: BinaryIO, on_step: Callable[[], None] = lambda: None) -> FrameTimes:
    """Return when the frames of a video are shown. Decodes nothing; reads the index where it says all, else all of it.

    on_step: called now and then. Frames before the first keyframe are none: players do not show them either. Raises
    ImageError.
    """
    check_package()
    with listening() as complaints:
        container, stream = _indexed(file)
        with container, errors("the video cannot be read"):
            found = _Found(
                complaints=len(complaints),
                least_bytes=_least_bytes(stream),
                kind=_kind(container),
            )
            for packet in packets(container, stream):
                if not found.take(packet, is_suspect=packet.is_corrupt or len(complaints) > found.complaints):
                    break
                found.complaints = len(complaints)
                if len(found.pts) % 1000 == 0:
                    on_step()
            if any(text.startswith(_ENDS) for _, _, text in complaints):  # a short file is read while it is opened
                found.end_early()
            if is_avi(container):
                found.part_last()
            return _ordered(container, stream, found)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a video with a clock of its own; most have one. begin, stop: where it is in the file, 0 for the file's
    beginning and end; start_s: when it begins in the video."""

    begin: int
    stop: int
    start_s: Fraction
    times: FrameTimes


def video_parts(file: BinaryIO, on_step: Callable[[], None] = lambda: None) -> list[Part]:
    """Return the parts of a video, as where transport streams were put one behind the other. Raises as `frame_times`
    does."""
    begin, start_s, parts = 0, Fraction(0), list[Part]()
    while True:
        try:
            times = frame_times(part_of(file, begin, 0), on_step)
        except ImageError:
            if not parts:
                raise
            return [*parts[:-1], _with_loss(parts[-1])]
        part = Part(begin, times.stop and begin + times.stop, start_s, times)
        parts.append(part)
        _check_count(sum(len(each.times.pts) for each in parts))
        if not times.resume:
            return parts
        if len(parts) == MOST_PARTS:
            return [*parts[:-1], _with_loss(part)]
        begin, start_s = begin + times.resume, start_s + times.length_s


def _check_count(frames: int) -> None:
    if frames > MOST_FRAMES:
        raise ImageError(FailureKind.TOO_LARGE, f"the video has more than {MOST_FRAMES:,} frames")


def _with_loss(part: Part) -> Part:
    """Return a part behind which all is missing."""
    times = part.times
    end = int((times.length_s + times.origin_s) / times.time_base)
    return replace(part, times=replace(times, lost=(*times.lost, end)))


@dataclass(slots=True)
class _Found:
    """Packets in the order of the file. suspects: when those are shown around which something may be missing;
    complaints: how many there were before the last one; least_bytes: of one with a picture; kind: of the file;
    is_partial: whether it ends within a packet; stop, resume: as of `FrameTimes`."""

    pts: "array[int]" = field(default_factory=lambda: array("q"))
    seek: "array[int]" = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_hidden: bytearray = field(default_factory=bytearray)
    suspects: list[int] = field(default_factory=list)
    complaints: int = 0
    least_bytes: int = 0
    kind: str = ""
    is_partial: bool = False
    stop: int = 0
    resume: int = 0
    _newest_key: int = NEVER
    _newest: int = NEVER
    _decoded: int = NEVER
    _newest_place: int = 0

    def take(self, packet: Any, *, is_suspect: bool) -> bool:
        """Note a packet. Returns whether more are wanted. Raises ImageError."""
        if packet.has_sidedata("encryption_info"):
            raise ImageError(FailureKind.DECODE, "the video is encrypted")
        if (shown := shown_at(packet)) is None:
            return True
        if packet.is_keyframe and self._runs_back(packet, shown):
            # Behind the head of the last packet: so what describes the streams comes along, and no frame of before.
            self.stop, self.resume = packet.pos or 0, self._newest_place + 1
            return False
        self._newest_place = packet.pos or self._newest_place
        if packet.is_keyframe:
            self._newest_key = shown
        self._newest = max(self._newest, shown)
        self._decoded = shown if packet.dts is None else packet.dts
        self.pts.append(shown)
        self.seek.append(shown if packet.dts is None else min(shown, packet.dts))
        self.is_key.append(packet.is_keyframe)
        self.is_hidden.append(packet.is_discard or packet.size < self.least_bytes)
        self.is_partial = packet.is_corrupt
        if is_suspect:
            self.suspects.append(shown)
        _check_count(len(self.pts))
        return True

    def _runs_back(self, keyframe: Any, shown: int) -> bool:
        """Whether the clock runs back, or begins again, with a keyframe: what is before one in the file is shown before
        it. In a Matroska times are rounded, and may be the same ones; in an MP4 or AVI they are not always true."""
        if self.kind == "mpegts":  # a field in the PES packet of the one before has no place, and may have its time
            is_earlier = keyframe.dts is not None and keyframe.dts < self._decoded
            return keyframe.pos is not None and (shown <= self._newest or is_earlier)
        return shown < (self._newest if self.kind == "matroska" else self._newest_key)

    def part_last(self) -> None:
        """Have the last two frames have times of their own: in an AVI FFmpeg gives them the same one, if others are
        shown in another order than they are decoded in. Which is the last one the decoder says."""
        newest = max(self.pts, default=0)
        same = [place for place, shown in enumerate(self.pts) if shown == newest]
        if len(same) > 1:
            self.pts[same[-1]] += 1
            for place in filter(None, same):
                self.is_key[place] = False

    def end_early(self) -> None:
        """Note that there are no more packets, and that there should be."""
        self.is_partial = True
        self.suspects.extend(self.pts[-1:])


def _kind(container: Any) -> str:
    """Return of which kind a file is, as FFmpeg calls it."""
    return str(container.format.name).partition(",")[0]


def _least_bytes(stream: Any) -> int:
    """Return of how many bytes a packet has a picture. In MPEG-4 one may say that the last one is still seen."""
    context = stream.codec_context
    return _LEAST_VOP_BYTES if context.name == "mpeg4" and context.width * context.height > _TINY_PIXELS else 0


def _indexed(file: BinaryIO) -> tuple[Any, Any]:
    """Open a video to go through its packets: empty ones where its index says of them all that is asked here."""
    if not _may_have_index(file):
        return opened(file)
    container, stream = _glanced(file)
    has_index = _has_index(container, stream)
    container.close()
    if not has_index:
        return opened(file)
    emptied = EmptiedFile(file)
    # Nothing is there that could be parsed.
    container, stream = _glanced(cast(BinaryIO, emptied), fflags="noparse")
    with errors("the video cannot be read"):
        emptied.leave_out(
            (entry.pos, entry.size) for each in container.streams for entry in getattr(each, "index_entries", ())
        )
    return container, stream


def _glanced(file: BinaryIO, **options: str) -> tuple[Any, Any]:
    """Open a video as `opened` does, but decode nothing of it: else FFmpeg decodes ten frames, to know what an index
    says."""
    return opened(file, on_gpu=False, skip_frame="all", probesize="50000", **options)


def _may_have_index(file: BinaryIO) -> bool:
    """Whether a file begins as an MP4 or MOV does: others are opened once."""
    file.seek(4)
    return file.read(4) in _FIRST_BOXES


def _has_index(container: Any, stream: Any) -> bool:
    """Whether the index tells which frames are keyframes. One that calls all so is not believed.

    Of a file in fragments it knows the first ones; what is behind them is read.
    """
    index = stream.index_entries
    if not container.format.name.startswith("mov") or not len(index):
        return False
    if any(entry.size < _least_bytes(stream) for entry in index):
        return False  # of an AVI by DivX once: what belongs to these lies in other packets
    return stream.codec_context.codec.intra_only or not all(entry.is_keyframe for entry in index)


def _ordered(container: Any, stream: Any, found: _Found) -> FrameTimes:
    # Two frames of the same time are one.
    times, order = np.unique(np.array(found.pts, np.int64), return_index=True)
    is_key = np.frombuffer(found.is_key, np.uint8)[order].astype(bool)
    keyframes = np.flatnonzero(is_key)
    if not len(keyframes):
        raise ImageError(FailureKind.DECODE, "the video has no frame that can be decoded by itself")
    first = int(keyframes[0])
    times, is_key, order = times[first:], is_key[first:], order[first:]
    is_hidden = np.frombuffer(found.is_hidden, np.uint8)[order].astype(bool)
    if is_hidden.all():
        raise ImageError(FailureKind.DECODE, "the video's edit list shows none of its frames")
    time_base = Fraction(stream.time_base)
    origin_s = int(times[~is_hidden][0]) * time_base
    if container.start_time is not None:
        origin_s = min(origin_s, Fraction(container.start_time, 1_000_000))
    step = int(np.median(np.diff(times))) if len(times) > 1 else 1
    end_s = (int(times[-1]) + step) * time_base - origin_s
    resume = found.resume if found.kind == "mpegts" else 0
    is_cut = not resume if found.stop else _is_short(container, stream, found, end_s)
    lost = _gaps(times, found.suspects, step, is_cut=is_cut)
    seek = np.array(found.seek, np.int64)[order]
    return FrameTimes(times, is_key, seek, time_base, origin_s, is_hidden, end_s, tuple(lost), found.stop, resume)


def _gaps(times: IntArray, suspects: list[int], step: int, *, is_cut: bool) -> list[int]:
    """Return when frames would be shown that are missing: where many steps are between two, near a suspect; and at the
    end of a file that is cut off."""
    wide = np.flatnonzero(np.diff(times) >= _GAP * step)
    near = np.searchsorted(times, np.array(suspects, np.int64))
    gaps = sorted({gap for place in near.tolist() for gap in wide[np.abs(wide - place) <= _NEAR].tolist()})
    gaps += [len(times) - 1] if is_cut else []
    ranges = [gap for before, gap in pairwise([-_NEAR - 1, *gaps]) if gap - before > _NEAR]
    return [int(times[gap]) + step for gap in ranges]


def _is_short(container: Any, stream: Any, found: _Found, end_s: Fraction) -> bool:
    """Whether a file says that it is longer."""
    length_s, kind = _length_s(container, stream), _kind(container)
    if length_s - end_s > _MOST_SHORT_S:
        return True
    if kind == "matroska":
        return found.is_partial and not 0 < length_s <= end_s
    if kind == "avi":
        return _lacks_packets(stream, found) or _is_cut_avi(stream, found, end_s)
    return kind == "mov" and (_lacks_packets(stream, found) or _is_cut_fragment(container, stream, found))


def _lacks_packets(stream: Any, found: _Found) -> bool:
    """Whether the index, as far as it was read, names packets that were not found."""
    return sum(1 for entry in stream.index_entries if entry.size) > len(found.pts)


def _is_cut_avi(stream: Any, found: _Found, end_s: Fraction) -> bool:
    """Whether an AVI ends too early and its head says that it is longer; or nothing, and it ends within a frame."""
    ticks: int = stream.frames  # of which some may have none
    is_cut = ticks > (stream.duration or 0)  # FFmpeg shortens the duration where the file ends too early
    return (is_cut and ticks * stream.time_base > end_s) or (found.is_partial and not ticks)


def _is_cut_fragment(container: Any, stream: Any, found: _Found) -> bool:
    """Whether an MP4 or MOV ends within a fragment, be it in the sound: who knows how many would be behind it?"""
    ends = [entry.pos + entry.size for each in container.streams for entry in getattr(each, "index_entries", ())]
    frames, size_bytes = int(stream.frames), int(container.size)
    return frames != len(found.pts) and max(ends, default=0) > size_bytes


def _length_s(container: Any, stream: Any) -> Fraction:
    """Return how long a file says that its pictures last, 0 where it does not say."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return Fraction(container.duration, 1_000_000)
    return Fraction(0)
