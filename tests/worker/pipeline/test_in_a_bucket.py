"""Images that come from a real S3 store, and copies that go there: the same results, in bounded memory."""

from pathlib import Path

import numpy as np
import pytest
from s3_server import READER_KEY, READER_SECRET
from tiffs import tiff
from worker.pipeline.lines import job, pipeline_of, run
from worker.plain_engine import PlainEngine, write_image

from trtjob.errors import FailureKind, StorageError
from trtjob.jobs.pages import Pages
from trtjob.jobs.spec import Annotate, JobSpec
from trtjob.storage import open_storage


def upload(bucket: str, folder: Path, count: int, hw: tuple[int, int] = (16, 16)) -> list[str]:
    """Put so many images into a bucket. Returns their keys."""
    storage = open_storage(f"s3://{bucket}/photos")
    data = write_image(folder / "one.png", hw=hw).read_bytes()
    keys = [f"{number:03}.png" for number in range(count)]
    for key in keys:
        storage.write(key, data)
    return keys


def bucket_job(bucket: str, annotate: Annotate = Annotate.ALL) -> JobSpec:
    spec = job(Path("/photos"), Path("/out"), annotate)
    source = spec.source.model_copy(update={"root": f"s3://{bucket}/photos"})
    return spec.model_copy(update={"source": source, "output": f"s3://{bucket}/out"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "memory_bytes"),
    [pytest.param(2, 64 << 20, id="room-for-all"), pytest.param(2, 3000, id="room-for-few")],
)
def test_every_image_of_a_bucket_has_its_record_and_its_copy(
    bucket: str, tmp_path: Path, processes: int, memory_bytes: int
) -> None:
    keys = upload(bucket, tmp_path, 30)
    spec = bucket_job(bucket)
    engine = PlainEngine(max_batch=4, concurrency=2)
    with pipeline_of(engine, processes=processes, slots=20, memory_bytes=memory_bytes) as pipeline:
        results = run(pipeline, spec, keys)
    assert results.keys == keys
    assert not results.failures
    assert sorted(open_storage(spec.uri).list("annotated")) == keys
    assert sorted(open_storage(spec.uri).list("thumbnails")) == [f"{key}.jpg" for key in keys]


@pytest.mark.slow
def test_pages_of_files_in_a_bucket_are_images(bucket: str) -> None:
    source = open_storage(f"s3://{bucket}/photos")
    for name, pages in (("a.tif", 3), ("b/c.tif", 1), ("d.tif", 2)):
        source.write(name, tiff(np.full((16, 16, 3), 200, np.uint8), pages=pages))
    keys = [entry.key for entry in Pages(source.images(), source)]
    assert keys == ["a.tif#1", "a.tif#2", "a.tif#3", "b/c.tif", "d.tif#1", "d.tif#2"]
    spec = bucket_job(bucket, Annotate.NONE)
    spec = spec.model_copy(update={"options": spec.options.model_copy(update={"pages": "all"})})
    with pipeline_of(PlainEngine(max_batch=4, concurrency=2), processes=2, slots=12) as pipeline:
        results = run(pipeline, spec, keys)
    assert results.keys == keys
    assert not results.failures


@pytest.mark.slow
def test_images_above_the_budget_are_fetched_one_at_a_time(bucket: str, tmp_path: Path) -> None:
    keys = upload(bucket, tmp_path, 10, hw=(90, 100))
    with pipeline_of(PlainEngine(max_batch=4, concurrency=2), processes=3, slots=12, memory_bytes=8000) as pipeline:
        results = run(pipeline, bucket_job(bucket), keys)
    assert results.keys == keys
    assert not results.failures


@pytest.mark.slow
def test_an_object_that_is_gone_is_its_own_failure(bucket: str, tmp_path: Path) -> None:
    keys = upload(bucket, tmp_path, 6)
    open_storage(f"s3://{bucket}/photos").delete(keys[2])
    with pipeline_of(PlainEngine()) as pipeline:
        results = run(pipeline, bucket_job(bucket, Annotate.NONE), keys)
    assert results.failures == {keys[2]: FailureKind.MISSING}


@pytest.mark.slow
def test_a_place_that_may_not_be_written_ends_the_shard_with_its_error(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = upload(bucket, tmp_path, 6)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    with pipeline_of(PlainEngine(), processes=2) as pipeline:
        with pytest.raises(StorageError, match="cannot write"):
            run(pipeline, bucket_job(bucket), keys)
        assert run(pipeline, bucket_job(bucket, Annotate.NONE), keys).keys == keys
