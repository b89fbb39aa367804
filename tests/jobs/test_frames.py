"""Frames of videos as images of their own: planned each for itself, sorted as they are shown, and each once."""

from pathlib import Path

import pytest
import videos
from epochs import failed, found, write_records
from samples import job_spec, made, touch
from videos import MKV, MP4, write_video

from trtjob.jobs.folder import RESULTS, JobFolder, PlanEpoch
from trtjob.jobs.frame_listing import frame_listing
from trtjob.jobs.pages import Pages
from trtjob.jobs.plan import plan_epoch, planned_entries, read_shard
from trtjob.jobs.spec import JobSpec
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry
from trtjob.storage.selection import Rules, Selection


def entries(folder: Path, sampling: str = "fps=1") -> list[Entry]:
    storage = LocalStorage(folder)
    images = storage.images(Rules(Selection(videos=True)))
    with frame_listing(storage, sampling) as frames_of:
        return list(Pages(images, storage, has_pages=False, frames_of=frames_of))


def keys(folder: Path, sampling: str = "fps=1") -> list[str]:
    return [entry.key for entry in entries(folder, sampling)]


def test_frames_are_named_by_their_times_and_sorted_as_they_are_shown(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mkv", times_ms=[0, 2040, 9999, 12040])
    assert keys(tmp_path, "every=1") == [f"clip.mkv#t={time}" for time in ("00.000", "02.040", "09.999", "12.040")]
    assert [entry.frame.number for entry in entries(tmp_path) if entry.frame] == [0, 1, 2, 3]


class Remote(LocalStorage):
    """A folder that is asked as a bucket is, by several threads."""

    is_remote = True


def test_videos_of_a_bucket_are_looked_into_beside_each_other(tmp_path: Path) -> None:
    write_video(tmp_path / "0.mkv", frames=30)
    for number in range(1, 10):
        (tmp_path / f"{number}.mkv").write_bytes((tmp_path / "0.mkv").read_bytes())
    touch(tmp_path, "5.mkv!.jpg", "bad.mkv")
    storage = Remote(tmp_path)
    images = storage.images(Rules(Selection(videos=True)))
    with frame_listing(storage, "fps=1") as frames_of:
        assert list(Pages(images, storage, has_pages=False, frames_of=frames_of)) == entries(tmp_path)


def test_frames_within_a_millisecond_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "fast.mp4"
    with videos.av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=4000)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(5):
            frame = videos.av.VideoFrame.from_ndarray(videos.picture(number), "rgb24")
            frame.pts = number
            container.mux(stream.encode(frame.reformat(format="yuv420p")))
        container.mux(stream.encode())
    assert keys(tmp_path, "every=1") == [f"fast.mp4#t=0.{time:06}" for time in (0, 250, 500, 750, 1000)]


def test_frames_stand_among_images(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mkv!.mkv"):
        write_video(tmp_path / name, frames=30)
    touch(tmp_path, "a.mkv#.jpg", "a.mkv.jpg", "b.jpg", "notes.txt")
    found = keys(tmp_path)
    assert found == sorted(found)
    assert len(found) == len(set(found)) == 4 + 3


def test_a_video_that_cannot_be_read_is_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "bad.mp4")
    assert keys(tmp_path) == ["bad.mp4"]


def test_what_is_missing_at_the_end_is_one_more_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=150)
    path.write_bytes(path.read_bytes()[: videos.packet_places(path)[80][0]])
    *there, lost = keys(tmp_path)
    assert there == [f"a.mkv#t={second}.000" for second in range(4)]
    assert 3.0 < float(lost.partition("=")[2]) <= 3.2


# -- in a plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path: Path) -> tuple[JobFolder, JobSpec, Path]:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_video(clips / "a.mp4", MP4, frames=75)
    touch(clips, "b.jpg")
    (tmp_path / "out").mkdir()
    return the_job(clips, tmp_path / "out", shard_size=2)


def the_job(clips: Path, output: Path, *, shard_size: int, sampling: str = "fps=1") -> tuple[JobFolder, JobSpec, Path]:
    spec = job_spec(clips, output, shard_size=shard_size)
    source = spec.source.model_copy(update={"selection": Selection(videos=True)})
    options = spec.options.model_copy(update={"frames": sampling})
    spec = spec.model_copy(update={"source": source, "options": options})
    return made(JobFolder.of(spec)), spec, clips


def planned(job: tuple[JobFolder, JobSpec, Path], epoch: int = 0, reason: str = "submit") -> PlanEpoch:
    folder, spec, clips = job
    return plan_epoch(
        folder, spec, LocalStorage(clips), epoch=epoch, reason=reason, on_shards=lambda _numbers, _images: None
    )


def test_a_plan_keeps_where_frames_are(job: tuple[JobFolder, JobSpec, Path]) -> None:
    epoch = planned(job)
    assert (epoch.listed, epoch.images) == (4, 4)
    assert list(planned_entries(job[0], [epoch])) == entries(job[2])
    assert all(entry.frame for entry in read_shard(job[0], 0, 0))


@pytest.mark.slow
def test_the_same_command_plans_only_videos_that_changed(job: tuple[JobFolder, JobSpec, Path]) -> None:
    planned(job)
    assert planned(job, 1, "update").images == 0
    write_video(job[2] / "a.mp4", MP4, frames=100)
    assert [entry.key for entry in planned_entries(job[0], [planned(job, 2, "update")])] == [
        f"a.mp4#t={second}.000" for second in range(4)
    ]


def test_a_frame_that_failed_is_tried_again_for_itself(job: tuple[JobFolder, JobSpec, Path]) -> None:
    folder, _, clips = job
    planned(job)
    write_records(Path(folder.uri) / RESULTS, [found("a.mp4#t=0.000"), failed("a.mp4#t=2.000"), failed("b.jpg")])
    again = list(planned_entries(folder, [planned(job, 1, "retry")]))
    wanted = [entry for entry in entries(clips) if entry.key in ("a.mp4#t=2.000", "b.jpg")]
    assert again == wanted


@pytest.mark.parametrize(("shard_size", "sizes"), [(60, [50, 50, 50, 50]), (100, [100, 100]), (20, [20, 20, 10] * 4)])
def test_a_shard_ends_where_a_keyframe_begins_a_run(tmp_path: Path, shard_size: int, sizes: list[int]) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "out").mkdir()
    write_video(tmp_path / "clips" / "a.mkv", MKV, frames=200)
    job = the_job(tmp_path / "clips", tmp_path / "out", shard_size=shard_size, sampling="every=1")
    epoch = planned(job)
    assert [len(read_shard(job[0], 0, number)) for number in epoch.numbers] == sizes


def test_a_limit_counts_videos(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    (tmp_path / "out").mkdir()
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_video(clips / name, frames=30)
    folder, spec, _ = the_job(clips, tmp_path / "out", shard_size=9)
    chosen = spec.source.model_copy(update={"selection": Selection(videos=True, limit=2)})
    job = folder, spec.model_copy(update={"source": chosen}), clips
    first = planned(job)
    assert first.images == 4
    write_video(clips / "0.mkv", frames=30)
    assert planned(job, 1, "update").images == 0
