"""A process that writes the annotated copy of one video: `python -m trtjob.worker.video_copy`, started by a worker.

It gets one line of JSON, says `{"at_s": ...}` as it goes on, and last `{"written": ...}` or `{"failed": ...}`; or
`{"place": ...}` where the place of the results or of the source fails. A copy says in its comment what it was made of:
so one that is there is not made again, whoever was stopped meanwhile.
"""

import math
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtjob.child_process import BEAT_S, Say, child_config, end_when_nobody_waits
from trtjob.errors import ImageError, StorageError
from trtjob.imaging.video import UInt8Array
from trtjob.imaging.video_copy import copy_suffix, write_copy
from trtjob.imaging.video_file import opened
from trtjob.imaging.video_times import video_parts
from trtjob.jobs.folder import JobFolder, suffixed_key
from trtjob.jobs.frames import time_s
from trtjob.jobs.records import Record, from_line
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec
from trtjob.storage import Storage
from trtjob.storage.listing import Entry
from trtjob.worker.record_drawing import RecordDrawing


def copy_key(video: str) -> str:
    """Where a video's annotated copy lies: under its own name, with `.mkv` behind it where its kind is not written.

    >>> copy_key("night/a.mp4"), copy_key("a.avi")
    ('annotated/night/a.mp4', 'annotated/a.avi.mkv')
    """
    suffix = copy_suffix(video)
    return f"annotated/{suffixed_key(video, suffix) if suffix else video}"


class _Boxes:
    """What is drawn on the frames of a video, in their order: what was found in the last one that was looked at, and
    nothing where that failed."""

    def __init__(self, spec: JobSpec, records: Iterator[Record]) -> None:
        self._drawing = RecordDrawing(spec.options, spec.model.skeleton)
        self._records = records
        self._now: Record | None = None
        self._next = next(records, None)

    def draw(self, seconds: float, image: UInt8Array) -> UInt8Array:
        while self._next is not None and _begins_s(self._next) <= seconds:
            self._now, self._next = self._next, next(self._records, None)
        record = self._now
        if record is None or record.error is not None:
            return image
        return self._drawing.draw(image, record)


def _begins_s(record: Record) -> float:
    """Return from when on a record counts: its time is rounded to the last digit of its name."""
    digits = len(record.image.rpartition(".")[2])
    return time_s(record.image) - 0.5 * 10.0**-digits


def _copy(config: dict[str, Any], say: Say) -> None:
    """Write a copy unless it is there. Raises ImageError, StorageError."""
    spec, video = JobSpec.model_validate(config["spec"]), config["video"]
    progress = _Progress(say)
    source = open_source(spec.source, on_trouble=lambda _trouble: progress.say_now())
    storage = JobFolder.of(spec, lambda _trouble: progress.say_now()).storage
    key, entry, records = copy_key(video), source.entry(video), Path(config["records"])
    comment = f"{config['digest']} {entry.etag}"
    if _comment_of(storage, storage.entry(key)) == comment:
        return
    with source.open(entry) as file:
        parts = video_parts(file, progress.step)
    with records.open("rb") as lines:
        max_hw = max(((record.height or 0, record.width or 0) for record in map(from_line, lines)), key=math.prod)

    def on_time(seconds: float) -> None:
        progress.at_s = seconds
        progress.step()

    with source.open(entry) as file, records.open("rb") as lines, storage.writing(key) as copy:
        draw = _Boxes(spec, map(from_line, lines)).draw
        suffix = Path(key).suffix
        write_copy(file, copy, suffix, draw, parts, comment=comment, max_hw=max_hw, on_time=on_time)


def _comment_of(storage: Storage, copy: Entry) -> str:
    """Return what a copy that is there was made of, nothing where none is."""
    if not copy.etag:
        return ""
    with suppress(ImageError), storage.open(copy) as file:
        container, _ = opened(file)
        with container:
            return next((text for name, text in container.metadata.items() if name.lower() == "comment"), "")
    return ""


@dataclass(slots=True)
class _Progress:
    """How far a copy is, which is said once a second."""

    say: Say
    at_s: float = 0.0
    _said_at: float = 0.0

    def step(self) -> None:
        if time.monotonic() - self._said_at >= BEAT_S:
            self.say_now()

    def say_now(self) -> None:
        self._said_at = time.monotonic()
        self.say({"at_s": round(self.at_s, 1)})


def main() -> None:
    """Write the copy that standard input asks for."""
    with child_config() as (config, say):
        end_when_nobody_waits()
        try:
            _copy(config, say)
        except ImageError as err:
            say({"failed": str(err)})
        except StorageError as err:
            say({"place": str(err)})
        else:
            say({"written": copy_key(config["video"])})


if __name__ == "__main__":
    main()
