"""Annotated copies of videos (`--annotate-video`), made when a job has all its results: each by its own process."""

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from trtjob.child_environment import KEEPS_MEMORY
from trtjob.child_process import STALL_S, how_it_ended, said, started
from trtjob.errors import StorageError
from trtjob.jobs.frames import names_frame, video_key
from trtjob.jobs.records import Record, to_line
from trtjob.jobs.spec import JobSpec

log = logging.getLogger(__name__)

_PROCESS = "trtjob.worker.video_copy"


def write_video_copies(spec: JobSpec, records: Iterable[Record], on_wait: Callable[[str], None]) -> dict[str, str]:
    """Write the copies of the videos of which frames have results. Returns those that cannot be written, and why.

    records: of the whole job, in their order; on_wait: told once a second what is done; it may raise to stop.
    Raises StorageError where a place fails.
    """
    failed: dict[str, str] = {}
    frames = (record for record in records if names_frame(record.image))
    with tempfile.TemporaryDirectory(prefix="trtjob-") as folder:
        for video, found in groupby(frames, lambda record: video_key(record.image)):
            path = Path(folder) / "records.jsonl"
            if digest := _spooled(spec, found, path):
                config = {"spec": spec.model_dump(mode="json"), "video": video, "records": str(path), "digest": digest}
                if why := _written(config, on_wait):
                    log.warning("a video has no annotated copy", extra={"video": video, "cause": why})
                    failed[video] = why
    return failed


def _spooled(spec: JobSpec, records: Iterable[Record], path: Path) -> str:
    """Write one video's records to a file. Returns what tells its copy from others, nothing where no frame is good."""
    digest = hashlib.sha256(spec.options.model_dump_json(exclude={"shard_size", "max_failures"}).encode())
    is_any = False
    with path.open("wb") as file:
        for record in records:
            line = to_line(record)
            digest.update(line)
            file.write(line)
            is_any |= record.error is None
    return digest.hexdigest() if is_any else ""


def _written(config: dict[str, Any], on_wait: Callable[[str], None]) -> str:
    """Have a copy written. Returns why it is not, nothing where it is. Raises StorageError."""
    at_s = 0.0
    heard_at = time.monotonic()
    with started(_PROCESS, config, env=KEEPS_MEMORY, buckets=True) as (process, stream):
        for news in said(stream):
            on_wait(f"writing the annotated copy of {config['video']}: {at_s:,.0f} s of it are done")
            if news is None:
                if time.monotonic() - heard_at > STALL_S:
                    return f"it hangs at {at_s:,.1f} s"
                continue
            heard_at = time.monotonic()
            if "place" in news:
                raise StorageError(news["place"])
            if "at_s" not in news:
                return str(news.get("failed", ""))
            at_s = news["at_s"]
        return f"its process {how_it_ended(process.wait())}"
