"""Video files: when their frames are shown, and their pixels. PyAV, whose wheels bring FFmpeg, reads and decodes."""

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.emptied_file import EmptiedFile
from trtjob.imaging.headers import check_size
from trtjob.imaging.sampling import FrameTimes
from trtjob.imaging.video_package import missing_video_package
from trtjob.memory import bounded_allocations

UInt8Array = NDArray[np.uint8]

# Of FFmpeg's demuxers, those of the files that are read: others follow addresses that a file names.
_OPTIONS = {"format_whitelist": "mov,matroska,avi,mpegts", "protocol_whitelist": "none"}
_KINDS = "MP4, MOV, Matroska, WebM, AVI or an MPEG transport stream"
# A file is looked into before anything is known of it; FFmpeg decodes a frame or two to do so.
_OPENING_BYTES = 1 << 30
# For a decoder with the frames that it refers to (16 in H.264, 1.5 bytes a pixel, or 3 of 10 bits), and the frame.
_MOST_PIXEL_BYTES, _SPARE_BYTES = 96, 256 << 20
_GPU_BYTES = 4 << 30  # of what CUDA allocates at first, which is not for one file
DECODING_BYTES = 24  # for a pixel, of what most files need
# A day at 60 a second. An index may name the same bytes as any number of frames.
MOST_FRAMES = 5_000_000
_MOST_SHORT_S = 1  # what a file may be shorter than it says
_HARMLESS = "mmco: "  # said of a stream that is decoded from its middle on: frames before it are missed
_NEVER = -(1 << 63)  # before all times
# As NVDEC gives pixels, and as the CPU's decoders do: without this step FFmpeg's other way to BGR would be taken.
_PLANAR = {"nv12": "yuv420p", "p010le": "yuv420p10le"}
_BACK_S = (0, 1, 10)  # so much before a keyframe it is looked for, where it was not found behind


@contextmanager
def _errors(what: str) -> Iterator[None]:
    """Make FFmpeg's errors the image's, and those of the file that it reads."""
    import av

    try:
        yield
    except ImageError:
        raise
    except av.FFmpegError as err:
        raise ImageError(FailureKind.DECODE, f"{what}: {err.strerror}") from err
    except (IndexError, ValueError) as err:  # PyAV's own, of files that FFmpeg has read over
        raise ImageError(FailureKind.DECODE, f"{what}: {err}") from err
    except OSError as err:
        raise ImageError(FailureKind.READ, f"the video cannot be read: {err.strerror}") from err
    except MemoryError as err:
        raise ImageError(FailureKind.DECODE, "the video takes more memory than its size can need") from err


def _opened(file: BinaryIO, *, on_gpu: bool = False, **options: str) -> tuple[Any, Any]:
    """Return a file's container, and the stream in it that has its pictures.

    on_gpu: whether NVDEC decodes, where it can; options: FFmpeg's. Raises ImageError.
    """
    if (missing := missing_video_package()) is not None:
        raise ImageError(FailureKind.DECODE, f"it is a video, and {missing}")
    import av

    with _errors(f"it is no video that can be read ({_KINDS}), or is cut off before its index"):
        file.seek(0)
        if not file.read(1):
            raise ImageError(FailureKind.DECODE, "it is empty")
        file.seek(0)
        with bounded_allocations(_OPENING_BYTES + _gpu_bytes(on_gpu)):
            container: Any = _container(file, _OPTIONS | options, on_gpu)
        stream: Any = container.streams.best("video")
    if stream is None or "attached_pic" in str(stream.disposition):
        container.close()
        raise ImageError(FailureKind.DECODE, "the video has no pictures, only sound")
    if stream.codec_context is None:
        container.close()
        raise ImageError(FailureKind.DECODE, "FFmpeg has no decoder for the video's codec")
    stream.codec_context.thread_count = 1  # several would make what is left of damaged frames depend on chance
    for other in container.streams:
        if other is not stream:
            other.discard = av.stream.Discard.all
    return container, stream


def _container(file: BinaryIO, options: dict[str, str], on_gpu: bool) -> Any:
    import av
    from av.codec.hwaccel import HWAccel

    if on_gpu:
        try:
            return av.open(file, options=options, hwaccel=HWAccel("cuda"), **_titles())
        except (av.error.PermissionError, av.error.ExternalError):  # no driver or GPU is here
            file.seek(0)
    return av.open(file, options=options, **_titles())


def _gpu_bytes(on_gpu: bool) -> int:
    return _GPU_BYTES if on_gpu else 0


def _titles() -> dict[str, Any]:
    """Return what has PyAV take titles that are no UTF-8; from version 19 on it does by itself."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def frame_times(file: BinaryIO, on_step: Callable[[], None] = lambda: None) -> FrameTimes:
    """Return when the frames of a video are shown. Decodes nothing; reads the index where it says all, else all of it.

    on_step: called now and then. Frames before the first keyframe are none: players do not show them either. Raises
    ImageError.
    """
    container, stream = _indexed(file)
    with container:
        pts, seek, keys = array("q"), array("q"), bytearray()
        is_whole, newest_key = True, _NEVER
        with _errors("the video cannot be read"):
            for packet in _packets(container, stream):
                shown = _shown_at(packet)
                if shown is None or packet.is_discard:
                    continue
                if packet.is_keyframe and shown < newest_key:  # a clock that runs back
                    is_whole = False
                    break
                if packet.is_keyframe:
                    newest_key = shown
                pts.append(shown)
                seek.append(shown if packet.dts is None else min(shown, packet.dts))
                keys.append(packet.is_keyframe)
                if len(pts) > MOST_FRAMES:
                    raise ImageError(FailureKind.TOO_LARGE, f"the video has more than {MOST_FRAMES:,} frames")
                if len(pts) % 1000 == 0:
                    on_step()
        return _ordered(container, stream, pts, seek, keys, is_whole=is_whole)


def _indexed(file: BinaryIO) -> tuple[Any, Any]:
    """Open a video to go through its packets: empty ones where its index says of them all that is asked here."""
    container, stream = _opened(file)
    if not _has_whole_index(container, stream):
        return container, stream
    container.close()
    emptied = EmptiedFile(file)
    container, stream = _opened(cast(BinaryIO, emptied), fflags="noparse")  # nothing is there that could be parsed
    with _errors("the video cannot be read"):
        emptied.leave_out(
            (entry.pos, entry.size) for each in container.streams for entry in getattr(each, "index_entries", ())
        )
    return container, stream


def _has_whole_index(container: Any, stream: Any) -> bool:
    """Whether the index tells when each frame is shown and which are keyframes. One that calls all so is not believed.

    Of a file in fragments it names those that have been read.
    """
    index = stream.index_entries
    if not container.format.name.startswith("mov") or not 0 < len(index) == stream.frames:
        return False
    return stream.codec_context.codec.intra_only or not all(entry.is_keyframe for entry in index)


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream, as far as they can be read."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except (av.error.InvalidDataError, av.error.EOFError):
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def _shown_at(packet: Any) -> int | None:
    shown: int | None = packet.dts if packet.pts is None else packet.pts
    return shown


def _ordered(
    container: Any, stream: Any, pts: "array[int]", seek: "array[int]", keys: bytearray, *, is_whole: bool
) -> FrameTimes:
    times = np.array(pts, np.int64)
    _, order = np.unique(times, return_index=True)  # two frames of the same time are one
    times, is_key = times[order], np.frombuffer(keys, np.uint8)[order].astype(bool)
    keyframes = np.flatnonzero(is_key)
    if not len(keyframes):
        raise ImageError(FailureKind.DECODE, "the video has no frame that can be decoded by itself")
    first = int(keyframes[0])
    times, is_key, order = times[first:], is_key[first:], order[first:]
    time_base = Fraction(stream.time_base)
    origin_s = int(times[0]) * time_base
    if container.start_time is not None:
        origin_s = min(origin_s, Fraction(container.start_time, 1_000_000))
    step = int(np.median(np.diff(times))) if len(times) > 1 else 1
    end_s = (int(times[-1]) + step) * time_base - origin_s
    lost = not is_whole or _length_s(container, stream) - end_s > _MOST_SHORT_S
    return FrameTimes(
        times,
        is_key,
        np.array(seek, np.int64)[order],
        time_base,
        origin_s,
        lost_pts=int(times[-1]) + step if lost else None,
    )


def _length_s(container: Any, stream: Any) -> Fraction:
    """Return how long a file says that its pictures last, 0 where it does not say."""
    if stream.duration is not None:
        return Fraction(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return Fraction(container.duration, 1_000_000)
    return Fraction(0)


class VideoReader:
    """The frames of one open video. Those of a run, asked for in their order, are decoded once.

    Memory holds one decoder, and the frame at hand.
    """

    def __init__(
        self, file: BinaryIO, *, max_pixels: int, on_gpu: bool = False, on_step: Callable[[], None] = lambda: None
    ) -> None:
        """file: closed with the reader, and where this raises; on_gpu: whether NVDEC decodes what it can: the pixels
        are the same, and damage within them is not noticed; on_step: called for each frame that is decoded.

        Raises ImageError.
        """
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
        self._container, self._stream = _opened(self._file, on_gpu=self._on_gpu)
        context: Any = self._stream.codec_context
        check_size(context.width, context.height, self._max_pixels)
        context.options = {"max_pixels": str(self._max_pixels)}  # a stream may change its size in the middle
        self.pixels: int = context.width * context.height
        self._start_pts: int | None = None
        self._frames: Iterator[tuple[Any, str]] = iter(())
        self._ahead: tuple[Any, str] | None = None
        self._shown = _NEVER

    @property
    def is_on_gpu(self) -> bool:
        """Whether NVDEC decodes this video."""
        return bool(self._stream.codec_context.is_hwaccel)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._file.close()

    def image(self, pts: int, *, start_pts: int, seek: int) -> tuple[UInt8Array, str | None]:
        """Return a frame, turned as it is to be seen, BGR; and what is wrong with it, None where nothing is known.

        pts: of the frame; start_pts: of the keyframe from which it is decoded; seek: where that is looked for. See
        FrameTimes. Raises ImageError.
        """
        most_bytes = _SPARE_BYTES + _MOST_PIXEL_BYTES * self.pixels + _gpu_bytes(self._on_gpu)
        with _errors("the video is damaged"), bounded_allocations(most_bytes):
            if start_pts != self._start_pts or pts <= self._shown:
                self._start(start_pts, seek)
            while (found := self._next()) is not None:
                frame, damage = found
                if frame.pts == pts:
                    self._shown = pts
                    check_size(frame.width, frame.height, self._max_pixels)
                    return _pixels(frame), damage or None
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
        self._start_pts, self._ahead, self._shown = start_pts, None, _NEVER

    def _packets_from(self, start_pts: int, seek: int) -> Iterator[Any]:
        """Return the packets from a keyframe on. Raises ImageError where it is not there."""
        import av

        for back_s in _BACK_S:
            try:
                self._container.seek(seek - int(back_s / self._stream.time_base), stream=self._stream)
            except av.FFmpegError:
                continue
            if (packets := self._found(start_pts)) is not None:
                return packets
        self._container.close()
        self._open()  # a file without an index, which is read from its beginning
        if (packets := self._found(start_pts)) is not None:
            return packets
        raise ImageError(FailureKind.DECODE, "the keyframe before it is not there any more")

    def _found(self, start_pts: int) -> Iterator[Any] | None:
        packets = _packets(self._container, self._stream)
        for number, packet in enumerate(packets):
            shown = _shown_at(packet)
            if shown == start_pts:
                return chain([packet], packets)
            if packet.is_keyframe and shown is not None and shown > start_pts:
                return None
            if number % 1000 == 0:
                self._on_step()
        return None

    def _decoded(self, packets: Iterator[Any], start_pts: int) -> Iterator[tuple[Any, str]]:
        """Yield frames, and what is wrong with each: what refers to a damaged one is damaged, until a keyframe."""
        import av

        damage, newest_key, damaged_key = (
            "",
            _NEVER,
            _NEVER,
        )  # the last keyframe fed, and the last one before the damage
        for packet in chain(packets, [None]):
            shown = None if packet is None else _shown_at(packet)
            if shown is not None and shown < start_pts:
                continue  # it refers to frames before the keyframe, and is another run's
            if shown is not None and packet.is_keyframe:
                newest_key = shown
            frames, said = [], ""
            with _listening() as errors:
                try:
                    frames = self._stream.codec_context.decode(packet)
                except (av.error.InvalidDataError, av.error.ArgumentError, av.error.PatchWelcomeError) as err:
                    said = str(err.strerror)
                except av.error.EOFError:
                    return
            if said := said or next((text for text in errors if not text.startswith(_HARMLESS)), ""):
                damage, damaged_key = f"the video is damaged here: {said}", newest_key
            for frame in filter(_has_time, frames):
                self._on_step()
                if frame.is_corrupt:
                    damage, damaged_key = damage or "the video is damaged here", newest_key
                elif frame.key_frame and frame.pts > damaged_key:
                    damage = ""
                yield frame, damage


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Hear what FFmpeg says of errors in the block, which it may conceal; the list is complete behind it."""
    import av.logging

    heard: list[str] = []
    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            yield heard
        heard += [text.strip() for _, _, text in said]
    finally:
        av.logging.set_level(None)


def _has_time(frame: Any) -> bool:
    if frame.pts is None:
        frame.pts = frame.dts
    return frame.pts is not None


def _pixels(frame: Any) -> UInt8Array:
    """Return a frame in BGR, by the matrix and range that it says, as FFmpeg does; turned as it is to be seen."""
    if (planar := _PLANAR.get(frame.format.name)) is not None:
        frame = frame.reformat(format=planar, threads=1)
    image: UInt8Array = frame.reformat(format="bgr24", threads=1).to_ndarray()
    if turns := round(frame.rotation / 90) % 4:  # counterclockwise
        image = np.ascontiguousarray(np.rot90(image, turns))
    return image
