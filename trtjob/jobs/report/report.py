"""The report of a job, written record by record."""

import math
import os
import posixpath
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from trtjob.errors import StorageError
from trtjob.jobs.folder import ANNOTATED_SUFFIXES, REPORT, REPORT_DATA, THUMBNAILS, JobFolder
from trtjob.jobs.records import Record
from trtjob.jobs.report.differences import Differences, differences
from trtjob.jobs.report.page import render_page
from trtjob.jobs.report.reference import Reference
from trtjob.jobs.report.thumbnails import has_thumbnails
from trtjob.jobs.spec import JobSpec

if TYPE_CHECKING:
    from trtjob.jobs.report.chunk import Chunk

# An image without a hit is nearly one where its best score is so little below the threshold; ten-thousandths.
NEARLY = 1_000
_OF_THE_SUMMARY = ("images", "failed", "failures", "ignored", "devices", "busy_s", "elapsed_s", "incomplete")
_SCRIPT_NAME = re.compile(r"(data|details)-\d{4,}-[0-9a-f]{8}\.js")


class Report:
    """`report.html` and the data that it shows. Memory does not depend on the number of images.

    before_write: called before each step that shows; may raise to stop. conf: the score from which on objects are shown
    at first, None for what the summary counts: the job's own; where an image has one class, that one at any score;
    reference: what the job's objects are held against; address_of: gives an original's address that the page may ask,
    by the image's name.
    """

    def __init__(
        self,
        folder: JobFolder,
        spec: JobSpec,
        before_write: Callable[[], None] = lambda: None,
        *,
        conf: float | None = None,
        reference: Reference | None = None,
        address_of: Callable[[str], str | None] | None = None,
    ) -> None:
        from trtjob.jobs.report.chunk import Chunk  # loads numpy: only where a report is made
        from trtjob.jobs.report.counts import Counts

        self._folder = folder
        self._spec = spec
        self._before_write = before_write
        self._conf = conf
        self._reference = reference
        self._earlier = [name for name in folder.storage.list(REPORT_DATA) if _SCRIPT_NAME.fullmatch(name)]
        self._is_exclusive = False
        self._origins: set[str] = set()  # of addresses that the page may ask
        self._new_chunk = partial(Chunk, None if address_of is None else self._noted(address_of))
        self._chunk = self._new_chunk()
        self._chunks: list[tuple[Any, ...]] = []
        self._counts = Counts()
        self._differences = Differences()

    def add(self, record: Record) -> None:
        if self._chunk.add(record, None if self._reference is None else self._reference.compared(record)):
            self._write_chunk()

    def _write_chunk(self) -> None:
        chunk, number = self._chunk, len(self._chunks)
        self._chunk = self._new_chunk()
        self._is_exclusive |= chunk.is_exclusive
        self._counts.add_objects(chunk, self._threshold, is_exclusive=self._is_exclusive)
        scripts = chunk.scripts(number)
        self._before_write()
        for name, script in scripts.items():
            self._put(f"{REPORT_DATA}/{name}", script)
        images = self._counts.add_images(chunk, self._threshold, max(0, self._threshold - NEARLY))
        self._chunks.append((list(scripts), *images, *self._count_differences(chunk)))

    def _noted(self, address_of: Callable[[str], str | None]) -> Callable[[str], str | None]:
        def noted(image: str) -> str | None:
            if (address := address_of(image)) is not None:
                self._origins.add("/".join(address.split("/", 3)[:3]))
            return address

        return noted

    def _put(self, key: str, script: bytes) -> None:
        """Write what a page loads. It is made again where a crash of the machine loses it: `trtjob report`."""
        try:
            self._folder.storage.put(key, script)
        except OSError as err:
            raise StorageError(f"cannot write {self._folder.storage.place(key)}: {err.strerror or err}") from err

    @property
    def _threshold(self) -> int:
        """The score, in ten-thousandths, from which on an object is shown at first."""
        own = 0 if self._is_exclusive else self._spec.options.conf
        return math.ceil(round((own if self._conf is None else self._conf) * 10_000, 6))

    def _count_differences(self, chunk: "Chunk") -> tuple[int, ...]:
        """Return in how many images an object is more, is missing, and has moved, where something says so."""
        if self._reference is None:
            return ()
        found = differences(chunk, self._threshold, most=1 if self._is_exclusive else None)
        self._differences += found
        return found.images

    def write(self, summary: dict[str, Any]) -> None:
        """Write the page, and remove the data of pages before it. summary: the fields of `summary.json`."""
        self._chunk.settle()
        if self._chunk.names:
            self._write_chunk()
        self._before_write()
        page = render_page(
            f"{self._spec.job_id}: {_shown(self._spec.source.shown)}", self._index(summary), self._origins
        )
        self._folder.storage.write(REPORT, page)
        kept = {name for names, *_ in self._chunks for name in names}
        for name in self._earlier:
            if name not in kept:
                self._before_write()
                self._folder.storage.delete(f"{REPORT_DATA}/{name}")

    def _index(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Return what the page knows without its data; `page/index.js` says what is in it."""
        spec, counts = self._spec, self._counts
        labels = dict(enumerate(spec.model.labels)) | (self._reference.labels() if self._reference else {})
        return {
            "job": spec.job_id,
            "source": spec.source.shown,
            "model": {"name": spec.model.name, "sha256": spec.model.sha256},
            "task": spec.model.task,
            "is_exclusive": self._is_exclusive,
            "skeleton": spec.model.skeleton,
            "threshold": self._threshold,
            "conf": spec.options.conf,
            "iou": spec.options.iou,
            "min_score": 0 if self._is_exclusive else spec.options.min_score,
            "nearly": NEARLY,
            "submitted": datetime.fromtimestamp(spec.created_at, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "summary": {name: summary[name] for name in _OF_THE_SUMMARY},
            "originals": {part.name: _link(part.root, spec.uri) for part in spec.source.all_parts},
            "addresses": {part.name: part.root for part in spec.source.all_parts if "://" in part.root},
            "has_pages": spec.options.pages == "all",
            "has_frames": spec.options.frames is not None,
            "has_video_copies": spec.options.annotate_video,
            "annotate": spec.options.annotate,
            "thumbnails": THUMBNAILS if has_thumbnails(self._folder, spec) else None,
            "copied_suffixes": sorted(ANNOTATED_SUFFIXES),
            "data": REPORT_DATA,
            "histogram": [counts.bars[bar] for bar in range(101)],
            "labels": [
                [found, labels.get(found, f"class {found}"), counts.counted[found]]
                for found in sorted(
                    counts.stored, key=lambda found: (-counts.counted[found], -counts.stored[found], found)
                )
            ],
            "folders": counts.folders.rows(),
            "chunks": self._chunks,
            "reference": self._reference and {**self._reference.index(), "objects": self._differences.objects},
        }


def _link(root: str, here: str) -> str | None:
    """Return the way from the page to a place of images, None where there is none, from a disk to a bucket, say."""
    if "://" not in root and "://" not in here:
        return quote(os.fsencode(os.path.relpath(root, here)))
    bucket = "/".join(here.split("/")[:3])
    if here.startswith("s3://") and f"{root}/".startswith(f"{bucket}/"):
        return quote(posixpath.relpath(root, here))
    return None


def _shown(text: str) -> str:
    """Return a text without the bytes that are no UTF-8."""
    return text.encode("utf-8", "replace").decode()
