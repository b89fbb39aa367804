"""A source that workers elsewhere cannot see, brought to a bucket: the same images under the same names."""

import os
from pathlib import Path

import pytest
from samples import touch

from trtjob.jobs.source_images import chosen_images, open_source
from trtjob.jobs.sources import source_from
from trtjob.jobs.spec import Source
from trtjob.jobs.upload import uploaded_source
from trtjob.storage.selection import Selection

pytestmark = pytest.mark.slow


def keys_of(source: Source, keys: list[str]) -> list[str]:
    return [entry.key for entry in chosen_images(source, keys, open_source(source))]


def uploaded(source: Source, keys: list[str], bucket: str) -> tuple[Source, list[str]]:
    return uploaded_source(source, keys, f"s3://{bucket}/out", lambda *_: None)


def test_several_places_keep_their_names(tmp_path: Path, bucket: str) -> None:
    touch(tmp_path, "x/a.jpg", "x/._a.jpg", "y/b.jpg", "z/1.jpg")
    source, keys = source_from(tmp_path / "x", tmp_path / "*" / "b.jpg", tmp_path / "z" / "1.jpg")
    there, keys_there = uploaded(source, keys, bucket)
    assert all(root.startswith(f"s3://{bucket}/out/uploads/") for root in there.roots)
    assert keys_of(there, keys_there) == keys_of(source, keys) == [f"{tmp_path.name}/y/b.jpg", "x/a.jpg", "z/1.jpg"]
    assert uploaded(source, keys, bucket) == (there, keys_there)


def test_what_was_chosen_here_is_a_list_there(tmp_path: Path, bucket: str) -> None:
    photos = touch(tmp_path / "photos", *(f"{number}.jpg" for number in range(9)))
    uploaded(*source_from(photos), bucket)
    os.utime(photos / "3.jpg", (1, 1))
    for selection in (Selection(limit=2), Selection(sample=4, seed=1), Selection(since_s=1000.0)):
        source, keys = source_from(photos, selection=selection)
        there, keys_there = uploaded(source, keys, bucket)
        assert there.kind == "list"
        assert keys_of(there, keys_there) == keys_of(source, keys)
        assert len(keys_there) < 9


def test_hidden_images_are_uploaded_once(tmp_path: Path, bucket: str) -> None:
    source, keys = source_from(touch(tmp_path / "photos", ".a.jpg"), selection=Selection(hidden=True))
    sent = []
    for _ in range(2):
        there, _ = uploaded_source(source, keys, f"s3://{bucket}", lambda _done, _total, bytes_: sent.append(bytes_))
        assert keys_of(there, keys) == [".a.jpg"]
    assert sent == [6, 0]
