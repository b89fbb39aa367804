"""Videos in a pipeline: each frame ends in one record, the same whoever decodes it, and a video is decoded once."""

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import videos
from s3_server import S3Server
from videos import CODECS, MKV, MP4, packet_places, write_video
from worker.pipeline.lines import Results, job, pipeline_of
from worker.plain_engine import DETECTOR, PlainEngine, write_image

from trtjob.errors import FailureKind
from trtjob.jobs.frame_listing import frame_listing
from trtjob.jobs.pages import Pages
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.storage import LocalStorage, open_storage
from trtjob.storage.listing import Entry
from trtjob.storage.selection import Rules, Selection
from trtjob.worker.pipeline.child_config import ChildConfig
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.open_jobs import OpenJobs
from trtjob.worker.pipeline.reply_writer import ReplyWriter
from trtjob.worker.pipeline.ring import Layout, Ring
from trtjob.worker.pipeline.stages import Stages


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    return folder


def video_job(clips: Path | str, output: Path | str, sampling: str = "every=1", **options: object) -> JobSpec:
    spec = job(Path("/clips"), Path(output)) if "s3:" not in str(output) else job(Path("/clips"), Path("/out"))
    changed = {"frames": sampling, "annotate": Annotate.NONE, **options}
    return spec.model_copy(
        update={
            "source": spec.source.model_copy(update={"root": str(clips), "selection": Selection(videos=True)}),
            "options": spec.options.model_copy(update=changed),
        }
    )


def frames(spec: JobSpec) -> list[Entry]:
    storage = open_source(spec.source)
    images = storage.images(Rules(spec.source.selection))
    with frame_listing(storage, spec.options.frames) as frames_of:
        return list(Pages(images, storage, has_pages=False, frames_of=frames_of))


def lines(
    spec: JobSpec, entries: list[Entry], *, processes: int = 1, kill: bool = False, memory_bytes: int = 64 << 20
) -> dict[str, bytes]:
    """Return the records of entries, by their keys, in order; kill: an image process dies in the middle."""
    results = Results()
    with pipeline_of(
        PlainEngine(max_batch=4), processes=processes, slots=12, memory_bytes=memory_bytes, max_pixels=100_000
    ) as pipeline:

        def on_done(outcome: Outcome) -> None:
            results(outcome)
            if kill and len(results.outcomes) == len(entries) // 3:
                os.kill(pipeline.process_pool.handles[0].process.pid, signal.SIGKILL)

        asyncio.run(pipeline.run(spec, entries, on_done))
    assert results.keys == sorted(entry.key for entry in entries)
    return {outcome.key: outcome.line for outcome in sorted(results.outcomes)}


@pytest.mark.slow
def test_each_frame_has_the_same_record_whoever_decodes_it_and_whoever_dies(clips: Path, tmp_path: Path) -> None:
    write_video(clips / "a.mkv", MKV, frames=120, gop=25)
    write_video(clips / "b.mp4", MP4, frames=70)
    write_image(clips / "c.png")
    videos.damage(clips / "a.mkv", packet_places(clips / "a.mkv")[60:62])
    spec = video_job(clips, tmp_path / "out")
    entries = frames(spec)
    calm = lines(spec, entries)
    assert len(calm) == 191
    assert 0 < sum(b'"error"' in line for line in calm.values()) < 25
    assert calm["b.mp4#t=1.480"].startswith(
        b'{"image": "b.mp4#t=1.480", "frame": 37, "time_s": 1.48, "width": 64, "hei'
    )
    assert lines(spec, entries, processes=3) == calm
    assert lines(spec, entries, processes=2, kill=True) == calm
    halves = lines(spec, entries[1::2]) | lines(spec, entries[0::2], processes=2)
    assert {key: halves[key] for key in calm} == calm


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["every=1", "every=7"])
def test_the_rest_of_a_video_that_ends_within_a_frame_is_one_record_whoever_does_it(
    clips: Path, tmp_path: Path, sampling: str
) -> None:
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    for name, codec, muxer in (("a.avi", CODECS[6], {}), ("b.mp4", MP4, fragments), ("c.mkv", MKV, {})):
        path = write_video(clips / name, codec, frames=60, muxer=muxer)
        at, size = packet_places(path)[30]
        path.write_bytes(path.read_bytes()[: at + size // 2])
    spec = video_job(clips, tmp_path / "out", sampling, truncated="ok")
    entries = frames(spec)
    found = lines(spec, entries)
    for key in ("a.avi#t=1.240", "b.mp4#t=1.240", "c.mkv#t=1.200"):
        assert b"the video is cut off or damaged" in found[key]
        assert max(other for other in found if other[:5] == key[:5]) == key
    halves = lines(spec, entries[1::2]) | lines(spec, entries[0::2], processes=2)
    assert {key: halves[key] for key in found} == found


@pytest.mark.slow
def test_frames_above_the_budget_go_one_at_a_time(clips: Path, tmp_path: Path) -> None:
    write_video(clips / "a.mkv", frames=20)
    spec = video_job(clips, tmp_path / "out")
    calm = lines(spec, frames(spec))
    assert not any(b'"error"' in line for line in calm.values())
    assert lines(spec, frames(spec), processes=2, memory_bytes=1 << 16) == calm


@pytest.mark.slow
def test_a_bad_video_is_its_own_record_and_harms_no_other(clips: Path, tmp_path: Path) -> None:
    write_video(clips / "good.mkv", frames=20)
    (clips / "bad.mp4").write_bytes(b"no video")
    (clips / "empty.mov").touch()
    videos.write_sound(clips / "sound.mp4")
    write_video(clips / "huge.mkv", frames=2, hw=(400, 400))
    videos.write_encrypted(clips / "secret.mp4")
    videos.write_two_sizes(clips / "sizes.ts", videos.HW, (96, 128))
    write_video(clips / "wrong.mkv", frames=5).rename(clips / "wrong.mp4")
    for part in clips.glob("sizes.*.ts"):
        part.unlink()
    spec = video_job(clips, tmp_path / "out", "every=10")
    found = lines(spec, frames(spec), processes=2)
    told = {key: line.decode().partition('"error": ')[2] for key, line in found.items()}
    assert [key for key, why in told.items() if not why] == [
        *("good.mkv#t=0.000", "good.mkv#t=0.400"),
        *("sizes.ts#t=0.000", "sizes.ts#t=0.400", "sizes.ts#t=0.800", "sizes.ts#t=1.200"),
        "wrong.mp4#t=0.000",
    ]
    assert b'"width": 128, "height": 96' in found["sizes.ts#t=0.800"]
    assert "is encrypted" in told["secret.mp4"]
    assert "is no video that can be read" in told["bad.mp4"]
    assert "it is empty" in told["empty.mov"]
    assert "only sound" in told["sound.mp4"]
    assert f'"kind": "{FailureKind.TOO_LARGE}"' in told["huge.mkv#t=0.000"]


@pytest.mark.slow
def test_damaged_frames_are_taken_where_that_is_asked_for_and_drawn_on(clips: Path, tmp_path: Path) -> None:
    write_video(clips / "a.mkv", frames=30)
    videos.damage(clips / "a.mkv", packet_places(clips / "a.mkv")[11:12])
    spec = video_job(clips, tmp_path / "out", truncated="ok", annotate=Annotate.ALL)
    entries = frames(spec)
    found = lines(spec, entries)
    damaged = [line for line in found.values() if b'"damage": "the video is damaged here' in line]
    assert damaged
    good = [key for key, line in found.items() if b'"error"' not in line]
    assert sorted(path.name for path in (Path(spec.uri) / "annotated").iterdir()) == [f"{key}.jpg" for key in good]


@pytest.mark.slow
def test_a_video_of_a_bucket_is_read_in_parts(clips: Path, tmp_path: Path, bucket: str, s3: S3Server) -> None:
    write_video(clips / "a.mp4", MP4, frames=60)
    here = video_job(clips, tmp_path / "out")
    open_storage(f"s3://{bucket}/clips").write("a.mp4", (clips / "a.mp4").read_bytes())
    there = video_job(f"s3://{bucket}/clips", tmp_path / "out")
    assert lines(there, frames(there), processes=2) == lines(here, frames(here))


@pytest.mark.parametrize(
    "made", [{"annotate": Annotate.ALL}, {"thumbnails": Annotate.ALL}], ids=["copies", "thumbnails"]
)
def test_what_the_network_sees_of_a_frame_is_the_same_whether_anything_is_made_of_it(
    clips: Path, tmp_path: Path, made: dict[str, Annotate]
) -> None:
    videos.write_noise(clips / "a.mp4", 6, {})
    seen = []
    choices: list[dict[str, Annotate]] = [{"annotate": Annotate.NONE, "thumbnails": Annotate.NONE}, made]
    for options in choices:
        spec = video_job(clips, tmp_path / "out", **options)
        stages = Stages(
            spec.options,
            DETECTOR,
            open_source(spec.source),
            LocalStorage(tmp_path),
            max_pixels=100_000,
            jpeg_quality=90,
        )
        tensor = np.zeros((*DETECTOR.input_hw, DETECTOR.channels), np.uint8)
        item = stages.prepare_frame(frames(spec)[3], tensor)
        stages.close()
        assert (item.image is None) == (options.get("annotate") is not Annotate.ALL)
        seen.append((tensor, item.hw, item.placement))
    assert seen[0][1:] == seen[1][1:] == ((128, 128), seen[0][2])
    assert (seen[0][0] == seen[1][0]).all()


def test_shards_of_a_job_that_overlap_share_the_video_that_is_open(clips: Path, tmp_path: Path) -> None:
    path = write_video(clips / "a.mkv", frames=30)
    spec = video_job(clips, tmp_path / "out")
    entries = frames(spec)
    layout = Layout(processes=1, slots=1, tensor=(*DETECTOR.input_hw, DETECTOR.channels), answer=(1, 6))
    config = ChildConfig(0, layout, DETECTOR, 10_000, 90, 64 << 20, 1, allow_local=False, log_level="", log_format="")
    ring, document = Ring.create(layout), spec.model_dump(mode="json")

    def opened() -> int:
        return sum(os.path.realpath(link) == str(path) for link in Path("/proc/self/fd").iterdir())

    async def check(replies: int) -> None:
        jobs = OpenJobs(config, ring.boards[0], ReplyWriter(replies))
        for number, entry in ((1, entries[0]), (2, entries[20])):
            jobs.open(number, document)
            job = jobs.get(number)
            assert job is not None
            job.stages.prepare_frame(entry, ring.tensors[0])
            assert opened() == 1
        jobs.leave(1)
        assert opened() == 1
        jobs.leave(2)
        assert opened() == 0

    with Path(os.devnull).open("wb") as replies:
        asyncio.run(check(replies.fileno()))
