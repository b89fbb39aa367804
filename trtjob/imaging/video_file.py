"""Video files as FFmpeg opens them, by PyAV: their streams and packets, and what it says of errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.avi_times import mended
from trtjob.imaging.video_package import missing_video_package
from trtjob.memory import bounded_allocations

# Of FFmpeg's demuxers, those of the files that are read: others follow addresses that a file names.
_OPTIONS = {"format_whitelist": "mov,matroska,avi,mpegts", "protocol_whitelist": "none"}
_KINDS = "MP4, MOV, Matroska, WebM, AVI or an MPEG transport stream"
# A file is looked into before anything is known of it; FFmpeg decodes a frame or two to do so.
_OPENING_BYTES = 1 << 30
_GPU_BYTES = 4 << 30  # of what CUDA allocates at first, which is not for one file
# What a file says of its pictures to a decoder of MPEG-4.
_OF_DECODER = (
    *("extradata", "codec_tag", "width", "height", "pix_fmt", "thread_count"),
    *("color_range", "color_primaries", "color_trc", "colorspace"),
)


@contextmanager
def errors(what: str) -> Iterator[None]:
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


def check_package() -> None:
    """Raise ImageError where the package that reads videos is missing."""
    if (missing := missing_video_package()) is not None:
        raise ImageError(FailureKind.DECODE, f"it is a video, and {missing}")


def opened(file: BinaryIO, *, on_gpu: bool = False, **options: str) -> tuple[Any, Any]:
    """Return a file's container, and the stream in it that has its pictures.

    on_gpu: whether NVDEC decodes, where it can; options: FFmpeg's. Raises ImageError.
    """
    check_package()
    import av

    with errors(f"it is no video that can be read ({_KINDS}), or is cut off before its index"):
        file.seek(0)
        if not file.read(1):
            raise ImageError(FailureKind.DECODE, "it is empty")
        file.seek(0)
        with bounded_allocations(_OPENING_BYTES + gpu_bytes(on_gpu)):
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

    if on_gpu and (nvdec := _nvdec()) is not None:
        try:
            return av.open(file, options=options, hwaccel=nvdec[0], **_titles())
        except av.FFmpegError:  # the GPU's memory is full; or it is the file, which the CPU will say, too
            file.seek(0)
    return av.open(file, options=options, **_titles())


@cache
def _nvdec() -> tuple[Any, Any] | None:
    """Return how NVDEC is asked for, and what keeps one context on the GPU open for all videos of this process.

    None where there is no driver or GPU. A context for each video would take longer than many a video.
    """
    import av
    from av.codec.hwaccel import HWAccel

    asked = HWAccel("cuda", options={"primary_ctx": "1"})
    try:
        return asked, asked.create(av.Codec("h264", "r"))
    except av.FFmpegError:
        return None


def gpu_bytes(on_gpu: bool) -> int:
    """Return what CUDA may allocate in this process, if it is used."""
    return _GPU_BYTES if on_gpu else 0


def _titles() -> dict[str, Any]:
    """Return what has PyAV take titles that are no UTF-8; from version 19 on it does by itself."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def fresh_decoder(stream: Any, decoder: Any, max_pixels: int) -> Any:
    """Return a decoder that knows nothing of what was decoded before: the same one, emptied, but for MPEG-4
    on the CPU. There FFmpeg counts what is odd in a stream, says the count, and goes by it, and does not forget it."""
    import av

    if decoder.name != "mpeg4" or decoder.is_hwaccel:
        if decoder.is_open:
            decoder.flush_buffers()
        return decoder
    told = stream.codec_context
    fresh: Any = av.CodecContext.create(told.codec.name, "r")
    for name in _OF_DECODER:
        setattr(fresh, name, getattr(told, name))
    fresh.options = {"max_pixels": str(max_pixels)}
    return fresh


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the packets of a stream, as far as they can be read; of an AVI with the times that it says."""
    import av

    demuxed = mended(container.demux(stream), container, stream)
    while True:
        try:
            packet = next(demuxed, None)
        except (av.error.InvalidDataError, av.error.EOFError):
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def shown_at(packet: Any) -> int | None:
    """Return when a packet's frame is shown, in the stream's clock; None where nothing says so."""
    shown: int | None = packet.dts if packet.pts is None else packet.pts
    return shown


@contextmanager
def listening() -> Iterator[list[tuple[int, str, str]]]:
    """Hear what FFmpeg says of errors in the block, as it says it: level, who, text. It may go on all the same."""
    import av.logging

    av.logging.set_skip_repeated(False)
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as said:
            yield said
    finally:
        av.logging.set_level(None)
