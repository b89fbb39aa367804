"""Small, whole examples of what travels through trtjob."""

from pathlib import Path

from trtjob.jobs.folder import JobFolder
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, Source

MODEL = ModelRef(name="tiny", sha256="ab" * 32, path="/models/tiny.onnx", task="detect", labels=("cat", "dog"))


def options(*, shard_size: int = 4, max_failures: str | None = None) -> Options:
    """Return options of a job without annotated copies."""
    return Options(
        conf=0.25,
        min_score=0.05,
        iou=0.45,
        annotate=Annotate.NONE,
        resize="stretch",
        shard_size=shard_size,
        max_failures=max_failures,
    )


def job_spec(
    root: Path | str = "/photos",
    output: Path | str = "/out",
    *,
    job_id: str = "photos-1234abcd",
    kind: str = "folder",
    shard_size: int = 4,
    max_failures: str | None = None,
) -> JobSpec:
    """Return the specification of a job over `root`."""
    return JobSpec(
        job_id=job_id,
        source=Source.model_validate({"kind": kind, "root": str(root)}),
        model=MODEL,
        options=options(shard_size=shard_size, max_failures=max_failures),
        output=str(output),
        created_at=1_790_000_000.0,
        versions={"trtjob": "0"},
    )


def touch(folder: Path, *keys: str) -> Path:
    """Make files, with their folders; what is in them does not matter here. Returns the folder."""
    for key in keys:
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(key.encode("utf-8", "surrogateescape"))
    return folder


def made(folder: JobFolder) -> JobFolder:
    """Return a job's folder that is there, as `submit` makes it."""
    folder.storage.make_root()
    return folder
