"""A job's folder: the names of everything in it, and the documents that commit work to it.

What commits is written once and never changed, so that a worker which slept through its lease can spoil nothing:
- `plan/00001.json` opens a round of planning: who comes later finds what it is for.
- `plan/00001-00003.jsonl` is the round's shard 3, or where its shards end there, its end. Each is created where nothing
  is, one after another, so all planners of a round agree on what is in it.
- `shards/00003.json` commits a shard.
- `plan/00001-finished.json` says that the round has ended, and is the receipt of that.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError

from trtjob.documents import Document, problems
from trtjob.errors import JobError, StorageError
from trtjob.jobs.spec import JobSpec
from trtjob.storage import OnTrouble, Storage, open_storage
from trtjob.storage.listing import IMAGE_SUFFIXES, VIDEO_SUFFIXES, suffix_of
from trtjob.storage.prefetch import prefetch_map

JOB = "job.json"
SOURCE_LIST = "plan/source.jsonl"
RESULTS = "results.jsonl"
ERRORS = "errors.jsonl"
SUMMARY = "summary.json"
REPORT = "report.html"
REPORT_DATA = "report"
THUMBNAILS = "thumbnails"
RECEIPT = "_SUCCESS.json"

ANNOTATED_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"})
UNUSUAL_COPY = ".copy.jpg"
_CONVERTED_SUFFIXES = IMAGE_SUFFIXES - ANNOTATED_SUFFIXES
_PART = re.compile(r"#(\d+|t=[\d.]+)$")  # of a file: a page, or a frame
_MAX_NAME_BYTES = 255
_ROUND_NAME = re.compile(r"(\d{5,})\.json")
_PLAN_NAME = re.compile(r"(\d{5,})-(\d{5,})\.jsonl")
_MANIFEST_NAME = re.compile(r"(\d{5,})\.json")

_ANEW = "Remove the whole folder"

AnyDocument = TypeVar("AnyDocument", bound=Document)


# Far above any job: a number that damage made larger must not become a range to walk over.
Count = Annotated[int, Field(ge=0, le=10_000_000_000)]
Shards = Annotated[int, Field(ge=0, le=10_000_000)]


class Round(Document):
    """What a round of planning is for: the first submission, a retry of what failed, or an update with what is new."""

    schema_version: Literal[1] = 1
    epoch: Shards
    reason: Literal["submit", "retry", "update"]


class PlanEpoch(Round):
    """One round of planning, complete.

    It covers the shards first_shard .. first_shard + shards - 1. Where an image is in several epochs, or runs of one,
    the last one's record counts.
    restarts: the shards at which the order of the keys begins anew, since planning was interrupted before them and the
    source had changed; listed: the images that the source had, None where the round lists no source;
    ignored: files that were not taken, counted by suffix where they are no images by their names, else by kind.
    """

    first_shard: Shards
    shards: Shards
    images: Count
    restarts: tuple[Shards, ...] = ()
    listed: Count | None = None
    ignored: dict[str, Count] = Field(default_factory=dict)

    @property
    def numbers(self) -> range:
        """The numbers of its shards."""
        return range(self.first_shard, self.first_shard + self.shards)

    @property
    def runs(self) -> list[range]:
        """The numbers of its shards, in runs within which the keys are in order."""
        return list(map(range, (self.first_shard, *self.restarts), (*self.restarts, self.numbers.stop)))


class ShardManifest(Document):
    """The commit of one shard. It names the result file; every other file of the shard is a leftover of an attempt.

    failures: the failed by kind; device: what the model ran on, and by which engine; busy_s: seconds of work by stage;
    elapsed_s: seconds from start to commit.
    """

    schema_version: Literal[1] = 1
    shard: Shards
    results: str
    ok: Count
    failed: Count
    failures: dict[str, Count] = Field(default_factory=dict)
    attempt: Count
    worker: str
    device: str
    elapsed_s: float
    busy_s: dict[str, float]


class JobFolder:
    """The outputs of one job, `<output>/<job id>/`, on a disk or in a bucket.

    >>> folder = JobFolder.at("results/photos-1a2b3c4d")
    >>> folder.spec().model.labels, folder.committed_shards()
    (('cat', 'dog', 'traffic light'), [0])
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    @classmethod
    def at(cls, uri: str | Path) -> "JobFolder":
        return cls(open_storage(uri))

    @classmethod
    def of(cls, spec: JobSpec, on_trouble: OnTrouble | None = None) -> "JobFolder":
        return cls(open_storage(spec.uri, on_trouble=on_trouble))

    @property
    def uri(self) -> str:
        return self.storage.uri

    def spec(self) -> JobSpec:
        """Read the job's specification. Raises JobError where this is no job's folder or a newer version's."""
        try:
            return JobSpec.model_validate_json(self.storage.read(JOB))
        except FileNotFoundError as err:
            raise JobError(f"'{self.uri}' is not a job's folder: it has no {JOB}", job_id=self._name) from err
        except ValidationError as err:
            place = self.storage.place(JOB)
            message = f"cannot read {place}: {problems(err)}. Was it written by another version of trtjob?"
            raise JobError(message, job_id=self._name) from err

    @property
    def _name(self) -> str:
        return self.uri.rpartition("/")[2]

    # -- rounds of planning ----------------------------------------------------------------------------------------

    def open_round(self, epoch: int, reason: str) -> Round:
        """Open a round unless it is open. Returns it as it is: it may have been opened for another reason."""
        wanted = Round.model_validate({"epoch": epoch, "reason": reason})
        if self.storage.create(round_key(epoch), wanted.model_dump_json().encode()):
            return wanted
        return self.document(Round, round_key(epoch), remedy=_ANEW)

    def newest_round(self) -> Round | None:
        """Return the round that was opened last, None where none was."""
        numbers = self._numbers("plan", _ROUND_NAME)
        return self.document(Round, round_key(numbers[-1]), remedy=_ANEW) if numbers else None

    def epochs(self) -> list[PlanEpoch]:
        """Return the complete rounds of planning, in order. Raises StorageError where one is damaged."""
        last: dict[int, int] = {}
        for name in filter(None, map(_PLAN_NAME.fullmatch, self.storage.list("plan"))):
            last[int(name[1])] = max(last.get(int(name[1]), 0), int(name[2]))
        ends = (self.end_in(plan_key(*slot), self.storage.read(plan_key(*slot))) for slot in sorted(last.items()))
        return [end for end in ends if end is not None]

    def slots(self, epoch: int) -> list[int]:
        """Return the numbers under which shards of a round, or its end, are written, in order."""
        names = map(_PLAN_NAME.fullmatch, self.storage.list("plan"))
        return sorted(int(name[2]) for name in names if name and int(name[1]) == epoch)

    def end_in(self, key: str, data: bytes) -> PlanEpoch | None:
        """Return the end of a round, where that is what lies under a key of the plan. Raises StorageError."""
        if data.startswith(b'{"key"'):
            return None
        end = self._parsed(PlanEpoch, key, data, remedy=_ANEW)
        if plan_key(end.epoch, end.numbers.stop) != key:
            raise StorageError(f"{self.storage.place(key)} is damaged: it is the end of another plan. {_ANEW}.")
        return end

    def commit_epoch(self, epoch: PlanEpoch) -> bool:
        """Write the end of a round behind its last shard. Returns False where there is a shard, or another end."""
        key = plan_key(epoch.epoch, epoch.numbers.stop)
        return self.storage.create(key, epoch.model_dump_json().encode() + b"\n")

    def finish_round(self, epoch: int, receipt: bytes, results_sha256: str) -> None:
        """Say that a round has ended, and with what receipt, unless that was said of the same results."""
        key = finished_key(epoch)
        if not self.storage.create(key, receipt) and results_sha256.encode() not in self.storage.read(key):
            self.storage.write(key, receipt)  # the results were made again, by other means

    def has_finished(self, epoch: int) -> bool:
        """Return whether a round has ended, with its receipt."""
        return self.storage.exists(finished_key(epoch))

    def settle_receipt(self) -> None:
        """Let the receipt be there where the newest round has ended, and only there.

        Whoever calls it, and however late: each looks again at what it did, so the last one leaves it right.
        """
        while (due := self._receipt_due()) != self._found(RECEIPT):
            if due is None:
                self.storage.delete(RECEIPT)
            else:
                self.storage.write(RECEIPT, due)

    def _receipt_due(self) -> bytes | None:
        newest = self.newest_round()
        return None if newest is None else self._found(finished_key(newest.epoch))

    def _found(self, key: str) -> bytes | None:
        try:
            return self.storage.read(key)
        except FileNotFoundError:
            return None

    # -- shards ----------------------------------------------------------------------------------------------------

    def committed_shards(self) -> list[int]:
        """Return the numbers of the shards that are committed, in order."""
        return self._numbers("shards", _MANIFEST_NAME)

    def _numbers(self, folder: str, name: re.Pattern[str]) -> list[int]:
        return sorted(int(match[1]) for match in map(name.fullmatch, self.storage.list(folder)) if match)

    def commit_shard(self, manifest: ShardManifest) -> bool:
        """Commit a shard unless it is committed. Returns whether this call did it; a loser's results are removed."""
        if self.storage.create(manifest_key(manifest.shard), manifest.model_dump_json(indent=1).encode()):
            return True
        committed = self.manifest(manifest.shard)
        if committed is None or committed.results != manifest.results:
            self.storage.delete(manifest.results)
        return False

    def manifest(self, shard: int) -> ShardManifest | None:
        """Return a shard's commit, None where there is none yet. Raises StorageError where it is damaged."""
        try:
            return self.document(ShardManifest, manifest_key(shard), remedy="Remove it")
        except FileNotFoundError:
            return None

    def manifests(self, shards: Iterable[int]) -> Iterator[ShardManifest]:
        """Yield the commits of shards, in their order. Raises StorageError where one is missing."""
        for shard, manifest in prefetch_map(lambda shard: (shard, self.manifest(shard)), shards):
            if manifest is None:
                raise StorageError(f"{self.uri}: shard {shard} is not committed: the job is not complete. Run it again")
            yield manifest

    def check_has(self, key: str) -> None:
        """Raise JobError where a document is not there, since the job has not finished."""
        if not self.storage.exists(key):
            job_id = self.spec().job_id
            message = f"job '{job_id}' has no {key} yet: it has not finished. See: trtjob status {job_id}"
            raise JobError(message, job_id=job_id)

    def document(self, model: type[AnyDocument], key: str, *, remedy: str) -> AnyDocument:
        """Read a document. Raises FileNotFoundError, StorageError where it is damaged; remedy: what then helps."""
        return self._parsed(model, key, self.storage.read(key), remedy=remedy)

    def _parsed(self, model: type[AnyDocument], key: str, data: bytes, *, remedy: str) -> AnyDocument:
        try:
            return model.model_validate_json(data)
        except ValidationError as err:
            message = f"{self.storage.place(key)} is damaged: {problems(err)}. {remedy} and run the job again."
            raise StorageError(message) from err


def round_key(epoch: int) -> str:
    """Return where the opening of a round of planning lies."""
    return f"plan/{epoch:05d}.json"


def plan_key(epoch: int, shard: int) -> str:
    """Return where a shard's plan lies, or where the round's shards end there, its end."""
    return f"plan/{epoch:05d}-{shard:05d}.jsonl"


def finished_key(epoch: int) -> str:
    """Return where the receipt of a round that has ended lies."""
    return f"plan/{epoch:05d}-finished.json"


def manifest_key(shard: int) -> str:
    """Return where the commit of a shard lies."""
    return f"shards/{shard:05d}.json"


def results_key(shard: int, attempt: str) -> str:
    """Return where the records of one attempt lie: under a name of its own, so that none writes over another's."""
    return f"shards/{shard:05d}.{attempt}.jsonl"


def annotated_key(key: str) -> str:
    """Return where an image's annotated copy lies: under its name, with `.jpg` behind it where its kind is not written.

    It is `.copy.jpg` where the name does not say the kind: beside `IMG_1` there may be an `IMG_1.jpg`; and where it is
    what another one's copy would be called. So no two have one.
    """
    suffix = copy_suffix(key)
    return f"annotated/{suffixed_key(key, suffix) if suffix else key}"


def copy_suffix(key: str) -> str:
    """Return what stands behind an image's name in that of its annotated copy.

    >>> [copy_suffix(key) for key in ("a.jpg", "a.gif", "a.tif#2", "a", "a.gif.jpg")]
    ['', '.jpg', '.jpg', '.copy.jpg', '.copy.jpg']
    """
    if suffix_of(key) in ANNOTATED_SUFFIXES:
        is_as_a_copy = key.endswith(UNUSUAL_COPY) or (
            key.endswith(".jpg") and suffix_of(key[:-4]) in _CONVERTED_SUFFIXES
        )
        return UNUSUAL_COPY if is_as_a_copy else ""
    return ".jpg" if suffix_of(_PART.sub("", key)) in IMAGE_SUFFIXES | VIDEO_SUFFIXES else UNUSUAL_COPY


def thumbnail_key(key: str) -> str:
    """Return where an image's thumbnail lies, a JPEG: under its own name, with `.jpg` behind it."""
    return f"{THUMBNAILS}/{suffixed_key(key, '.jpg')}"


def suffixed_key(key: str, suffix: str) -> str:
    """Return a key with a suffix behind it. A name that this makes too long for a file gives way to its sha256."""
    folder, slash, name = key.rpartition("/")
    if len(os.fsencode(name + suffix)) > _MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return folder + slash + name + suffix
