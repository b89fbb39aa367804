"""The frames of a video file: their pixels, turned as they are to be seen."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain, islice
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.avi_times import ShownTimes
from trtjob.imaging.file_parts import part_of
from trtjob.imaging.headers import check_size
from trtjob.imaging.planes import Planes, planes_of
from trtjob.imaging.sampling import NEVER, RUN_FRAMES
from trtjob.imaging.video_file import errors, fresh_decoder, gpu_bytes, listening, opened, packets, shown_at
from trtjob.memory import bounded_allocations

UInt8Array = NDArray[np.uint8]

# For a decoder with the frames that it refers to (16 in H.264, 1.5 bytes a pixel, or 3 of 10 bits), and the frame.
_MOST_PIXEL_BYTES, _SPARE_BYTES = 96, 256 << 20
DECODING_BYTES = 24  # for a pixel, of what most files need
_HARMLESS = "mmco: "  # said of a stream that is decoded from its middle on: frames before it are missed
# As NVDEC gives pixels, and as the CPU's decoders do: without this step FFmpeg's other way to BGR would be taken.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
_BACK_S = (0, 1, 10)  # so much before a keyframe it is looked for, where it was not found behind
_MOST_REORDERED = 16  # frames that H.264 and HEVC show before one that comes before them in the file


class VideoReader:
    """The frames of one open video. Those of a run, asked for in their order, are decoded once.

    Memory holds one decoder, and the frame at hand.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        max_pixels: int,
        begin: int = 0,
        stop: int = 0,
        on_gpu: bool = False,
        on_step: Callable[[], None] = lambda: None,
    ) -> None:
        """file: closed with the reader, and where this raises; begin, stop: the part of it that is read, see `Part`;
        on_gpu: whether NVDEC decodes what it can: the pixels are the same, and damage within them is not noticed;
        on_step: called for each frame that is decoded.

        Raises ImageError.
        """
        self._read = part_of(file, begin, stop)
        self._on_gpu = on_gpu
        self._file = file
        self._max_pixels = max_pixels
        self._on_step = on_step
        self._container: Any = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._container, self._stream = opened(self._read, on_gpu=self._on_gpu)
        context: Any = self._stream.codec_context
        check_size(context.width, context.height, self._max_pixels)
        context.options = {"max_pixels": str(self._max_pixels)}  # a stream may change its size in the middle
        self.pixels: int = context.width * context.height
        self._start_pts: int | None = None
        self._frames: Iterator[tuple[Any, str]] = iter(())
        self._ahead: tuple[Any, str] | None = None
        self._shown = NEVER

    @property
    def is_on_gpu(self) -> bool:
        """Whether NVDEC decodes this video."""
        return bool(self._stream.codec_context.is_hwaccel)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._file.close()

    def picture(self, pts: int, *, start_pts: int, seek: int) -> "tuple[Picture, str | None]":
        """Return a frame, and what is wrong with it, None where nothing is known.

        pts: of the frame; start_pts: of the keyframe from which it is decoded; seek: where that is looked for. See
        FrameTimes. Raises ImageError.
        """
        most_bytes = _SPARE_BYTES + _MOST_PIXEL_BYTES * self.pixels + gpu_bytes(self._on_gpu)
        with errors("the video is damaged"), bounded_allocations(most_bytes):
            if start_pts != self._start_pts or pts <= self._shown:
                self._start(start_pts, seek)
            while (found := self._next()) is not None:
                frame, damage = found
                if frame.pts == pts:
                    self._shown = pts
                    check_size(frame.width, frame.height, self._max_pixels)
                    return Picture(frame), damage or None
                if frame.pts > pts:
                    self._ahead = found
                    break
                self._shown = frame.pts
        raise ImageError(FailureKind.DECODE, "no frame can be decoded here: the video is cut off or damaged")

    def _next(self) -> tuple[Any, str] | None:
        found, self._ahead = self._ahead, None
        return next(self._frames, None) if found is None else found

    def _start(self, start_pts: int, seek: int) -> None:
        """Begin to decode at a keyframe."""
        self._frames = self._decoded(self._packets_from(start_pts, seek), start_pts)
        self._start_pts, self._ahead, self._shown = start_pts, None, NEVER

    def _packets_from(self, start_pts: int, seek: int) -> Iterator[Any]:
        """Return the packets from a keyframe on. Raises ImageError where it is not there."""
        import av

        for back_s in _BACK_S:
            try:
                self._container.seek(seek - int(back_s / self._stream.time_base), stream=self._stream)
            except av.FFmpegError:
                continue
            if (found := self._found(start_pts)) is not None:
                return found
        self._container.close()
        self._open()  # a file without an index, which is read from its beginning
        if (found := self._found(start_pts)) is not None:
            return found
        raise ImageError(FailureKind.DECODE, "the keyframe before it is not there any more")

    def _found(self, start_pts: int) -> Iterator[Any] | None:
        found = packets(self._container, self._stream)
        for number, packet in enumerate(found):
            shown = shown_at(packet)
            if shown == start_pts:
                return chain([packet], found)
            if packet.is_keyframe and shown is not None and shown > start_pts:
                return None
            if number % 1000 == 0:
                self._on_step()
        return None

    def _decoded(self, found: Iterator[Any], start_pts: int) -> Iterator[tuple[Any, str]]:
        """Yield frames, and what is wrong with each: what refers to a damaged one is damaged, until a keyframe."""
        import av

        damage, newest_key, damaged_key = "", NEVER, NEVER  # the last keyframe fed, and the last one before the damage
        times = ShownTimes(self._container, self._stream)
        decoder = fresh_decoder(self._stream, self._stream.codec_context, self._max_pixels)
        for packet in _fed(found, start_pts):
            shown = None if packet is None else shown_at(packet)
            if shown is not None and packet.is_keyframe:
                newest_key = shown
            frames, said = [], ""
            with listening() as complaints:
                try:
                    times.feed(packet)
                    frames = decoder.decode(packet)
                except (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError) as err:
                    said = str(err.strerror)
                except av.error.EOFError:
                    return
            if said := said or _first_of(complaints):
                damage, damaged_key = f"the video is damaged here: {said}", newest_key
            for frame in filter(times.has_time, frames):
                self._on_step()
                if frame.is_corrupt:
                    damage, damaged_key = damage or "the video is damaged here", newest_key
                elif frame.key_frame and frame.pts > damaged_key:
                    damage = ""
                yield frame, damage
            if packet is None:
                decoder = fresh_decoder(self._stream, decoder, self._max_pixels)
                times.end()


def _fed(found: Iterator[Any], start_pts: int) -> Iterator[Any]:
    """Yield what a decoder is given of the packets from a keyframe on; None: it is emptied, and begins anew.

    That is at their end, and before a keyframe with which another run begins in any case (`run_starts`): else that
    would be decoded, which takes as long as ten other frames, to have the last few that are shown before it.
    """
    found = (packet for packet in found if not _is_before(packet, start_pts))
    count = 0
    for packet in found:
        count += 1
        if packet.is_keyframe and count > RUN_FRAMES:
            behind = list(islice(found, _MOST_REORDERED))
            if _is_closed(packet, behind):
                yield None
                count = 1
            yield from (packet, *behind)
            count += len(behind)
        else:
            yield packet
    yield None


def _is_before(packet: Any, start_pts: int) -> bool:
    """Whether a packet refers to frames before the keyframe, and is another run's."""
    shown = shown_at(packet)
    return shown is not None and shown < start_pts


def _is_closed(keyframe: Any, behind: list[Any]) -> bool:
    """Whether nothing that comes behind a keyframe in the file is shown before it, as far as times are told."""
    return keyframe.pts is not None and all(packet.pts is not None and packet.pts > keyframe.pts for packet in behind)


def _first_of(complaints: list[tuple[int, str, str]]) -> str:
    texts = (text.strip() for _, _, text in complaints)
    return next((text for text in texts if not text.startswith(_HARMLESS)), "")


class Picture:
    """A decoded frame as it is to be seen. Its colours are made when they are asked for."""

    def __init__(self, frame: Any) -> None:
        planar = _PLANAR.get(frame.format.name)
        self._turns = round(frame.rotation / 90) % 4  # counterclockwise
        self._frame = frame if planar is None else frame.reformat(format=planar, threads=1)

    @property
    def hw(self) -> tuple[int, int]:
        """Its height and width."""
        height, width = self._frame.height, self._frame.width
        return (width, height) if self._turns % 2 else (height, width)

    def bgr(self) -> UInt8Array:
        """Return its pixels, by the matrix and range that it says, as FFmpeg makes them. Raises ImageError."""
        frame = self._frame
        width, height = frame.width, frame.height
        with errors("the video is damaged"):
            if frame.interlaced_frame:
                frame = _upper_field(frame)
            image: UInt8Array = frame.reformat(width, height, "bgr24", interpolation="BILINEAR", threads=1).to_ndarray()
        return np.ascontiguousarray(np.rot90(image, self._turns)) if self._turns else image

    def planes(self) -> Planes | None:
        """Return what it is made of, None where that is not to be seen as it is."""
        return None if self._turns or self._frame.interlaced_frame else planes_of(self._frame)


def _upper_field(frame: Any) -> Any:
    """Return every second row of an interlaced frame: the others are of another moment."""
    import av

    graph = av.filter.Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)),
        graph.add("field", "top"),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull()
