"""AVI files, which do not say when frames are shown: each frame that FFmpeg decodes is one of ours, at its place."""

import io
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest
import videos
from videos import HW, MKV, Codec, number_in, write_video

from trtjob.errors import ImageError
from trtjob.imaging.sampling import FrameTimes, planned_frames
from trtjob.imaging.video import UInt8Array, VideoReader
from trtjob.imaging.video_copy import write_copy
from trtjob.imaging.video_times import frame_times, video_parts

av = videos.av
B_PYRAMID = "scenecut=0:bframes=3:b-adapt=0:b-pyramid=2"
# Not coded: a P-VOP of the time 0, which has 10 bits where a second has 1,000 parts.
EMPTY_VOP = bytes((0, 0, 1, 0xB6, 0b01010000, 0b00000010, 0b01111111))
VOP, B_VOP = EMPTY_VOP[:4], 0b10


def h264(options: str) -> Codec:
    return MKV._replace(suffix=".avi", options={"preset": "ultrafast", "x264-params": options})


def mpeg4(b_frames: int) -> Codec:
    return Codec("mpeg4", ".avi", {"bf": str(b_frames)})


def rewritten(path: Path, packets: Iterable[tuple[bytes, bool]], name: str) -> Path:
    """Write a video again with other packets: bytes, and whether it is a keyframe."""
    target = path.with_name(name)
    with av.open(path) as source, av.open(target, "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for number, (data, is_key) in enumerate(packets):
            packet = av.Packet(data)
            packet.pts = packet.dts = number
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, is_key
            container.mux(packet)
    return target


def packets_of(path: Path) -> list[tuple[bytes, bool]]:
    with av.open(path) as container:
        return [(bytes(packet), packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


def is_b(data: bytes) -> bool:
    return data[data.index(VOP) + 4] >> 6 == B_VOP


def packed(path: Path) -> Path:
    """Pack a video of MPEG-4 as DivX does: the first frame shown before another together with that, and an empty one
    in the place of the last of these."""
    found: list[tuple[bytes, bool]] = []
    is_open = False
    for data, is_key in packets_of(path):
        if is_b(data) and not is_open:
            found[-1] = found[-1][0] + data, found[-1][1]
        else:
            found += [(EMPTY_VOP, False)] if is_open and not is_b(data) else []
            found.append((data, is_key))
        is_open = is_b(data)
    found += [(EMPTY_VOP, False)] if is_open else []
    at = found[0][0].index(VOP)
    found[0] = found[0][0][:at] + b"\0\0\1\xb2DivX503b1393p" + found[0][0][at:], True
    return rewritten(path, found, "packed.avi")


def copied(path: Path, suffix: str) -> Path:
    """Copy a video's packets into another kind of file, with FFmpeg's times."""
    target = path.with_suffix(suffix)
    with av.open(path) as source, av.open(target, "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return target


def with_empty_frames(path: Path, name: str) -> Path:
    found = packets_of(path)
    for number in (30, 12, 11):
        found.insert(number, (EMPTY_VOP, False))
    return rewritten(path, found, name)


def times_of(path: Path) -> FrameTimes:
    with path.open("rb") as file:
        return frame_times(file)


def read(path: Path, times: FrameTimes, chosen: Iterable[int]) -> list[tuple[UInt8Array, str | None]]:
    frames = planned_frames(times, "every=1")
    reader = VideoReader(path.open("rb"), max_pixels=1_000_000)
    try:
        found = [
            reader.picture(pts, start_pts=int(times.pts[start]), seek=int(times.seek[start]))
            for pts, _, start in (frames[number] for number in chosen)
        ]
        return [(picture.bgr(), damage) for picture, damage in found]
    finally:
        reader.close()


@pytest.mark.parametrize("frames", [59, 60])
@pytest.mark.parametrize(
    "codec",
    [
        pytest.param(h264("scenecut=0:bframes=2:keyint=10"), id="h264"),
        pytest.param(h264(f"{B_PYRAMID}:keyint=25"), id="h264-pyramid"),
        pytest.param(h264(f"{B_PYRAMID}:keyint=10:open-gop=1"), id="h264-open"),
        pytest.param(h264("bframes=0:keyint=10"), id="h264-in-order"),
        pytest.param(mpeg4(0), id="mpeg4-in-order"),
        pytest.param(mpeg4(1), id="mpeg4-1"),
        pytest.param(mpeg4(2), id="mpeg4-2"),
        pytest.param(Codec("mpeg2video", ".avi", {"bf": "2"}), id="mpeg2"),
    ],
)
def test_each_frame_of_an_avi_is_read_as_it_is_shown(tmp_path: Path, codec: Codec, frames: int) -> None:
    path = write_video(tmp_path / "a.avi", codec, frames=frames)
    times = times_of(path)
    assert (len(times.pts), times.lost) == (frames, ())
    forth = read(path, times, range(frames))
    assert [(number_in(image), damage) for image, damage in forth] == [(n, None) for n in range(frames)]
    back = read(path, times, reversed(range(frames)))[::-1]
    assert all((one == other).all() for (one, _), (other, _) in zip(forth, back, strict=True))


@pytest.mark.parametrize("b_frames", [1, 2])
@pytest.mark.parametrize("frames", [47, 48, 49, 58])
def test_frames_that_divx_has_packed_are_each_read(tmp_path: Path, b_frames: int, frames: int) -> None:
    path = packed(write_video(tmp_path / "a.avi", mpeg4(b_frames), frames=frames, times_ms=range(0, 40 * frames, 40)))
    assert [len(data) for data, _ in packets_of(path)].count(len(EMPTY_VOP)) > 10
    times = times_of(path)
    assert (len(times.pts), times.lost) == (frames, ())
    found = read(path, times, range(frames))
    assert [(number_in(image), damage) for image, damage in found] == [(n, None) for n in range(frames)]
    assert [number_in(read(path, times, [n])[0][0]) for n in (frames - 1, 31, 30, 29, 10)] == [
        frames - 1,
        31,
        30,
        29,
        10,
    ]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_packed_frames_that_were_copied_into_another_kind_of_file_are_each_read(tmp_path: Path, suffix: str) -> None:
    path = copied(packed(write_video(tmp_path / "a.avi", mpeg4(2), frames=47)), suffix)
    times = times_of(path)
    assert (len(times.shown), times.lost) == (46, ())  # the copy gives the last two the same time
    found = read(path, times, range(46))
    assert [(number_in(image), damage) for image, damage in found] == [(n, None) for n in range(46)]


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_a_frame_that_is_not_coded_is_none(tmp_path: Path, suffix: str) -> None:
    path = with_empty_frames(write_video(tmp_path / "a.avi", mpeg4(0), frames=40), f"b{suffix}")
    times = times_of(path)
    assert (len(times.shown), times.lost) == (40, ())
    assert [(number_in(image), damage) for image, damage in read(path, times, range(40))] == [
        (n, None) for n in range(40)
    ]


def test_behind_damage_the_next_keyframe_has_its_own_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", h264("scenecut=0:bframes=2:keyint=10"), frames=60)
    at, size = videos.packet_places(path)[11]
    data = path.read_bytes()
    path.write_bytes(data[:at] + bytes(size) + data[at + size :])  # no frame comes of it
    times = times_of(path)
    read_well = {}
    for number in range(60):
        try:
            image, damage = read(path, times, [number])[0]
        except ImageError:
            continue
        if damage is None:
            read_well[number] = number_in(image)
    assert all(number == drawn for number, drawn in read_well.items())
    assert set(read_well) >= {*range(9), *range(20, 60)}
    assert not set(read_well) & set(range(13, 20))


@pytest.mark.parametrize("codec", [h264(f"{B_PYRAMID}:keyint=25"), mpeg4(2)], ids=["h264", "mpeg4"])
def test_a_copy_of_an_avi_has_its_frames_in_their_order(tmp_path: Path, codec: Codec) -> None:
    path = write_video(tmp_path / "a.avi", codec, frames=59)
    drawn: list[tuple[float, int]] = []

    def draw(seconds: float, image: UInt8Array) -> UInt8Array:
        drawn.append((seconds, number_in(image)))
        return image

    with path.open("rb") as file:
        parts = video_parts(file)
        write_copy(file, copy := io.BytesIO(), ".mkv", draw, parts, comment="", max_hw=HW)
    times = parts[0].times
    assert drawn == [(float(times.time_s(int(pts))), n) for n, pts in enumerate(times.pts)]
    with av.open(io.BytesIO(copy.getvalue())) as container:
        assert [number_in(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)] == list(range(59))
