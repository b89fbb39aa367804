"""A job's folder: the names of everything in it, and the two documents that commit work to it."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtjob.errors import JobError, StorageError
from trtjob.jobs.ahead import in_order
from trtjob.jobs.models import JobSpec
from trtjob.jobs.storage import OnTrouble, Storage, open_storage

JOB = "job.json"
SOURCE_LIST = "plan/source.jsonl"
RESULTS = "results.jsonl"
ERRORS = "errors.jsonl"
SUMMARY = "summary.json"
REPORT = "report.html"
RECEIPT = "_SUCCESS.json"

ANNOTATED_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_MAX_NAME_BYTES = 255
_PLAN_NAME = re.compile(r"shard-(\d{5,})\.jsonl")
_MANIFEST_NAME = re.compile(r"(\d{5,})\.json")

Document = TypeVar("Document", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Far above any job: a number that damage made larger must not become a range to walk over.
Count = Annotated[int, Field(ge=0, le=10_000_000_000)]
Shards = Annotated[int, Field(ge=0, le=10_000_000)]


class PlanEpoch(_Frozen):
    """One round of planning: the first submission, a retry of what failed, or an update with what is new.

    It covers the shards first_shard .. first_shard + shards - 1. Where an image is in several epochs, the last one's
    record counts.
    ignored: files that are no images by their names, counted by suffix.
    """

    schema_version: Literal[1] = 1
    epoch: Shards
    reason: Literal["submit", "retry", "update"]
    first_shard: Shards
    shards: Shards
    images: Count
    ignored: dict[str, Count] = {}

    @property
    def numbers(self) -> range:
        """The numbers of its shards."""
        return range(self.first_shard, self.first_shard + self.shards)


class ShardManifest(_Frozen):
    """The commit of one shard. It names the result file; every other file of the shard is a leftover of an attempt.

    failures: the failed by kind; device: what the model ran on, and by which engine; busy_s: seconds of work by stage;
    elapsed_s: seconds from start to commit.
    """

    schema_version: Literal[1] = 1
    shard: Shards
    results: str
    ok: Count
    failed: Count
    failures: dict[str, Count] = {}
    attempt: Count
    worker: str
    device: str
    elapsed_s: float
    busy_s: dict[str, float]


class JobFolder:
    """The outputs of one job, `<output>/<job id>/`, on a disk or in a bucket."""

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
            message = f"cannot read {place}: {_problems(err)}. Was it written by another version of trtjob?"
            raise JobError(message, job_id=self._name) from err

    @property
    def _name(self) -> str:
        return self.uri.rpartition("/")[2]

    def epochs(self) -> list[PlanEpoch]:
        """Return the complete rounds of planning, in order. Raises StorageError where one is damaged."""
        names = [name for name in self.storage.list("plan") if name.startswith("epoch-")]
        return [self.document(PlanEpoch, f"plan/{name}", remedy="Remove the whole folder") for name in names]

    def planned_shards(self) -> list[int]:
        """Return the numbers of the shards that are written, in order."""
        return self._numbers("plan", _PLAN_NAME)

    def committed_shards(self) -> list[int]:
        """Return the numbers of the shards that are committed, in order."""
        return self._numbers("shards", _MANIFEST_NAME)

    def _numbers(self, folder: str, name: re.Pattern[str]) -> list[int]:
        return sorted(int(match[1]) for match in map(name.fullmatch, self.storage.list(folder)) if match)

    def commit_epoch(self, epoch: PlanEpoch) -> None:
        self.storage.create(f"plan/epoch-{epoch.epoch:05d}.json", epoch.model_dump_json(indent=1).encode())

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
        for shard, manifest in in_order(lambda shard: (shard, self.manifest(shard)), shards):
            if manifest is None:
                raise StorageError(f"{self.uri}: shard {shard} is not committed: the job is not complete. Run it again")
            yield manifest

    def document(self, model: type[Document], key: str, *, remedy: str) -> Document:
        """Read a document. Raises FileNotFoundError, StorageError where it is damaged; remedy: what then helps."""
        try:
            return model.model_validate_json(self.storage.read(key))
        except ValidationError as err:
            message = f"{self.storage.place(key)} is damaged: {_problems(err)}. {remedy} and run the job again."
            raise StorageError(message) from err


def _problems(err: ValidationError) -> str:
    """Return what is wrong with a document, in one line."""
    return "; ".join(": ".join([*map(str, problem["loc"]), problem["msg"]]) for problem in err.errors())


def plan_key(shard: int) -> str:
    return f"plan/shard-{shard:05d}.jsonl"


def manifest_key(shard: int) -> str:
    return f"shards/{shard:05d}.json"


def results_key(shard: int, token: int) -> str:
    """The result file of one attempt: no two attempts share a token, so none writes over another's."""
    return f"shards/{shard:05d}.{token}.jsonl"


def annotated_key(key: str) -> str:
    """Where an image's annotated copy lies: under its own name, with `.jpg` behind it where its kind is not written."""
    if PurePosixPath(key).suffix.lower() in ANNOTATED_SUFFIXES:
        return f"annotated/{key}"
    return f"annotated/{suffixed_key(key, '.jpg')}"


def suffixed_key(key: str, suffix: str) -> str:
    """Return a key with a suffix behind it. A name that this makes too long for a file gives way to its sha256."""
    folder, slash, name = key.rpartition("/")
    if len(os.fsencode(name + suffix)) > _MAX_NAME_BYTES:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return folder + slash + name + suffix
