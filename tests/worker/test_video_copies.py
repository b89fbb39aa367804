"""Annotated copies of videos: every frame, with what was found in the last one that was looked at, and the sound."""

import dataclasses
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import videos
from epochs import failed, found
from numpy.typing import NDArray
from s3_server import S3Server
from samples import job_spec, made
from videos import MKV, MP4, number_in

from trtjob.imaging.video_times import video_parts
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.spec import JobSpec
from trtjob.storage.selection import Selection
from trtjob.worker.video_copies import write_video_copies
from trtjob.worker.video_copy import copy_key

av = videos.av

BOX = (1, 0.9, (2.0, 30.0, 60.0, 46.0))


def the_job(clips: Path, output: Path | str) -> JobSpec:
    spec = job_spec(clips, output)
    selection = spec.source.model_copy(update={"selection": Selection(videos=True)})
    options = spec.options.model_copy(update={"frames": "fps=1", "annotate_video": True})
    return spec.model_copy(update={"source": selection, "options": options})


def frame(video: str, number: int, *boxes: Any) -> Record:
    record = dataclasses.replace(found(f"{video}#t={number / 25:.3f}", *boxes), frame=number, time_s=number / 25)
    return dataclasses.replace(record, width=64, height=48)


def pictures(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def is_drawn_on(image: NDArray[np.uint8]) -> bool:
    """Whether there is colour: the pictures are black and white."""
    return bool((np.ptp(image.astype(int), axis=2) > 60).any())


def sound(path: Path) -> list[tuple[float, bytes]]:
    with av.open(path) as container:
        return [
            (round(float(packet.pts * packet.time_base), 3), bytes(packet))
            for packet in container.demux(audio=0)
            if packet.size
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_every_frame_has_the_last_boxes_and_the_sound_is_the_same(tmp_path: Path, name: str) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    source = videos.with_sound(tmp_path / "clips" / name, MP4 if name == "a.mp4" else MKV)
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    folder = made(JobFolder.of(spec))
    records = [
        frame(name, 0),
        frame(name, 10, BOX),
        failed(f"{name}#t=0.800"),
        frame(name, 25, BOX),
        failed("b.mp4#t=0.000"),
        found("c.jpg", BOX),
    ]
    write_video_copies(spec, records, lambda _what: None)
    copy = Path(folder.uri) / copy_key(name)
    images = pictures(copy)
    assert [is_drawn_on(image) for image in images] == [10 <= n < 20 or n >= 25 for n in range(50)]
    assert [number_in(image[:24]) for image in images] == list(range(50))
    assert sound(copy) == sound(source)
    assert [path.name for path in (Path(folder.uri) / "annotated").iterdir()] == [name]

    before = copy.stat()
    write_video_copies(spec, records, lambda _what: None)
    assert copy.stat() == before
    write_video_copies(spec, records[:1], lambda _what: None)
    assert not any(map(is_drawn_on, pictures(copy)))


@pytest.mark.slow
def test_the_memory_of_a_frame_is_used_again_for_the_next(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    videos.write_video(tmp_path / "clips" / "a.mp4", MP4, frames=40, hw=(1080, 1920))
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    made(JobFolder.of(spec))
    record = dataclasses.replace(frame("a.mp4", 0), width=1920, height=1080)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt
    assert write_video_copies(spec, [record], lambda _what: None) == {}
    faults = resource.getrusage(resource.RUSAGE_CHILDREN).ru_minflt - before
    assert faults < 100_000, "pages of its own for each frame are 200,000"


@pytest.mark.slow
def test_what_cannot_be_written_under_its_name_becomes_matroska_of_even_size(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    videos.write_video(tmp_path / "clips" / "a.avi", videos.CODECS[9]._replace(suffix=".avi"), frames=5, hw=(47, 64))
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    folder = made(JobFolder.of(spec))
    failed = write_video_copies(spec, [frame("a.avi", 0, BOX), frame("gone.mp4", 0, BOX)], lambda _what: None)
    assert failed == {"gone.mp4": "the file is not there any more"}
    images = pictures(Path(folder.uri) / "annotated" / "a.avi.mkv")
    assert ([image.shape for image in images], is_drawn_on(images[4])) == ([(48, 64, 3)] * 5, True)


@pytest.mark.slow
@pytest.mark.parametrize("codec", [MP4, videos.CODECS[7], videos.CODECS[8]], ids=lambda codec: codec.encoder)
def test_a_size_that_decoders_round_up_is_copied(tmp_path: Path, codec: videos.Codec) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    name = f"a{codec.suffix}"
    videos.write_video(tmp_path / "clips" / name, codec, frames=3, hw=(270, 480))  # as 1080 lines are 1088
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    folder = made(JobFolder.of(spec))
    records = [dataclasses.replace(frame(name, 0, BOX), width=480, height=270)]
    assert write_video_copies(spec, records, lambda _what: None) == {}
    assert len(pictures(Path(folder.uri) / copy_key(name))) == 3


def test_a_copy_without_a_frame_is_none(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    videos.write_video(tmp_path / "clips" / "a.mp4", MP4, frames=3)
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    folder = made(JobFolder.of(spec))
    records = [dataclasses.replace(frame("a.mp4", 0), width=8, height=8)]  # larger frames are left out
    assert write_video_copies(spec, records, lambda _what: None) == {"a.mp4": "no frame of it can be decoded"}
    assert not (Path(folder.uri) / "annotated/a.mp4").exists()


@pytest.mark.slow
def test_parts_with_clocks_of_their_own_are_one_copy(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    ts = MKV._replace(suffix=".ts")
    parts = [videos.with_sound(tmp_path / f"{number}.ts", ts, frames=50) for number in range(2)]
    (tmp_path / "clips" / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    folder = made(JobFolder.of(spec))
    write_video_copies(spec, [frame("a.ts", 0), frame("a.ts", 60, BOX)], lambda _what: None)
    images = pictures(Path(folder.uri) / "annotated" / "a.ts.mkv")
    assert [number_in(image[:24]) for image in images] == [*range(50), *range(50)]
    with (tmp_path / "clips" / "a.ts").open("rb") as file:
        found = video_parts(file)
    shown_s = [float(part.start_s + part.times.time_s(int(pts))) for part in found for pts in part.times.pts]
    assert [is_drawn_on(image) for image in images] == [second > 2.399 for second in shown_s]


@pytest.mark.slow
def test_a_copy_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    videos.write_video(tmp_path / "clips" / "a.mp4", MP4, frames=30)
    spec = the_job(tmp_path / "clips", tmp_path / "out")
    folder = made(JobFolder.of(spec))

    def stop(what: str) -> None:
        assert "a.mp4" in what
        raise InterruptedError

    with pytest.raises(InterruptedError):
        write_video_copies(spec, [frame("a.mp4", 0, BOX)], stop)
    assert not [path for path in Path(folder.uri).rglob("*.mp4")]


@pytest.mark.slow
def test_a_copy_lies_in_a_bucket_as_everything_else_does(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    (tmp_path / "clips").mkdir()
    videos.write_video(tmp_path / "clips" / "a.mp4", MP4, frames=30)
    spec = the_job(tmp_path / "clips", f"s3://{bucket}/out")
    write_video_copies(spec, [frame("a.mp4", 0, BOX)], lambda _what: None)
    storage = JobFolder.of(spec).storage
    (tmp_path / "copy.mp4").write_bytes(storage.read(copy_key("a.mp4")))
    assert all(map(is_drawn_on, pictures(tmp_path / "copy.mp4")))
