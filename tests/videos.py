"""Videos of which every answer is known: each frame says its own number. PyAV draws and encodes them."""

import io
import struct
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

av = pytest.importorskip("av")

HW = (48, 64)
_BITS = 8


class Codec(NamedTuple):
    """encoder, suffix: of the file; options: of the encoder."""

    encoder: str
    suffix: str
    options: dict[str, str]
    pix_fmt: str = "yuv420p"


H264 = {"preset": "ultrafast", "x264-params": "scenecut=0:bframes=2"}
MKV = Codec("libx264", ".mkv", H264)
MP4 = MKV._replace(suffix=".mp4")
CODECS = (
    MP4,
    MKV,
    MKV._replace(suffix=".ts"),
    Codec("libx264", ".mov", {"x264-params": "open-gop=1:scenecut=0:bframes=3:keyint=10"}),
    Codec("libx265", ".mp4", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    Codec("libx264", ".mkv", H264, "yuv420p10le"),
    Codec("mpeg4", ".avi", {}),
    Codec("mpeg4", ".mp4", {"bf": "2"}),
    Codec("mpeg2video", ".mts", {"bf": "2"}),
    Codec("mjpeg", ".mov", {}, "yuvj420p"),
    Codec("libvpx-vp9", ".webm", {"deadline": "realtime", "cpu-used": "8"}),
)


def picture(number: int, hw: tuple[int, int] = HW) -> NDArray[np.uint8]:
    """Return a picture with a number in it: white and black fields, the highest bit first."""
    bits = [255 * (number >> bit & 1) for bit in reversed(range(_BITS))]
    fields = np.repeat(np.array(bits, np.uint8), hw[1] // _BITS)
    return np.ascontiguousarray(np.broadcast_to(fields[None, :, None], (*hw, 3)))


def number_in(image: NDArray[np.uint8]) -> int:
    """Return the number that `picture` has drawn."""
    fields = image.mean(axis=(0, 2)).reshape(_BITS, -1).mean(axis=1)
    return int("".join("1" if field > 127 else "0" for field in fields), 2)


def write_video(
    path: Path,
    codec: Codec = MKV,
    *,
    frames: int = 50,
    gop: int = 10,
    times_ms: Sequence[int] | None = None,
    hw: tuple[int, int] = HW,
    muxer: dict[str, str] | None = None,
) -> Path:
    """Write a video of frames that say their number. times_ms: when each is shown; 25 a second by default; muxer: its
    options."""
    times_ms = times_ms if times_ms is not None else [40 * number for number in range(frames)]
    clock = Fraction(1, 1000) if codec.encoder != "mpeg2video" else Fraction(1, 25)
    with av.open(path, "w", options=muxer or {}) as container:
        stream: Any = container.add_stream(codec.encoder, rate=25, options=codec.options)
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = *hw, codec.pix_fmt, gop
        stream.codec_context.time_base = clock
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(picture(number, hw), "rgb24").reformat(format=codec.pix_fmt)
            frame.pts, frame.time_base = int(time_ms / clock / 1000), clock
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_noise(path: Path, frames: int, muxer: dict[str, str]) -> Path:
    """Write a video that does not become small, with two frames between others. muxer: its options."""
    noise = np.random.default_rng(1).integers(0, 255, (8, 128, 128, 3), np.uint8)
    with av.open(path, "w", options=muxer) as container:
        stream: Any = container.add_stream("mpeg4", rate=25, options={"qscale": "1", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt, stream.gop_size = 128, 128, "yuv420p", 10
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(noise[number % len(noise)], "rgb24").reformat(format="yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write a file with sound and no pictures."""
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_encrypted(path: Path) -> Path:
    """Write an MP4 whose samples are encrypted."""
    key = "0" * 31 + "1"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    with av.open(path, "w", options=options) as container:
        stream: Any = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *HW, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(1), "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    return path


def write_two_sizes(path: Path, *sizes: tuple[int, int]) -> Path:
    """Write a transport stream of 20 frames of each size, one behind the other."""
    with av.open(path, "w") as container:
        stream: Any = None
        for turn, hw in enumerate(sizes):
            with av.open(write_video(path.with_suffix(f".{turn}.ts"), MKV, frames=20, hw=hw)) as part:
                stream = stream or container.add_stream_from_template(part.streams.video[0])
                for packet in part.demux(video=0):
                    if packet.size:
                        shift = int(turn * Fraction(20, 25) / packet.time_base)
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        container.mux(packet)
    return path


def beginning_with(path: Path, number: int) -> Path:
    """Have the edit list of an MP4 of 25 frames a second begin with a frame."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 4 + 4  # version and flags, how many
    duration, media_time = struct.unpack_from(">Ii", data, at)
    at_mdhd = data.index(b"mdhd") + 4 + 4 + 8
    (timescale,) = struct.unpack_from(">I", data, at_mdhd)
    struct.pack_into(">Ii", data, at, duration - number * 40, media_time + number * timescale // 25)
    path.write_bytes(data)
    return path


def turned(path: Path) -> Path:
    """Say in an MP4 that its pictures are to be turned right by 90 degrees, as telephones do."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of a track header of version 0
    struct.pack_into(">9i", data, at, 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def with_sound(path: Path, codec: Codec = MP4, *, frames: int = 50, muxer: dict[str, str] | None = None) -> Path:
    """Write a video with two seconds of sound beside it. muxer: its options."""
    silent = write_video(path.with_name(f"silent{path.suffix}"), codec, frames=frames)
    with av.open(silent) as source, av.open(path, "w", options=muxer or {}) as container:
        pictures: Any = source.streams.video[0]
        stream = container.add_stream_from_template(pictures)
        sound: Any = container.add_stream("aac", rate=8000)
        for number in range(16):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1024), number / 16, np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 8000, 1024 * number
            container.mux(sound.encode(frame))
        container.mux(sound.encode())
        for packet in source.demux(pictures):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    silent.unlink()
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Return where the packets of a video lie in its file, and their sizes, in the order in which they are stored."""
    with av.open(io.BytesIO(path.read_bytes())) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def damage(path: Path, places: Iterable[tuple[int, int]]) -> Path:
    """Overwrite most of some packets."""
    data = bytearray(path.read_bytes())
    for at, size in places:
        data[at + size // 4 : at + size] = bytes([0x55]) * (size - size // 4)
    path.write_bytes(data)
    return path
