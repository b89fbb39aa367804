"""Crops of frames, each of the frame that the job has seen."""

from dataclasses import replace
from pathlib import Path

import pytest
from epochs import found, job_spec, write_records
from videos import MP4, number_in, write_video

from trtjob.imaging.decode import decode_image
from trtjob.jobs.folder import RESULTS, JobFolder, PlanEpoch
from trtjob.jobs.frame_listing import frame_listing
from trtjob.jobs.frames import time_s
from trtjob.jobs.plan import write_shard
from trtjob.jobs.spec import Source
from trtjob.storage import LocalStorage
from trtjob.worker.crops import make_crops

pytestmark = pytest.mark.extra


def test_a_crop_is_of_the_frame_that_the_job_has_seen(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "v.mp4", MP4, frames=50, gop=10)
    source = LocalStorage(videos)
    spec = job_spec(tmp_path / "out")
    spec = spec.model_copy(
        update={
            "source": Source(kind="folder", root=str(videos)),
            "options": spec.options.model_copy(update={"frames": "every=15"}),
        }
    )
    folder = JobFolder.of(spec)
    folder.storage.make_root()
    with frame_listing(source, "every=15") as frames_of:
        assert frames_of is not None
        entries = sorted(frames_of(source.entry("v.mp4")), key=lambda entry: entry.key)
    folder.open_round(0, "submit")
    write_shard(folder, 0, 0, entries)
    folder.commit_epoch(PlanEpoch(epoch=0, reason="submit", first_shard=0, shards=1, images=4, ignored={}, listed=4))
    records = []
    for entry in entries:
        assert entry.frame is not None
        record = replace(found(entry.key, (1, 0.9, (0.0, 0.0, 64.0, 48.0)), width=64), height=48)
        records.append(replace(record, sha256=None, frame=entry.frame.number, time_s=time_s(entry.key)))
    write_records(Path(folder.uri) / RESULTS, records)
    out = tmp_path / "crops"
    made = make_crops(folder, spec, out, conf=0.25, margin=0, max_pixels=10**6, jpeg_quality=95)
    assert (made.crops, made.left) == (4, [])
    seen = {
        record.frame: number_in(decode_image((out / f"dog/{record.image}-1.jpg").read_bytes(), max_pixels=10**6))
        for record in records
    }
    assert seen == {0: 0, 15: 15, 30: 30, 45: 45}
