"""Several places as one: each image is read from its own place, whatever kinds of places they are."""

import asyncio
from pathlib import Path

import pytest
from s3_server import S3Server
from samples import touch

from trtjob.errors import PlaceError, StorageError
from trtjob.storage import LocalStorage, open_storage
from trtjob.storage.several import SeveralPlaces


def test_a_key_of_no_place_is_refused(tmp_path: Path) -> None:
    several = SeveralPlaces({"x": LocalStorage(tmp_path), "y/z": LocalStorage(tmp_path)}, {})
    assert several.below("y/z/a/b.jpg") == "a/b.jpg"
    for key in ("a.jpg", "y/a.jpg", "xx/a.jpg", "x"):
        with pytest.raises(StorageError, match=r"is in none of the job's sources: x, y/z"):
            several.entry(key)
    with pytest.raises(StorageError, match="leaves the folder"):
        several.place("x/../a.jpg")


def test_one_place_that_is_away_keeps_the_others_waiting(tmp_path: Path) -> None:
    places = {"x": LocalStorage(touch(tmp_path / "x", "a.jpg")), "y": LocalStorage(tmp_path / "gone")}
    with pytest.raises(PlaceError, match="gone is not there"):
        SeveralPlaces(places, {}).check_root()


@pytest.mark.slow
def test_a_folder_and_a_bucket_are_one_source(tmp_path: Path, bucket: str, s3: S3Server) -> None:
    touch(tmp_path, "a.jpg", "sub/b.jpg", "c.txt")
    for key in ("p/a.jpg", "p/notes.txt"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"of the bucket")
    places = {"x": LocalStorage(tmp_path), "p": open_storage(f"s3://{bucket}/p")}
    several = SeveralPlaces(places, {"x": (), "p": ()})
    images = several.images()
    entries = list(images)
    assert [entry.key for entry in entries] == ["p/a.jpg", "x/a.jpg", "x/sub/b.jpg"]
    assert images.ignored == {".txt": 2}
    assert several.is_remote

    async def fetch() -> list[bytes]:
        return [await several.afetch(entry) for entry in entries]

    contents = [b"of the bucket", b"a.jpg", b"sub/b.jpg"]
    assert asyncio.run(fetch()) == contents == [several.fetch(entry) for entry in entries]
    assert [several.entry(entry.key) for entry in entries] == entries
