"""A job's folder as workers leave it, made without them: rounds of planning whose shards are committed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from trtjob.errors import FailureKind
from trtjob.imaging.detections import Detection
from trtjob.jobs.folder import JobFolder, PlanEpoch, ShardManifest, results_key
from trtjob.jobs.plan import write_shard
from trtjob.jobs.records import ImageFailure, Record, to_line
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, Source
from trtjob.storage.listing import Entry

LABELS = ("cat", "dog", "traffic light")


def job_spec(
    output: Path, *, task: Literal["detect", "classify"] = "detect", annotate: Annotate = Annotate.ALL
) -> JobSpec:
    return JobSpec(
        job_id="photos-1a2b3c4d",
        source=Source(kind="folder", root="/photos"),
        model=ModelRef(name="pets", sha256="ab" * 32, path="/models/pets.onnx", task=task, labels=LABELS),
        options=Options(conf=0.25, min_score=0.05, iou=0.45, annotate=annotate, resize="stretch"),
        output=str(output),
        created_at=1_800_000_000.0,
        versions={},
    )


def found(image: str, *objects: tuple[int, float, tuple[float, float, float, float]], width: int = 200) -> Record:
    """Return the record of an image 100 pixels high; objects: class ids, scores and boxes."""
    detections = tuple(Detection(LABELS[class_id], class_id, score, box) for class_id, score, box in objects)
    return Record(image, sha256="cd" * 32, width=width, height=100, detections=detections)


def failed(
    image: str, kind: FailureKind = FailureKind.DECODE, message: str = "not an image", attempts: int = 1
) -> Record:
    return Record(image, error=ImageFailure(kind, message, attempts))


def add_epoch(
    folder: JobFolder,
    records: Iterable[Record],
    *,
    reason: Literal["submit", "retry", "update"] = "submit",
    shard_size: int = 2,
    ignored: dict[str, int] | None = None,
    listed: int | None = None,
) -> PlanEpoch:
    """Plan and commit a round of these images, in shards of `shard_size`; listed: what the source had."""
    ordered = sorted(records, key=lambda record: record.image)
    earlier = folder.epochs()
    folder.open_round(len(earlier), reason)
    first = sum(epoch.shards for epoch in earlier)
    chunks = [ordered[start : start + shard_size] for start in range(0, len(ordered), shard_size)]
    for shard, chunk in enumerate(chunks, start=first):
        assert write_shard(folder, len(earlier), shard, [Entry(record.image, 1, "etag") for record in chunk])
        commit(folder, shard, chunk)
    epoch = PlanEpoch(
        epoch=len(earlier),
        reason=reason,
        first_shard=first,
        shards=len(chunks),
        images=len(ordered),
        ignored=ignored or {},
        listed=listed,
    )
    assert folder.commit_epoch(epoch)
    return epoch


def commit(folder: JobFolder, shard: int, records: Sequence[Record], *, token: str = "7") -> bool:
    """Write the result file of an attempt and commit the shard with it. Returns whether it had not been committed."""
    key = results_key(shard, token)
    folder.storage.write(key, b"".join(map(to_line, records)))
    failures = sum(record.error is not None for record in records)
    return folder.commit_shard(
        ShardManifest(
            shard=shard,
            results=key,
            ok=len(records) - failures,
            failed=failures,
            attempt=1,
            worker="w",
            device="CPU",
            elapsed_s=1.0,
            busy_s={"decode": 0.25, "infer": 0.5},
        )
    )


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Write records, one line each."""
    path.write_bytes(b"".join(map(to_line, records)))
