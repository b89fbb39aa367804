"""Videos: which frames there are, when they are shown, and their pixels, whoever decodes them and in whatever order."""

import io
import random
from collections.abc import Iterable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import videos
from numpy.typing import NDArray
from videos import CODECS, HW, MKV, MP4, Codec, number_in, picture, write_video

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging import video_times
from trtjob.imaging.sampling import FrameTimes, planned_frames, run_starts, sampled
from trtjob.imaging.video import Picture, VideoReader
from trtjob.imaging.video_times import Part, frame_times, video_parts

av = videos.av
Found = tuple[NDArray[np.uint8], str | None]


def times_of(path: Path) -> FrameTimes:
    with path.open("rb") as file:
        return frame_times(file)


def shown(reader: VideoReader, pts: int, start_pts: int, seek: int) -> Found:
    picture, damage = reader.picture(pts, start_pts=start_pts, seek=seek)
    return picture.bgr(), damage


def read(
    path: Path, chosen: Iterable[int], *, sampling: str = "every=1", steps: list[int] | None = None
) -> list[Found]:
    """Return frames by their numbers, as one reader gives them."""
    times = times_of(path)
    starts = dict(zip(sampled(times, sampling).tolist(), run_starts(times, sampled(times, sampling)), strict=True))
    reader = VideoReader(
        path.open("rb"),
        max_pixels=1_000_000,
        stop=times.stop,
        on_step=lambda: None if steps is None else steps.append(1),
    )
    try:
        return [shown(reader, int(times.pts[n]), int(times.pts[starts[n]]), int(times.seek[starts[n]])) for n in chosen]
    finally:
        reader.close()


def refused(path: Path) -> tuple[FailureKind, str]:
    with path.open("rb") as file, pytest.raises(ImageError) as caught:
        frame_times(file)
    return FailureKind(caught.value.kind), str(caught.value)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: f"{codec.encoder}{codec.suffix}-{codec.pix_fmt}")
def test_each_frame_is_the_one_that_was_drawn_in_any_order(tmp_path: Path, codec: Codec) -> None:
    if codec.encoder not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec.encoder}")
    path = write_video(tmp_path / f"a{codec.suffix}", codec, frames=60)
    times = times_of(path)
    assert (len(times.pts), times.lost) == (60, ())
    forth = read(path, range(60))
    assert [number_in(image) for image, _ in forth] == list(range(60))
    assert {damage for _, damage in forth} == {None}
    back = read(path, reversed(range(60)))[::-1]
    assert all((one == other).all() for (one, _), (other, _) in zip(forth, back, strict=True))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_times_are_exact_where_the_rate_varies(tmp_path: Path, suffix: str) -> None:
    when_ms = [0, 40, 41, 500, 1999, 2000, 2001, 7040]
    codec = MKV._replace(suffix=suffix) if suffix != ".webm" else CODECS[-1]
    times = times_of(write_video(tmp_path / f"a{suffix}", codec, times_ms=when_ms))
    assert [round(times.time_s(int(pts)) * 1000) for pts in times.pts] == when_ms


def test_the_clock_begins_when_the_file_does(tmp_path: Path) -> None:
    times = times_of(write_video(tmp_path / "a.ts", MKV._replace(suffix=".ts")))
    assert times.pts[0] > 0
    assert times.time_s(int(times.pts[0])) == 0


class Counting(io.BytesIO):
    """A file that counts what is read of it."""

    read_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.read_bytes += len(data)
        return data


@pytest.mark.parametrize(
    ("muxer", "share"),
    [
        pytest.param({}, 0.3, id="index-at-the-end"),
        pytest.param({"movflags": "faststart"}, 0.3, id="index-at-the-front"),
        pytest.param({"movflags": "frag_keyframe+empty_moov"}, 3, id="in-fragments"),
    ],
)
def test_where_an_index_says_all_of_the_frames_they_are_not_read(
    tmp_path: Path, muxer: dict[str, str], share: float
) -> None:
    file = Counting(videos.write_noise(tmp_path / "a.mp4", 300, muxer).read_bytes())
    times = frame_times(file)
    assert file.read_bytes < share * len(file.getvalue())
    assert len(set(np.diff(times.pts).tolist())) == 1
    same = times_of(videos.write_noise(tmp_path / "a.avi", 300, {}))
    assert times.is_key.tolist() == same.is_key.tolist()


# -- sampling ----------------------------------------------------------------------------------------------------------


def clock(when_ms: list[int], keys: Iterable[int] = (0,)) -> FrameTimes:
    pts = np.array(when_ms, np.int64)
    is_key = np.isin(np.arange(len(pts)), list(keys))
    return FrameTimes(pts, is_key, pts, Fraction(1, 1000), Fraction(0), pts < 0)


@pytest.mark.parametrize(
    ("sampling", "numbers"),
    [
        ("fps=1", [0, 3, 5]),
        ("fps=0.5", [0, 5]),
        ("fps=1000", [0, 1, 2, 3, 4, 5, 6]),
        ("every=1", [0, 1, 2, 3, 4, 5, 6]),
        ("every=3", [0, 3, 6]),
        ("keyframes", [0, 4]),
    ],
)
def test_a_sampling_takes_the_first_frame_of_each_span(sampling: str, numbers: list[int]) -> None:
    times = clock([700, 1400, 1699, 1700, 1710, 5000, 5010], keys=(0, 4))
    assert sampled(times, sampling).tolist() == numbers


def test_runs_are_short_where_frames_between_are_passed_over_and_long_enough_where_not() -> None:
    times = clock(list(range(0, 8000, 40)), keys=range(0, 200, 10))
    every = list(run_starts(times, sampled(times, "every=1")))
    assert sorted(set(every)) == [0, 50, 100, 150]
    sparse = list(run_starts(times, sampled(times, "every=25")))
    assert sparse == [0, 20, 50, 70, 100, 120, 150, 170]


def test_all_frames_cost_about_one_decode_and_few_frames_less(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=200, gop=25)
    steps: list[int] = []
    read(path, range(200), steps=steps)
    assert len(steps) < 1.2 * 200
    steps.clear()
    read(path, range(0, 200, 100), sampling="every=100", steps=steps)
    assert len(steps) < 20


# -- pixels ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matrix", "bgr_limited", "bgr_full"),
    [
        # Y 150, Cb 90, Cr 120, by the formulas of BT.601 and BT.709
        pytest.param(5, (79, 177, 143), (83, 169, 139), id="bt601"),
        pytest.param(1, (76, 168, 142), (79, 161, 137), id="bt709"),
        pytest.param(2, (79, 177, 143), (83, 169, 139), id="unsaid"),
    ],
)
def test_colours_are_those_of_the_matrix_and_range_that_the_file_says(
    tmp_path: Path, matrix: int, bgr_limited: tuple[int, int, int], bgr_full: tuple[int, int, int]
) -> None:
    for colour_range, expected in ((1, bgr_limited), (2, bgr_full)):
        path = tmp_path / f"{colour_range}.mkv"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"qp": "0"})
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range
            frame = av.VideoFrame(64, 48, "yuv420p")
            for plane, value in zip(frame.planes, (150, 90, 120), strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.colorspace, frame.color_range, frame.pts = matrix, colour_range, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
        image, _ = read(path, [0])[0]
        assert np.abs(image[20, 30].astype(int) - expected).max() <= 2


@pytest.mark.parametrize(("planar", "of_nvdec"), [("yuv420p", "nv12"), ("yuv420p10le", "p010le")])
def test_pixels_are_the_same_as_nvdec_gives_them(planar: str, of_nvdec: str) -> None:
    noise = np.random.default_rng(1).integers(16, 235, (48, 64, 3), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format=planar)
    for matrix in (1, 5):
        frame.colorspace = matrix
        assert (Picture(frame).bgr() == Picture(frame.reformat(format=of_nvdec)).bgr()).all()


def test_without_a_gpu_the_cpu_decodes_what_was_meant_for_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=3)
    reader = VideoReader(path.open("rb"), max_pixels=1_000_000, on_gpu=True)
    found, _ = reader.picture(0, start_pts=0, seek=0)
    image = found.bgr()
    reader.close()
    assert number_in(image) == 0


def test_a_frame_is_turned_as_the_file_says(tmp_path: Path) -> None:
    path = videos.turned(write_video(tmp_path / "a.mp4", MP4, frames=3))
    image, _ = read(path, [2])[0]
    assert image.shape == (64, 48, 3)
    assert number_in(np.rot90(image)) == 2


def test_a_video_with_too_many_pixels_is_refused_before_one_is_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=2)
    with pytest.raises(ImageError, match=r"64 x 48 pixels are more than the limit of 3,000") as caught:
        VideoReader(path.open("rb"), max_pixels=3000)
    assert caught.value.kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize(("matrix", "colour_range"), [(1, 1), (1, 2), (5, 1), (5, 2), (2, 1), (9, 1)])
def test_pixels_are_those_of_ffmpegs_own_filter(matrix: int, colour_range: int) -> None:
    noise = np.random.default_rng(1).integers(16, 235, (72, 64), np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, "yuv420p")
    frame.colorspace, frame.color_range = matrix, colour_range
    graph = av.filter.Graph()
    source = graph.add_buffer(width=64, height=48, format=frame.format, time_base=Fraction(1, 25))
    graph.link_nodes(
        source, graph.add("scale", "flags=bilinear"), graph.add("format", "bgr24"), graph.add("buffersink")
    ).configure()
    graph.push(frame)
    assert (Picture(frame).bgr() == graph.pull().to_ndarray()).all()


def test_an_edit_list_says_which_frames_are_shown_also_from_the_middle_of_a_group(tmp_path: Path) -> None:
    codec = MP4._replace(options={"preset": "ultrafast", "x264-params": "scenecut=0:bframes=0"})
    path = videos.beginning_with(write_video(tmp_path / "a.mp4", codec, frames=40), 13)
    times = times_of(path)
    assert [float(times.time_s(int(pts))) for pts in times.pts[times.shown][:3]] == [0.0, 0.04, 0.08]
    chosen = times.shown.tolist()
    assert [number_in(image) for image, _ in read(path, chosen)] == list(range(13, 40))


def test_of_an_interlaced_frame_one_moment_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"qp": "0", "x264-params": "tff=1"})
        stream.height, stream.width, stream.pix_fmt = 96, 64, "yuv420p"
        woven = picture(0b01010101, (96, 64)).copy()
        woven[1::2] = picture(0b11110000, (96, 64))[1::2]
        container.mux(stream.encode(av.VideoFrame.from_ndarray(woven, "rgb24").reformat(format="yuv420p")))
        container.mux(stream.encode())
    image, _ = read(path, [0])[0]
    assert image.shape == (96, 64, 3)
    assert np.abs(image.astype(int) - picture(0b01010101, (96, 64))).mean() < 25
    assert number_in(image) == 0b01010101


# -- faults ------------------------------------------------------------------------------------------------------------


def test_what_refers_to_a_damaged_frame_is_damaged_until_a_keyframe(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", Codec("libx264", ".mkv", {"x264-params": "bframes=0:scenecut=0:keyint=10"}))
    whole = read(path, range(50))
    videos.damage(path, videos.packet_places(path)[13:14])
    hurt = read(path, [n for n in range(50) if n != 13])
    hurt.insert(13, hurt[13])
    assert [n for n, (_, damage) in enumerate(hurt) if damage] == list(range(13, 20))
    assert all((hurt[n][0] == whole[n][0]).all() for n in [*range(13), *range(20, 50)])
    again = dict(zip((45, 22, 15, 14), read(path, (45, 22, 15, 14)), strict=True))
    assert all((image == hurt[n][0]).all() and damage == hurt[n][1] for n, (image, damage) in again.items())


def test_a_keyframe_that_was_read_before_the_damage_heals_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=30)
    whole = read(path, range(30))
    videos.damage(path, videos.packet_places(path)[11:12])  # of a frame to which those around the keyframe refer
    hurt = {}
    for number in range(30):
        with suppress(ImageError):
            hurt[number] = read(path, [number])[0]
    assert 20 < len(hurt) < 30
    wrong = [number for number, (image, _) in hurt.items() if (image != whole[number][0]).any()]
    assert wrong
    assert all(hurt[number][1] for number in wrong)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_the_keyframe_of_the_next_run_is_not_decoded_for_the_frames_before_it(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", MKV._replace(suffix=suffix), frames=120, gop=60)
    whole = read(path, range(120))
    assert times_of(path).is_key.nonzero()[0].tolist() == [0, 60]
    videos.damage(path, videos.packet_places(path)[60:61])
    before = read(path, range(60))
    assert all((image == whole[n][0]).all() and damage is None for n, (image, damage) in enumerate(before))


def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=100)
    places = videos.packet_places(path)
    path.write_bytes(path.read_bytes()[: places[60][0]])
    times = times_of(path)
    assert 50 < len(times.pts) <= 60
    (lost,) = times.lost
    chosen = range(len(times.pts))
    assert [number_in(image) for image, _ in read(path, chosen)] == list(chosen)
    reader = VideoReader(path.open("rb"), max_pixels=1_000_000)
    with pytest.raises(ImageError, match="cut off or damaged"):
        reader.picture(lost, start_pts=int(times.pts[0]), seek=0)
    reader.close()


FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
AT_FRONT = {"movflags": "faststart"}
KINDS = {
    "avi-mpeg4": (CODECS[6], {}),
    "avi-mjpeg": (Codec("mjpeg", ".avi", {}, "yuvj420p"), {}),
    "avi-h264": (MKV._replace(suffix=".avi"), {}),
    "mp4-fragments": (MP4, FRAGMENTS),
    "mp4-fragments-behind-an-index": (MP4, {"movflags": "frag_keyframe"}),
    "mov-fragments-of-one-frame": (CODECS[9], FRAGMENTS),
    "mp4": (MP4, AT_FRONT),
    "mov": (CODECS[9], AT_FRONT),
    "mkv": (MKV, {}),
    "mkv-of-no-length": (MKV, {"live": "1"}),
    "webm": (CODECS[-1], {}),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "has_sound"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in KINDS if kind != "webm")]
)
def test_a_file_that_ends_within_a_frame_says_that_the_rest_is_missing(
    tmp_path: Path, kind: str, has_sound: bool
) -> None:
    codec, muxer = KINDS[kind]
    path = tmp_path / f"a{codec.suffix}"
    if has_sound:
        videos.with_sound(path, codec, muxer=muxer)
    else:
        write_video(path, codec, muxer=muxer)
    data, places = path.read_bytes(), videos.packet_places(path)
    whole = times_of(path)
    assert whole.lost == ()
    for number in (21, 30, 48):
        at, size = places[number]
        for end in (at + 1, at + size // 2):
            times = frame_times(io.BytesIO(data[:end]))
            assert number - 1 <= len(times.pts) <= number + 1
            assert times.lost == (np.setdiff1d(whole.pts, times.pts)[0],)


@pytest.mark.parametrize("sampling", ["every=1", "every=7", "fps=1", "keyframes"])
def test_what_is_missing_behind_half_a_frame_is_planned_by_every_sampling(tmp_path: Path, sampling: str) -> None:
    path = write_video(tmp_path / "a.avi", CODECS[6], frames=60)
    at, size = videos.packet_places(path)[30]
    path.write_bytes(path.read_bytes()[: at + size // 2])
    times = times_of(path)
    planned = planned_frames(times, sampling)
    assert [frame.pts for frame in planned[:-1]] == times.pts[sampled(times, sampling)].tolist()
    assert (float(times.time_s(planned[-1].pts)), planned[-1].number) == (1.24, 31)


@pytest.mark.parametrize("muxer", [{}, FRAGMENTS], ids=["avi", "mp4-fragments"])
def test_a_file_that_ends_behind_a_frame_lacks_the_rest(tmp_path: Path, muxer: dict[str, str]) -> None:
    codec = MP4 if muxer else CODECS[6]
    path = write_video(tmp_path / f"a{codec.suffix}", codec, muxer=muxer)
    at, size = videos.packet_places(path)[32]
    times = frame_times(io.BytesIO(path.read_bytes()[: at + size]))
    assert (len(times.pts), len(times.lost)) == (33, 1)


@pytest.mark.parametrize("suffix", [".avi", ".mkv", ".mp4"])
def test_a_file_of_which_only_what_is_behind_its_frames_is_cut_off_lacks_none(tmp_path: Path, suffix: str) -> None:
    codec, muxer = (CODECS[6], {}) if suffix == ".avi" else (MKV._replace(suffix=suffix), FRAGMENTS)
    path = write_video(tmp_path / f"a{suffix}", codec, muxer=muxer if suffix == ".mp4" else {})
    at, size = videos.packet_places(path)[-1]
    times = frame_times(io.BytesIO(path.read_bytes()[: at + size + 20]))
    assert (len(times.pts), times.lost) == (50, ())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".avi"])
def test_a_range_that_is_missing_in_the_middle_is_told_once(tmp_path: Path, suffix: str) -> None:
    codec = MKV._replace(suffix=suffix) if suffix != ".avi" else CODECS[6]
    path = write_video(tmp_path / f"a{suffix}", codec, frames=100)
    places = videos.packet_places(path)
    data = bytearray(path.read_bytes())
    data[places[41][0] : places[63][0]] = bytes(places[63][0] - places[41][0])
    path.write_bytes(data)
    times = times_of(path)
    (lost,) = times.lost
    chosen = sampled(times, "every=1")
    assert len(chosen) < 80
    if suffix == ".avi":  # whose frames have no times: what is behind moves forward
        assert lost > times.pts[-1]
    else:
        assert 1.5 < times.time_s(lost) < 1.8
        assert times.time_s(int(times.pts[-1])) == pytest.approx(3.96)
    found = {}
    for place in chosen.tolist():
        with suppress(ImageError):
            found[place] = read(path, [place])[0]
    numbers = [number_in(image) for image, damage in found.values() if damage is None]
    assert numbers[:36] == list(range(36))
    assert numbers[-10:] == list(range(90, 100))


@pytest.fixture
def two_clocks(tmp_path: Path) -> Path:
    """Two transport streams, one behind the other, whose frames have the same times."""
    ts = MKV._replace(suffix=".ts")
    parts = [write_video(tmp_path / "a.ts", ts, frames=50), write_video(tmp_path / "b.ts", ts, frames=90, hw=(96, 128))]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def test_what_is_behind_a_clock_that_runs_back_is_a_part_of_its_own(two_clocks: Path) -> None:
    with two_clocks.open("rb") as file:
        first, second = video_parts(file)
    assert [len(part.times.pts) for part in (first, second)] == [50, 90]
    assert (first.times.lost, second.times.lost, float(second.start_s)) == ((), (), 2.0)
    for part, hw in ((first, HW), (second, (96, 128))):
        for number in (17, 0, 33, 49):
            image, damage = frame_of(two_clocks, part, number)
            assert (image.shape[:2], number_in(image), damage) == (hw, number, None)


TS = MKV._replace(suffix=".ts")
AS_IT_COMES = {"mpegts_copyts": "1"}  # times are written as they are given


@pytest.mark.parametrize(
    "clips",
    [
        [(40, 250, 0)] * 2,
        [(40, 250, 0)] * 3,
        [(60, 20, 0)] * 2,
        [(40, 20, 0), (40, 250, 0), (60, 20, 0)],
        [(40, 250, 0), (20, 250, 400)],  # begins later than the first one's keyframe
        [(20, 250, 400), (40, 250, 0)],
        [(40, 250, 0), (40, 250, 1560)],  # begins with the time of the last one
    ],
    ids=lambda clips: "-".join(f"{frames}f{gop}g{start}ms" for frames, gop, start in clips),
)
@pytest.mark.parametrize("codec", [TS, TS._replace(encoder="mpeg2video", options={"bf": "2"})], ids=lambda c: c.encoder)
def test_a_clock_that_begins_again_begins_a_part(
    tmp_path: Path, codec: Codec, clips: list[tuple[int, int, int]]
) -> None:
    path = tmp_path / "all.ts"
    with path.open("wb") as file:
        for frames, gop, start_ms in clips:
            times_ms = [start_ms + 40 * number for number in range(frames)]
            clip = write_video(tmp_path / "a.ts", codec, gop=gop, times_ms=times_ms, muxer=AS_IT_COMES)
            file.write(clip.read_bytes())
    with path.open("rb") as file:
        parts = video_parts(file)
    assert [len(part.times.pts) for part in parts] == [frames for frames, _, _ in clips]
    assert {part.times.lost for part in parts} == {()}
    for part in parts:
        found = [frame_of(path, part, number) for number in range(len(part.times.pts))]
        assert [number_in(image) for image, _ in found] == list(range(len(found)))
        assert {damage for _, damage in found} == {None}


def test_a_clock_of_which_only_the_decoder_s_runs_back_begins_a_part(tmp_path: Path) -> None:
    """The first clip has no B-frames; the second one begins with a keyframe that is shown later than it is decoded."""
    plain = TS._replace(options={"preset": "ultrafast", "x264-params": "scenecut=0:bframes=0"})
    times_ms = [1600 + 40 * number for number in range(40)]
    clips = [
        write_video(tmp_path / "a.ts", plain, frames=40, gop=250, muxer=AS_IT_COMES),
        write_video(tmp_path / "b.ts", gop=250, times_ms=times_ms, codec=TS, muxer=AS_IT_COMES),
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(clip.read_bytes() for clip in clips))
    with path.open("rb") as file:
        parts = video_parts(file)
    assert [len(part.times.pts) for part in parts] == [40, 40]


@pytest.mark.parametrize(
    "codec",
    [
        TS._replace(options={"preset": "ultrafast", "x264-params": "open-gop=1:scenecut=0:bframes=4:b-pyramid=normal"}),
        Codec("libx265", ".ts", {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1"}),
        Codec("mpeg2video", ".ts", {"bf": "2"}),
    ],
    ids=lambda codec: codec.encoder,
)
def test_frames_in_another_order_and_uneven_times_begin_no_part(tmp_path: Path, codec: Codec) -> None:
    times_ms = [40 * (number + number // 7 * 3) for number in range(100)]
    if codec.encoder == "mpeg2video":
        times_ms = [40 * number for number in range(100)]
    path = write_video(tmp_path / "a.ts", codec, times_ms=times_ms)
    with path.open("rb") as file:
        assert [len(part.times.pts) for part in video_parts(file)] == [100]


def test_behind_a_matroska_of_one_keyframe_another_one_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=40, gop=250)
    path.write_bytes(path.read_bytes() * 2)
    times = times_of(path)
    assert (len(times.pts), [float(times.time_s(lost)) for lost in times.lost]) == (40, [1.6])


def test_where_one_clock_ends_no_frame_of_the_other_is_seen(two_clocks: Path) -> None:
    with two_clocks.open("rb") as file:
        part = video_parts(file)[0]
    end = int(part.times.pts[-1] + part.times.pts[1] - part.times.pts[0])
    reader = VideoReader(two_clocks.open("rb"), max_pixels=1_000_000, stop=part.stop)
    with pytest.raises(ImageError, match="cut off or damaged"):
        reader.picture(end, start_pts=int(part.times.pts[40]), seek=int(part.times.seek[40]))
    reader.close()


def test_of_more_parts_than_can_be_the_rest_is_one_range(two_clocks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_times, "MOST_PARTS", 1)
    with two_clocks.open("rb") as file:
        (part,) = video_parts(file)
    assert [float(part.times.time_s(lost)) for lost in part.times.lost] == [2.0]


def frame_of(path: Path, part: Part, number: int) -> Found:
    """Return a frame of a part, by a reader of its own."""
    times = part.times
    start = int(np.flatnonzero(times.is_key[: number + 1])[-1])
    reader = VideoReader(path.open("rb"), max_pixels=1_000_000, begin=part.begin, stop=part.stop)
    try:
        return shown(reader, int(times.pts[number]), int(times.pts[start]), int(times.seek[start]))
    finally:
        reader.close()


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_what_is_said_of_damage_does_not_depend_on_what_was_decoded_before(tmp_path: Path, suffix: str) -> None:
    path = videos.write_noise(tmp_path / f"a{suffix}", 100, {})
    places = videos.packet_places(path)
    data = bytearray(path.read_bytes())
    chance = random.Random(1)
    for at, size in places[1:]:
        data[at + chance.randrange(size // 8, size)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    times = times_of(path)
    starts = np.flatnonzero(times.is_key).tolist()

    def run(reader: VideoReader, start: int) -> list[tuple[bytes, str | None] | str]:
        found: list[tuple[bytes, str | None] | str] = []
        for place in range(start, min(start + 8, len(times.pts))):
            try:
                image, damage = shown(reader, int(times.pts[place]), int(times.pts[start]), int(times.seek[start]))
                found.append((image.tobytes(), damage))
            except ImageError as err:
                found.append(str(err))
        return found

    def read_by_one(order: list[int]) -> dict[int, list[tuple[bytes, str | None] | str]]:
        reader = VideoReader(path.open("rb"), max_pixels=1_000_000)
        try:
            return {start: run(reader, start) for start in order}
        finally:
            reader.close()

    forward = read_by_one(starts)
    assert any("damaged" in str(each[1]) for found in forward.values() for each in found)
    assert forward == read_by_one(starts[::-1])


def test_an_encrypted_video_is_called_so(tmp_path: Path) -> None:
    path = videos.write_encrypted(tmp_path / "a.mp4")
    assert refused(path) == (FailureKind.DECODE, "the video is encrypted")


def test_a_stream_may_change_its_size_in_the_middle(tmp_path: Path) -> None:
    path = videos.write_two_sizes(tmp_path / "a.ts", HW, (96, 128))
    times = times_of(path)
    found = read(path, range(len(times.pts)))
    assert [image.shape[:2] for image, _ in found] == [HW] * 20 + [(96, 128)] * 20
    assert {damage for _, damage in found} == {None}
    assert [number_in(image) for image, _ in found] == [*range(20), *range(20)]


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".ts", ".webm"])
def test_a_wrong_suffix_is_no_fault(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / "a.mkv", frames=5).rename(tmp_path / f"a{suffix}")
    assert [number_in(image) for image, _ in read(path, range(5))] == list(range(5))


@pytest.mark.slow
def test_a_video_of_8k_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 4320, 7680, "yuv420p"
        frame = av.VideoFrame(7680, 4320, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    times = times_of(path)
    reader = VideoReader(path.open("rb"), max_pixels=200_000_000)
    found, damage = reader.picture(int(times.pts[0]), start_pts=int(times.pts[0]), seek=int(times.seek[0]))
    reader.close()
    assert (found.bgr().shape, damage) == ((4320, 7680, 3), None)


def test_more_frames_than_can_be_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mkv", frames=11)
    monkeypatch.setattr(video_times, "MOST_FRAMES", 10)
    assert refused(path) == (FailureKind.TOO_LARGE, "the video has more than 10 frames")


def test_a_title_that_is_no_utf8_is_no_fault(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=3)
    data = path.read_bytes()
    assert data.count(b"ENCODER") > 0
    path.write_bytes(data.replace(b"Lavf", b"\xe9avf").replace(b"Lavc", b"\xe9avc"))
    assert len(times_of(path).pts) == 3


@pytest.mark.parametrize("codec", CODECS[:7], ids=lambda codec: f"{codec.encoder}{codec.suffix}-{codec.pix_fmt}")
def test_whatever_bytes_are_wrong_it_is_an_error_of_the_image(tmp_path: Path, codec: Codec) -> None:
    data = write_video(tmp_path / f"a{codec.suffix}", codec, frames=6).read_bytes()
    chance = random.Random(7)
    for _ in range(60):
        wrong = bytearray(data[: chance.choice((len(data), chance.randrange(len(data))))])
        for _ in range(chance.choice((1, 5, 50)) if wrong else 0):
            wrong[chance.randrange(min(len(wrong), chance.choice((600, len(data)))))] = chance.randrange(256)
        with suppress(ImageError):
            times = frame_times(io.BytesIO(wrong))
            reader = VideoReader(io.BytesIO(wrong), max_pixels=1_000_000)
            try:
                reader.picture(int(times.pts[-1]), start_pts=int(times.pts[0]), seek=int(times.seek[0]))
            finally:
                reader.close()


def test_what_is_no_video_is_refused_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for data in (
        b"",
        b"hello" * 100,
        b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://host/a.ts\n",
        b"\xff\xd8\xff\xe0" * 9,
    ):
        path.write_bytes(data)
        kind, why = refused(path)
        assert kind is FailureKind.DECODE
        assert ("empty" if not data else "no video that can be read") in why
    assert refused(videos.write_sound(tmp_path / "b.mp4")) == (
        FailureKind.DECODE,
        "the video has no pictures, only sound",
    )
    write_video(path, MP4)
    path.write_bytes(path.read_bytes()[:-600])  # the index lies at its end
    assert "cut off before its index" in refused(path)[1]


def test_a_file_that_cannot_be_read_on_is_a_failure_to_read(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 2000:
                raise OSError(5, "Input/output error")
            return super().read(size)

    data = write_video(tmp_path / "a.mkv", frames=200).read_bytes()
    with pytest.raises(ImageError, match="Input/output error") as caught:
        frame_times(Failing(data))
    assert caught.value.kind is FailureKind.READ


def test_without_the_package_a_video_says_which_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mkv", frames=1)
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    assert "pip install 'trtjob[video]'" in refused(path)[1]
