"""A folder of images and videos: the same bytes however the work is divided, and whoever is killed."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import videos
from terminal import DIGITS, Terminal, job_folder, wait_for, worker_pids
from videos import MKV, MP4, write_video

pytestmark = pytest.mark.slow


def clips(folder: Path) -> Path:
    """Make a folder of videos, good and bad, and of images."""
    folder.mkdir()
    write_video(folder / "a.mkv", MKV, frames=150, gop=25)
    write_video(folder / "b.mp4", MP4, frames=100)
    videos.damage(folder / "a.mkv", videos.packet_places(folder / "a.mkv")[60:62])
    write_video(folder / "cut.mkv", MKV, frames=100)
    data = (folder / "cut.mkv").read_bytes()
    (folder / "cut.mkv").write_bytes(data[: videos.packet_places(folder / "cut.mkv")[60][0]])
    (folder / "bad.mov").write_bytes(b"no video")
    (folder / "notes.txt").touch()
    for number, scene in enumerate(sorted((DIGITS / "scenes").rglob("*.jpg"))[:3]):
        shutil.copy(scene, folder / f"{number}.jpg")
    return folder


def test_images_and_videos_have_the_same_results_however_they_are_divided(
    terminal: Terminal, digits: Path, tmp_path: Path
) -> None:
    folder = clips(tmp_path / "clips")
    options = ("--model", digits, "--fps", "10", "--annotate-video")
    calm = terminal.here("run", folder, *options, "-o", tmp_path / "calm")
    assert calm.code == 1, calm.err  # some frames are bad
    results = (job_folder(tmp_path / "calm") / "results.jsonl").read_bytes()
    summary = json.loads((job_folder(tmp_path / "calm") / "summary.json").read_text())
    assert (summary["videos"], summary["ignored"]) == (3, {".txt": 1})
    assert summary["images"] == summary["frames"] + 4
    assert "frames of 3 videos" in calm.out

    command = ("run", folder, *options, "-o", tmp_path / "torn", "--shard-size", "5", "--processes", "3")
    torn = terminal.start(*command)
    wait_for(lambda: list((tmp_path / "torn").glob("*/shards/[0-9]*.json")), "a first shard")
    os.kill(random.choice(worker_pids(torn.pid)), signal.SIGKILL)
    _, err = torn.communicate(timeout=50)
    assert torn.returncode == 1, err
    assert (job_folder(tmp_path / "torn") / "results.jsonl").read_bytes() == results
    for name, frames in (("a.mkv", 150), ("b.mp4", 100)):
        copies = [job_folder(tmp_path / run) / "annotated" / name for run in ("calm", "torn")]
        assert copies[0].read_bytes() == copies[1].read_bytes()
        with videos.av.open(copies[0]) as container:
            assert frames - 25 < sum(1 for _ in container.decode(video=0)) <= frames
