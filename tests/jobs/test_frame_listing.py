"""The process that lists the frames of videos: one that dies or hangs costs one video, and no worker."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from videos import MP4, write_video

from trtjob.jobs import frame_listing as module
from trtjob.jobs.frame_listing import FramesOf, frame_listing
from trtjob.storage import LocalStorage
from trtjob.storage.listing import Entry


def children() -> list[int]:
    """Return the processes that this one has started."""
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


class Harming(LocalStorage):
    """A folder of which one file sends a signal to what reads it."""

    def __init__(self, folder: Path, harm: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(folder)
        self._monkeypatch = monkeypatch
        self.before = set(children())
        self._harm = harm

    def open(self, entry: Entry) -> BinaryIO:
        if entry.key == "b.mp4":
            self._monkeypatch.setattr(module, "STALL_S", 1.0)
            for pid in set(children()) - self.before:
                os.kill(pid, self._harm)
        else:
            self._monkeypatch.undo()
        return super().open(entry)


@contextmanager
def listing(source: LocalStorage) -> Iterator[FramesOf]:
    with frame_listing(source, "fps=1") as frames_of:
        assert frames_of is not None
        yield frames_of


@pytest.mark.slow
@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_a_video_at_which_the_process_ends_is_one_image(
    tmp_path: Path, harm: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_video(tmp_path / name, MP4, frames=30)
    source = Harming(tmp_path, harm, monkeypatch)
    with listing(source) as frames_of:
        found = [entry.key for key in ("a.mp4", "b.mp4", "c.mp4") for entry in frames_of(source.entry(key))]
    assert found == ["a.mp4#t=0.000", "a.mp4#t=1.000", "b.mp4", "c.mp4#t=0.000", "c.mp4#t=1.000"]
    assert set(children()) == source.before


def test_who_waits_is_told_what_for_and_may_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BEAT_S", 0.0)
    monkeypatch.setattr(module, "COSTLY_BYTES", 1)
    write_video(tmp_path / "a.mkv", frames=30)
    source = LocalStorage(tmp_path)

    def stop(what: str) -> None:
        assert "a.mkv" in what
        if "so all of it is read" in what:
            raise InterruptedError

    with frame_listing(source, "fps=1", stop) as frames_of:
        assert frames_of is not None
        frames = frames_of(source.entry("a.mkv"))
        with pytest.raises(InterruptedError):
            list(frames)
