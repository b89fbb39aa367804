"""A bucket of a real S3 server, used as a folder is."""

import asyncio
import hashlib
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from at_once import all_at_once
from s3_server import PUBLIC, READER_KEY, READER_SECRET, S3Server

from trtjob.errors import ConfigError, FailureKind, ImageError, StorageError
from trtjob.storage import LocalStorage, open_storage
from trtjob.storage.listing import Entry, suffix_of
from trtjob.storage.protocol import Storage
from trtjob.storage.s3 import client
from trtjob.storage.s3.client import bucket_named
from trtjob.storage.s3.errors import Damaged
from trtjob.storage.s3.listing import BucketListing
from trtjob.storage.s3.storage import S3Storage, check_access
from trtjob.storage.upload import upload_images


def never(trouble: str) -> None:
    raise AssertionError(f"nothing fails here: {trouble}")


@pytest.fixture
def storage(bucket: str) -> S3Storage:
    return S3Storage(f"s3://{bucket}/a/prefix", on_trouble=never)


@pytest.mark.slow
def test_an_object_is_read_in_parts_as_a_file_is(storage: S3Storage) -> None:
    data = bytes(range(256)) * 40_000
    storage.write("a.mp4", data)
    with storage.open(storage.entry("a.mp4")) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-5, 2) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read(1) == b""
        file.seek(100)
        assert file.read() == data[100:]
    entry = storage.entry("a.mp4")
    storage.write("a.mp4", data[::-1])
    with storage.open(entry) as file, pytest.raises(ImageError, match="cannot be read"):
        file.read(1)
    with storage.open(Entry("b.mp4", 5, "etag")) as file, pytest.raises(ImageError, match="not there any more"):
        file.read(1)


# -- objects -----------------------------------------------------------------------------------------------------------


def test_what_is_written_can_be_read(storage: S3Storage) -> None:
    storage.write("a/b.json", b"{}")
    storage.put("a/c.json", b"[]")
    assert (storage.read("a/b.json"), storage.read("a/c.json")) == (b"{}", b"[]")
    assert storage.exists("a/b.json")
    assert not storage.exists("a/d.json")


@pytest.mark.parametrize("name", ["report.html", "odd\nname.html"])
@pytest.mark.parametrize("way", ["write", "put", "create", "aput", "writing"])
def test_a_browser_is_told_what_an_object_is(storage: S3Storage, s3: S3Server, way: str, name: str) -> None:
    if way == "writing":
        with storage.writing("report.html") as file:
            file.write(b"<p>")
    elif way == "aput":
        asyncio.run(storage.aput(name, b"<p>"))
    else:
        getattr(storage, way)(name, b"<p>")
    key = "report.html" if way == "writing" else name
    bucket, _, prefix = storage.uri.removeprefix("s3://").partition("/")
    answer = s3.client().head_object(Bucket=bucket, Key=f"{prefix}/{key}")
    assert answer["ContentType"] == "text/html; charset=utf-8"


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(bucket: str, s3: S3Server) -> None:
    s3.client().put_object(Bucket=bucket, Key="photos/a.jpg", Body=b"1")
    s3.client().put_object(Bucket=bucket, Key="photos-old/b.jpg", Body=b"1")
    images = list(S3Storage(f"s3://{bucket}/photos", on_trouble=never).images())
    assert [entry.key for entry in images] == ["a.jpg"]


def test_create_makes_an_object_once(storage: S3Storage) -> None:
    assert storage.create("x.json", b"first")
    assert not storage.create("x.json", b"second")
    assert storage.read("x.json") == b"first"


@pytest.mark.slow
def test_of_many_creators_at_once_exactly_one_wins(storage: S3Storage) -> None:
    created = all_at_once(8, lambda number: storage.create("x.json", b"%d" % number))
    assert created.count(True) == 1
    assert storage.read("x.json") == b"%d" % created.index(True)


@pytest.mark.slow
def test_a_long_write_of_many_parts_appears_at_its_end_and_holds_no_memory(storage: S3Storage) -> None:
    line = b"x" * 1023 + b"\n"
    digest = hashlib.sha256()
    tracemalloc.start()
    with storage.writing("long.jsonl") as file:
        for _ in range(24 * 1024):
            file.write(line)
            digest.update(line)
        assert not storage.exists("long.jsonl")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 12 << 20
    read = hashlib.sha256()
    for found in storage.lines("long.jsonl"):
        read.update(found)
    assert read.hexdigest() == digest.hexdigest()


def test_a_long_write_that_fails_leaves_the_old_object(storage: S3Storage) -> None:
    storage.write("x", b"old")
    with pytest.raises(InterruptedError), storage.writing("x") as file:  # noqa: PT012 - the block is under test
        file.write(b"new")
        raise InterruptedError
    assert storage.read("x") == b"old"


@pytest.mark.parametrize("data", [b"", b"one", b"one\n", b"one\ntwo", b"\n\n", "é\u2028\n".encode()])
def test_lines_are_those_of_a_file(storage: S3Storage, tmp_path: Path, data: bytes) -> None:
    storage.write("x", data)
    (tmp_path / "x").write_bytes(data)
    assert list(storage.lines("x")) == list(LocalStorage(tmp_path).lines("x"))


def test_what_is_not_there_raises_file_not_found(storage: S3Storage) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("gone")
    with pytest.raises(FileNotFoundError):
        next(storage.lines("gone"))
    storage.delete("gone")


def test_a_list_has_the_names_right_below(storage: S3Storage) -> None:
    for name in ("plan/b", "plan/a", "plan/deeper/c", "planned"):
        storage.put(name, b"")
    assert storage.list("plan") == ["a", "b"]
    assert storage.list("nothing") == []


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/x", "a\0"])
def test_a_key_that_leaves_the_root_is_refused(storage: S3Storage, key: str) -> None:
    with pytest.raises(StorageError, match="leaves"):
        storage.read(key)


def test_uploads_in_parts_that_nobody_completed_are_ended(storage: S3Storage, bucket: str, s3: S3Server) -> None:
    s3.client().create_multipart_upload(Bucket=bucket, Key="a/prefix/big")
    storage.remove_unfinished()
    assert s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


def test_uploads_that_may_not_be_ended_hold_nothing_up(
    storage: S3Storage, bucket: str, s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    s3.client().create_multipart_upload(Bucket=bucket, Key="a/prefix/big")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    client.forget_buckets()
    S3Storage(storage.uri, on_trouble=never).remove_unfinished()
    assert "unfinished uploads are left in the bucket" in caplog.messages


# -- images ------------------------------------------------------------------------------------------------------------

ODD = [
    "a b.jpg",
    "ü/ñ.jpg",
    "100%.jpg",
    "a%20b.jpg",
    "x#y?.jpg",
    "plus+.jpg",
    "quote\"'.jpg",
    "日本/絵.jpg",
    "&=~*.jpg",
]
CONTROL = ["new\nline.jpg", "tab\t.jpg"]  # which obstore refuses


def test_odd_names_are_listed_and_read(bucket: str, s3: S3Server) -> None:
    for key in (*ODD, *CONTROL):
        s3.client().put_object(Bucket=bucket, Key=key, Body=key.encode())
    storage = S3Storage(f"s3://{bucket}", on_trouble=never)
    entries = list(storage.images())
    assert [entry.key for entry in entries] == sorted((*ODD, *CONTROL), key=str.encode)
    for entry in entries:
        assert storage.fetch(entry) == entry.key.encode()
        assert asyncio.run(storage.afetch(entry)) == entry.key.encode()
        assert storage.entry(entry.key) == entry


def test_odd_names_are_written(bucket: str, s3: S3Server) -> None:
    storage = S3Storage(f"s3://{bucket}/out", on_trouble=never)
    for key in (*ODD, *CONTROL):
        storage.put(key, key.encode())
        assert s3.client().get_object(Bucket=bucket, Key=f"out/{key}")["Body"].read() == key.encode()
        asyncio.run(storage.aput(key, b"again"))
        assert storage.read(key) == b"again"


@pytest.mark.slow
def test_more_than_a_page_is_listed_in_order(bucket: str, s3: S3Server) -> None:
    storage = S3Storage(f"s3://{bucket}/many", on_trouble=never)
    keys = [f"{n % 7}/{n:05d}.jpg" for n in range(2300)]

    async def fill() -> None:
        room = asyncio.Semaphore(32)

        async def put(key: str) -> None:
            async with room:
                await storage.aput(key, b"1")

        await asyncio.gather(*map(put, [*keys, "notes.txt", "README"]))

    asyncio.run(fill())
    listing = storage.images()
    assert [entry.key for entry in listing] == sorted(keys)
    assert listing.ignored == {".txt": 1, "no suffix": 1}


def test_a_store_that_lists_out_of_order_is_refused() -> None:
    item = {"Size": 1, "ETag": '"e"', "LastModified": "2026-11-01T00:00:00.000Z"}
    page = {"IsTruncated": False, "Contents": [{"Key": key, **item} for key in ("b.jpg", "a.jpg")]}
    with pytest.raises(StorageError, match="order"):
        list(BucketListing(lambda _entry: b"", lambda _mark: page, lambda _page: "", ""))


@pytest.mark.parametrize(
    ("key", "suffix"),
    [("a.JPG", ".jpg"), ("a/b.c/d", ""), (".jpg", ""), ("a.b.png", ".png"), ("a.", "."), ("folder.jpg/", "")],
)
def test_a_suffix_is_that_of_the_last_part(key: str, suffix: str) -> None:
    assert suffix_of(key) == suffix


def test_an_object_that_is_gone_is_missing(storage: S3Storage) -> None:
    with pytest.raises(ImageError) as caught:
        storage.fetch(Entry("gone.jpg", 1, "e"))
    assert caught.value.kind == FailureKind.MISSING
    with pytest.raises(ImageError) as caught:
        asyncio.run(storage.afetch(Entry("gone.jpg", 1, "e")))
    assert caught.value.kind == FailureKind.MISSING


def test_an_object_that_is_too_large_is_not_read(storage: S3Storage) -> None:
    with pytest.raises(ImageError) as caught:
        storage.fetch(Entry("big.jpg", 2**31, "e"))
    assert caught.value.kind == FailureKind.TOO_LARGE


def test_an_etag_that_is_no_md5_is_believed_after_a_second_look(bucket: str) -> None:
    """As with objects that the store encrypts: their etags look the same and are something else."""
    found, etag = bucket_named(bucket), '"' + "0" * 32 + '"'
    assert found.etag_is_md5
    with pytest.raises(Damaged, match="MD5"):
        found.checked(b"data", 4, etag)
    assert found.checked(b"data", 4, etag) == b"data"
    assert not found.etag_is_md5


# -- uploading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> LocalStorage:
    for n in range(40):
        path = tmp_path / "photos" / "ab"[n % 2] / f"{n:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([n]) * 1000)
    return LocalStorage(tmp_path / "photos")


def _upload(photos: LocalStorage, target: Storage) -> tuple[int, int, int]:
    told: list[tuple[int, int, int]] = []
    upload_images(photos, target, list(photos.images()), lambda *numbers: told.append(numbers))
    assert [done for done, _, _ in told] == list(range(1, 41))
    return told[-1]


def test_an_upload_sends_only_what_is_new_or_changed(storage: S3Storage, photos: LocalStorage) -> None:
    assert _upload(photos, storage) == (40, 40, 40_000)
    assert _upload(photos, storage) == (40, 40, 0)
    (photos.root / "a" / "00.jpg").write_bytes(b"x" * 1000)  # as large as before
    assert _upload(photos, storage) == (40, 40, 1000)
    assert storage.read("a/00.jpg") == b"x" * 1000


@pytest.mark.slow
def test_an_upload_that_is_stopped_goes_on_where_it_was(storage: S3Storage, photos: LocalStorage) -> None:
    def stop(done: int, _total: int, _sent: int) -> None:
        if done == 10:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        upload_images(photos, storage, list(photos.images()), stop)
    _, _, sent = _upload(photos, storage)
    assert sent <= 30_000


# -- public buckets ----------------------------------------------------------------------------------------------------


def test_a_public_bucket_is_read_without_credentials(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(s3.client().exceptions.BucketAlreadyExists, s3.client().exceptions.BucketAlreadyOwnedByYou):
        s3.client().create_bucket(Bucket=PUBLIC)
    for key in ("p/a.jpg", "p/new\nline.jpg"):
        s3.client().put_object(Bucket=PUBLIC, Key=key, Body=b"picture")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"no credentials.*--anonymous"):
        open_storage(f"s3://{PUBLIC}/p")
    storage = open_storage(f"s3://{PUBLIC}/p", anonymous=True)
    for entry in storage.images():
        assert storage.fetch(entry) == asyncio.run(storage.afetch(entry)) == b"picture"
        assert storage.entry(entry.key) == entry
    private = open_storage(f"s3://{s3.new_bucket()}", anonymous=True)
    with pytest.raises(StorageError, match="access is denied"):
        list(private.images())


# -- what a person must mend -------------------------------------------------------------------------------------------


def test_a_place_that_can_be_used_is_silent(bucket: str) -> None:
    check_access(f"s3://{bucket}/new", write=True)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        pytest.param({"AWS_SECRET_ACCESS_KEY": "not-the-one"}, "the secret key is wrong", id="a wrong secret"),
        pytest.param({"AWS_ACCESS_KEY_ID": "nobody"}, "the access key is not known", id="a wrong key"),
    ],
)
def test_wrong_credentials_are_named_and_not_shown(
    bucket: str, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client.forget_buckets()
    storage = S3Storage(f"s3://{bucket}", on_trouble=never)
    for request in (lambda: storage.list(""), lambda: storage.read("x"), lambda: storage.write("x", b"")):
        with pytest.raises(StorageError, match=message) as caught:
            request()
        assert not any(value in str(caught.value) for value in environment.values())


def test_without_credentials_it_is_said_how_to_give_them(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    client.forget_buckets()
    with pytest.raises(StorageError, match=r"no credentials for s3://.*AWS_PROFILE"):
        S3Storage(f"s3://{bucket}", on_trouble=never)


def test_a_profile_brings_credentials_and_endpoint(
    s3: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in s3.environment:
        monkeypatch.delenv(name)
    credentials = f"aws_access_key_id = {s3.environment['AWS_ACCESS_KEY_ID']}\n"
    credentials += f"aws_secret_access_key = {s3.environment['AWS_SECRET_ACCESS_KEY']}\n"
    (tmp_path / "config").write_text(f"[profile mine]\n{credentials}region = us-east-1\nendpoint_url = {s3.endpoint}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    client.forget_buckets()
    check_access(f"s3://{bucket}", write=True)


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    with pytest.raises(StorageError, match="cannot list s3://not-there-at-all: there is no such bucket"):
        check_access("s3://not-there-at-all", write=False)
    with pytest.raises(StorageError, match="no such bucket"):
        S3Storage("s3://not-there-at-all", on_trouble=never).read("x")


def test_a_bucket_that_may_only_be_read_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    S3Storage(f"s3://{bucket}", on_trouble=never).write("x", b"data")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", READER_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", READER_SECRET)
    client.forget_buckets()
    check_access(f"s3://{bucket}", write=False)
    assert S3Storage(f"s3://{bucket}", on_trouble=never).read("x") == b"data"
    with pytest.raises(StorageError, match=r"cannot write .*access is denied.*s3:PutObject"):
        check_access(f"s3://{bucket}", write=True)


def test_a_bucket_must_be_named() -> None:
    with pytest.raises(ConfigError, match="names no bucket"):
        S3Storage("s3:///x", on_trouble=never)
