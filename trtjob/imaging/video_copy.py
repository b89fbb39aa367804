"""A copy of a video in which every frame is drawn on: H.264, or MPEG-4 where this FFmpeg has no encoder for that."""

from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import PurePosixPath
from typing import Any, BinaryIO

import cv2

from trtjob.imaging.file_parts import beginning_of
from trtjob.imaging.sampling import FrameTimes
from trtjob.imaging.video import UInt8Array, pixels_of
from trtjob.imaging.video_file import NEVER, errors, opened

# A frame's time in seconds, and its pixels, BGR.
Draw = Callable[[float, UInt8Array], UInt8Array]
OnTime = Callable[[float], None]

_FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
OTHER_SUFFIX = ".mkv"  # of what is not written under its own name
# Of x264 and of FFmpeg's own MPEG-4. So many threads on every machine: they decide which bytes come out.
_H264 = {"preset": "veryfast", "crf": "23", "threads": "4"}
_MPEG4 = {"qscale": "4", "threads": "4"}
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
    times: FrameTimes,
    *,
    comment: str,
    max_pixels: int,
    on_time: OnTime = lambda _seconds: None,
) -> None:
    """Decode a video, draw on each frame that is shown and encode it; sound is copied. Begins at time 0.

    suffix: of the copy, which tells its kind; draw: may draw in place; comment: is written into the copy; max_pixels:
    a larger frame is left out; on_time: told how far it is, for each frame. Raises ImageError.
    """
    import av

    container, stream = opened(beginning_of(file, times.stop))
    stream.codec_context.options = {"max_pixels": str(max_pixels)}
    with container, errors("the annotated video cannot be written"):
        sounds = [each for each in container.streams.audio if each.codec_context is not None]
        for sound in sounds:
            sound.discard = av.stream.Discard.default
        with av.open(copy, "w", format=_FORMATS[suffix.lower()], options=_SAME_BYTES) as target:
            target.metadata["comment"] = comment
            tracks = {sound.index: target.add_stream_from_template(sound) for sound in sounds}
            pictures = _Pictures(target, stream, draw, times, on_time)
            early: list[Any] = []  # sound before the first picture: the file begins when all of its streams are known
            for packet in container.demux([stream, *sounds]):
                if packet.stream is stream:
                    pictures.add(packet)
                elif packet.dts is not None:
                    _shift(packet, times.origin_s)
                    packet.stream = tracks[packet.stream.index]
                    early.append(packet)
                if pictures.are_begun:
                    target.mux(early)
                    early.clear()
            pictures.end()


def _shift(packet: Any, origin_s: Fraction) -> None:
    ticks = round(origin_s / packet.time_base)
    packet.pts, packet.dts = (None if time is None else time - ticks for time in (packet.pts, packet.dts))


class _Pictures:
    """The pictures of a copy, from packets of its source."""

    def __init__(self, target: Any, source: Any, draw: Draw, times: FrameTimes, on_time: OnTime) -> None:
        self._target = target
        self._source = source
        self._draw = draw
        self._times = times
        self._on_time = on_time
        self._stream: Any = None
        self._written = NEVER

    @property
    def are_begun(self) -> bool:
        return self._stream is not None

    def add(self, packet: Any) -> None:
        """Draw on the frames that a packet completes."""
        import av

        frames: list[Any] = []
        with suppress(av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError, av.error.EOFError):
            frames = self._source.codec_context.decode(packet)
        for frame in frames:
            if frame.pts is not None and frame.pts > self._written:
                self._written = frame.pts
                self._encode(frame)

    def end(self) -> None:
        """Write what the encoder still holds."""
        if self._stream is not None:
            self._target.mux(self._stream.encode())

    def _encode(self, frame: Any) -> None:
        import av

        seconds = float(self._times.time_s(frame.pts))
        image = self._draw(seconds, pixels_of(frame))
        height, width = (side + side % 2 for side in image.shape[:2])
        if self._stream is None:
            self._stream = self._opened(width, height)
        if image.shape[:2] != (self._stream.height, self._stream.width):
            image = _fitted(image, self._stream.height, self._stream.width)
        drawn = av.VideoFrame.from_ndarray(image, "bgr24")
        drawn = drawn.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED)
        drawn.pts = frame.pts - round(self._times.origin_s / self._times.time_base)
        drawn.time_base = self._times.time_base
        self._target.mux(self._stream.encode(drawn))
        self._on_time(seconds)

    def _opened(self, width: int, height: int) -> Any:
        import av

        encoder, options = ("libx264", _H264) if "libx264" in av.codecs_available else ("mpeg4", _MPEG4)
        stream = self._target.add_stream(encoder, rate=self._source.average_rate or 25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = self._times.time_base
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT709, _LIMITED
        return stream


def _fitted(image: UInt8Array, height: int, width: int) -> UInt8Array:
    """Return an image in the size of the copy: a row or column more, or, where the stream has changed, resized."""
    missing = height - image.shape[0], width - image.shape[1]
    if all(0 <= more <= 1 for more in missing):
        return cv2.copyMakeBorder(image, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE).astype(image.dtype)
    return cv2.resize(image, (width, height)).astype(image.dtype)
