"""The end of a job: its shards become one result, a summary, a report, and last the receipt."""

import hashlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import Field

from trtjob.documents import Document
from trtjob.errors import StorageError
from trtjob.jobs.folder import ERRORS, RESULTS, SUMMARY, JobFolder, PlanEpoch
from trtjob.jobs.frames import names_frame, video_key
from trtjob.jobs.records import Record, read_records, to_line
from trtjob.jobs.report import Report
from trtjob.jobs.report.reference import Reference
from trtjob.jobs.results import merged_records, records_so_far
from trtjob.jobs.spec import JobSpec

_SHARD_FILE = re.compile(r"(\d{5,})\.(\d+(-[0-9a-f]+)?|part-[0-9a-f]+)\.jsonl")


class Summary(Document):
    """A job in numbers (`summary.json`).

    images = ok + failed + skipped; ignored: files that were not taken, by suffix or kind; failures: by kind;
    detections: of a score of at least `conf`, by label, the most frequent first (for a classifier: the best class of
    each image, or its labels of such a score); images_with_detections: images with at least one of these; truncated:
    images in which there may be more detections than the model gives; multi_page: images with more pages or frames than
    the first, which is the one that was looked at; damaged: images that were read as far as they go; videos: those that
    have frames among the images, frames: how many images are; videos_not_copied: those without an annotated copy that
    was wanted, and why; devices: images by what the model ran on, those that were tried again counted again; busy_s:
    seconds of work by stage, over all threads and workers; elapsed_s: seconds from the first submission on; incomplete:
    why images are missing, and how many there are, such as "cancelled: 768 of 2,000"; empty where none is.
    """

    schema_version: int = 1
    job_id: str
    model: str
    conf: float
    images: int
    ok: int
    failed: int
    skipped: int = 0
    ignored: dict[str, int]
    failures: dict[str, int]
    images_with_detections: int
    truncated: int = 0
    multi_page: int = 0
    damaged: int = 0
    videos: int = 0
    frames: int = 0
    videos_not_copied: dict[str, str] = Field(default_factory=dict)
    detections: dict[str, int]
    devices: dict[str, int]
    busy_s: dict[str, float]
    elapsed_s: float
    incomplete: str = ""

    @classmethod
    def of(cls, folder: JobFolder) -> "Summary":
        """Read it. Raises FileNotFoundError, and StorageError where it is damaged."""
        return folder.document(cls, SUMMARY, remedy="Remove it")


class Receipt(Document):
    """The proof that a job is complete (`_SUCCESS.json`): listed = ok + failed + skipped. Written last.

    That every listed image has its record is checked by the merge that wrote them, image by image.
    """

    schema_version: int = 1
    job_id: str
    listed: int
    ok: int
    failed: int
    skipped: int
    results_sha256: str
    model_sha256: str
    finished_at: float  # seconds since the epoch


def finish(
    folder: JobFolder,
    spec: JobSpec,
    on_record: Callable[[], None] = lambda: None,
    before_write: Callable[[], None] = lambda: None,
    on_results: Callable[[], dict[str, str]] = dict,
) -> Summary:
    """Write all documents of a complete job and remove what attempts have left. May be stopped and called again.

    on_record: called for every record; before_write: called before each step that shows; on_results: called when the
    results are written, before the summary is; returns the videos that have no annotated copy, and why. All may raise
    to stop, where another finishes the job now, say. Memory does not depend on the number of images.
    Raises StorageError where the job is not complete or the folder cannot be written.
    """
    epochs = folder.epochs()
    if not epochs:
        raise StorageError(f"{folder.uri} has no complete plan: the job is not complete. Run it again")
    _remove_leftovers(folder, epochs, before_write)
    try:
        summary, receipt = _write_documents(folder, spec, epochs, on_record, before_write, on_results)
        before_write()
        document = receipt.model_dump_json(indent=1).encode() + b"\n"
        folder.finish_round(epochs[-1].epoch, document, receipt.results_sha256)
    finally:
        _make_good(folder, spec, epochs)
    return summary


def finish_partly(
    folder: JobFolder, spec: JobSpec, *, why: str, listed: int, before_write: Callable[[], None] = lambda: None
) -> Summary | None:
    """Write the documents of a job that was left, with what is done, and no receipt. It can still be continued.

    why: a word; listed: how many images the job has, as far as is known; before_write: as for `finish`.
    Returns None where no round is under way: then they are as the last one left them.
    Raises StorageError where the folder cannot be read or written.
    """
    newest = folder.newest_round()
    if newest is None or folder.has_finished(newest.epoch):
        return None
    part = _Results(records_so_far(folder, spec), folder.committed_shards(), _ignored(folder.epochs()), why, listed)
    summary, _ = _write(folder, spec, part, before_write=before_write)
    return summary


def report_again(
    folder: JobFolder,
    spec: JobSpec,
    *,
    conf: float | None = None,
    reference: Reference | None = None,
    address_of: Callable[[str], str | None] | None = None,
) -> None:
    """Write the report of a job anew from its results, and nothing else. conf, reference, address_of: as of `Report`.

    Raises FileNotFoundError where the job has no results yet, StorageError where the folder cannot be read or written.
    """
    summary = Summary.of(folder)
    report = Report(folder, spec, conf=conf, reference=reference, address_of=address_of)
    for record in read_records(folder.storage, RESULTS):
        report.add(record)
    report.write(summary.model_dump())


@dataclass(frozen=True, slots=True)
class _Results:
    """What documents are written of. shards: those that hold the records; ignored: as of `Summary`; why, listed: as of
    `finish_partly`."""

    records: Iterable[Record]
    shards: Iterable[int]
    ignored: dict[str, int]
    why: str = ""
    listed: int = 0


def _ignored(epochs: list[PlanEpoch]) -> dict[str, int]:
    return next((epoch.ignored for epoch in reversed(epochs) if epoch.reason != "retry"), {})  # which lists no source


def _write_documents(
    folder: JobFolder,
    spec: JobSpec,
    epochs: list[PlanEpoch],
    on_record: Callable[[], None] = lambda: None,
    before_write: Callable[[], None] = lambda: None,
    on_results: Callable[[], dict[str, str]] = dict,
) -> tuple[Summary, Receipt]:
    """Write what rounds of planning have come to, but for the receipt, which is returned."""
    whole = _Results(merged_records(folder, epochs), range(epochs[-1].numbers.stop), _ignored(epochs))
    return _write(folder, spec, whole, on_record, before_write, on_results)


def _write(
    folder: JobFolder,
    spec: JobSpec,
    found: _Results,
    on_record: Callable[[], None] = lambda: None,
    before_write: Callable[[], None] = lambda: None,
    on_results: Callable[[], dict[str, str]] = dict,
) -> tuple[Summary, Receipt]:
    count = _Count(folder, spec)
    report = Report(folder, spec, before_write)
    digest = hashlib.sha256()
    with folder.storage.writing(RESULTS) as results, folder.storage.writing(ERRORS) as errors:
        for record in found.records:
            line = to_line(record)
            results.write(line)
            digest.update(line)
            if record.error is not None:
                errors.write(line)
            count.add(record)
            report.add(record)
            on_record()
        before_write()
    not_copied = on_results()
    summary = count.summary(found, not_copied)
    before_write()
    folder.storage.write(SUMMARY, summary.model_dump_json(indent=1).encode() + b"\n")
    report.write(summary.model_dump())
    receipt = Receipt(
        job_id=spec.job_id,
        listed=summary.images,
        ok=summary.ok,
        failed=summary.failed,
        skipped=summary.skipped,
        results_sha256=digest.hexdigest(),
        model_sha256=spec.model.sha256,
        finished_at=time.time(),
    )
    return summary, receipt


def _make_good(folder: JobFolder, spec: JobSpec, written: list[PlanEpoch]) -> None:
    """Write the documents anew where a later round may have ended while this call slept, and it wrote over them.

    A later finish cannot have begun before all shards are committed: until then it will write over ours itself.
    """
    while (epochs := folder.epochs()) != written and _is_complete(folder, epochs):
        _write_documents(folder, spec, epochs)
        written = epochs
    folder.settle_receipt()


def _is_complete(folder: JobFolder, epochs: list[PlanEpoch]) -> bool:
    return set(folder.committed_shards()).issuperset(range(epochs[-1].numbers.stop))


class _Count:
    """What the summary needs, gathered record by record."""

    def __init__(self, folder: JobFolder, spec: JobSpec) -> None:
        self.folder = folder
        self.spec = spec
        self.images = self.ok = self.with_detections = self.truncated = self.multi_page = self.damaged = 0
        self.videos = self.frames = 0
        self._last_video = ""
        self.failures: Counter[str] = Counter()
        self.detections: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        self.images += 1
        if self.spec.options.frames is not None and names_frame(record.image):
            video = video_key(record.image)
            self.frames += 1
            self.videos += video != self._last_video  # frames stand together, by their keys, but for odd names
            self._last_video = video
        if record.error is not None:
            self.failures[record.error.kind.value] += 1
            return
        self.ok += 1
        counting = record.counting(self.spec.options.conf)
        for each in counting:  # Counter.update takes long to begin
            self.detections[each.label] += 1
        self.with_detections += bool(counting)
        self.truncated += record.is_truncated
        self.multi_page += record.pages is not None
        self.damaged += record.damage is not None

    def summary(self, found: _Results, not_copied: dict[str, str]) -> Summary:
        busy_s: Counter[str] = Counter()
        devices: Counter[str] = Counter()
        for manifest in self.folder.manifests(found.shards):
            busy_s.update(manifest.busy_s)
            devices[manifest.device] += manifest.ok + manifest.failed
        return Summary(
            job_id=self.spec.job_id,
            model=self.spec.model.name,
            conf=self.spec.options.conf,
            images=self.images,
            ok=self.ok,
            failed=self.failures.total(),
            ignored=found.ignored,
            failures=dict(sorted(self.failures.items())),
            images_with_detections=self.with_detections,
            truncated=self.truncated,
            multi_page=self.multi_page,
            damaged=self.damaged,
            videos=self.videos,
            frames=self.frames,
            videos_not_copied=not_copied,
            detections=dict(sorted(self.detections.items(), key=lambda item: (-item[1], item[0]))),
            devices=dict(sorted(devices.items())),
            busy_s={stage: round(seconds, 3) for stage, seconds in sorted(busy_s.items())},
            elapsed_s=round(max(0.0, time.time() - self.spec.created_at), 3),
            incomplete=f"{found.why}: {self.images:,} of {found.listed:,}" if found.why else "",
        )


def _remove_leftovers(folder: JobFolder, epochs: list[PlanEpoch], before_write: Callable[[], None]) -> None:
    """Remove unfinished writes, and the files of attempts that no commit names. Nothing that is not ours.

    What is removed was there while the finish was ours, and so while no later round worked.
    """
    shards = range(epochs[-1].numbers.stop)
    committed = {manifest.results for manifest in folder.manifests(shards)}
    for match in filter(None, map(_SHARD_FILE.fullmatch, folder.storage.list("shards"))):
        if int(match[1]) in shards and (key := f"shards/{match[0]}") not in committed:
            folder.storage.delete(key)
    folder.storage.remove_unfinished(before_write)
