"""A copy of a video in which every frame is drawn on: H.264, or MPEG-4 where this FFmpeg has no encoder for that."""

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import cv2

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.avi_times import ShownTimes, mended
from trtjob.imaging.file_parts import part_of
from trtjob.imaging.sampling import NEVER
from trtjob.imaging.video import Picture, UInt8Array
from trtjob.imaging.video_file import errors, opened
from trtjob.imaging.video_times import Part

# A frame's time in seconds, and its pixels, BGR.
Draw = Callable[[float, UInt8Array], UInt8Array]
OnTime = Callable[[float], None]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
OTHER_SUFFIX = ".mkv"  # of what is not written under its own name
# Of x264 and of FFmpeg's own MPEG-4. So many threads on every machine: they decide which bytes come out.
_H264 = {"preset": "veryfast", "crf": "23", "threads": "4"}
_MPEG4 = {"qscale": "4", "threads": "4"}
# What decoders add to a side of a picture: they round it up, and MPEG-1 to -4 have a buffer of some 280 rows
# (EMU_EDGE_HEIGHT in FFmpeg's mpegpicture.c), however low it is.
_DECODERS_PX = 280
_SAME_BYTES = {"fflags": "+bitexact"}  # no identity by chance, no version of FFmpeg
_BT709, _LIMITED = 1, 1


def copy_suffix(name: str) -> str:
    """Return what a copy has behind the name of its video: nothing where its kind is written.

    >>> copy_suffix("a.MP4"), copy_suffix("a.avi")
    ('', '.mkv')
    """
    return "" if PurePosixPath(name).suffix.lower() in _FORMATS else OTHER_SUFFIX


def write_copy(
    file: BinaryIO,
    copy: BinaryIO,
    suffix: str,
    draw: Draw,
    parts: Sequence[Part],
    *,
    comment: str,
    max_hw: tuple[int, int],
    on_time: OnTime = lambda _seconds: None,
) -> None:
    """Decode a video, draw on each frame that is shown and encode it; sound is copied. Begins at time 0.

    suffix: of the copy, which tells its kind; draw: may draw in place; comment: is written into the copy; max_hw:
    a frame of more pixels is left out; on_time: told how far it is, for each frame. Raises ImageError.
    """
    import av

    with (
        errors("the annotated video cannot be written"),
        av.open(copy, "w", format=_FORMATS[suffix.lower()], options=_SAME_BYTES) as target,
    ):
        target.metadata["comment"] = comment
        writer = _Writer(target, draw, max_hw, on_time)
        for part in parts:
            writer.add(part_of(file, part.begin, part.stop), part)
        writer.end()


class _Writer:
    """What writes a copy, from the parts of its source."""

    def __init__(self, target: Any, draw: Draw, max_hw: tuple[int, int], on_time: OnTime) -> None:
        self._target = target
        self._draw = draw
        self._max_hw = max_hw
        self._on_time = on_time
        self._pictures: Any = None  # the stream, once the first picture says how large it is
        self._sounds: dict[int, Any] | None = None
        self._early: list[Any] = []  # sound before that: the file begins when all of its streams are known
        self._written: dict[int, int] = {}  # the newest time in each stream

    def add(self, file: BinaryIO, part: Part) -> None:
        """Copy a part."""
        import av

        container, stream = opened(file)
        with container:
            decoded = math.prod(side + _DECODERS_PX for side in self._max_hw)
            stream.codec_context.options = {"max_pixels": str(decoded)}
            sounds = [each for each in container.streams.audio if each.codec_context is not None]
            for sound in sounds:
                sound.discard = av.stream.Discard.default
            if self._sounds is None:
                self._sounds = {sound.index: self._target.add_stream_from_template(sound) for sound in sounds}
            times = ShownTimes(container, stream)
            for packet in mended(container.demux([stream, *sounds]), container, stream):
                if packet.stream is stream:
                    times.feed(packet)
                    self._add_pictures(packet, times, part)
                elif packet.dts is not None and packet.stream.index in self._sounds:
                    self._add_sound(packet, part, self._sounds[packet.stream.index])

    def end(self) -> None:
        """Write what the encoder still holds. Raises ImageError where there was no picture."""
        if self._pictures is None:
            raise ImageError(FailureKind.DECODE, "no frame of it can be decoded")
        self._target.mux(self._pictures.encode())

    def _add_sound(self, packet: Any, part: Part, stream: Any) -> None:
        ticks = _ticks(part, packet.time_base)
        packet.pts, packet.dts = (None if time is None else time - ticks for time in (packet.pts, packet.dts))
        packet.stream = stream
        if packet.dts <= self._written.get(stream.index, NEVER):
            return  # where parts overlap
        self._written[stream.index] = packet.dts
        self._early.append(packet)
        self._write_early()

    def _write_early(self) -> None:
        if self._pictures is not None:
            self._target.mux(self._early)
            self._early.clear()

    def _add_pictures(self, packet: Any, times: ShownTimes, part: Part) -> None:
        """Draw on the frames that a packet completes."""
        import av

        frames: list[Any] = []
        with suppress(av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError, av.error.EOFError):
            frames = packet.stream.codec_context.decode(packet)
        for frame in frames:
            if times.has_time(frame) and frame.height * frame.width <= math.prod(self._max_hw):
                self._add_picture(frame, part, packet.stream.average_rate or 25)

    def _add_picture(self, frame: Any, part: Part, rate: Fraction | int) -> None:
        import av

        time_base = part.times.time_base
        pts = frame.pts - _ticks(part, time_base)
        seconds = float(pts * time_base)
        image = self._draw(seconds, Picture(frame).bgr())
        if self._pictures is None:
            height, width = (side + side % 2 for side in image.shape[:2])
            self._pictures = self._opened(height, width, time_base, rate)
            self._write_early()
        if pts <= self._written.get(self._pictures.index, NEVER):
            return
        self._written[self._pictures.index] = pts
        image = _fitted(image, self._pictures.height, self._pictures.width)
        drawn = av.VideoFrame.from_ndarray(image, "bgr24")
        drawn = drawn.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)
        drawn.pts, drawn.time_base = pts, time_base
        self._target.mux(self._pictures.encode(drawn))
        self._on_time(seconds)

    def _opened(self, height: int, width: int, time_base: Fraction, rate: Fraction | int) -> Any:
        import av

        encoder, options = ("libx264", _H264) if "libx264" in av.codecs_available else ("mpeg4", _MPEG4)
        stream = self._target.add_stream(encoder, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.time_base = time_base
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT709, _LIMITED
        return stream


def _ticks(part: Part, time_base: Fraction) -> int:
    """Return what to take from a time of a part to have the video's."""
    return round((part.times.origin_s - part.start_s) / time_base)


def _fitted(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Return an image in the size of the copy: a row or column more, or, where the stream has changed, resized."""
    if image.shape[:2] == (height, width):
        return image
    missing = height - image.shape[0], width - image.shape[1]
    if all(0 <= more <= 1 for more in missing):
        return cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE).astype(image.dtype)
    return cv2.resize(image, (width, height)).astype(image.dtype)
