"""A prefix of a bucket in any S3-compatible store."""

import asyncio
import errno
import hashlib
import logging
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar

from trtjob.errors import ConfigError, ImageError, StorageError
from trtjob.jobs.listing import Entry
from trtjob.jobs.states import FailureKind
from trtjob.jobs.storage.breaker import GivenUp, Trial
from trtjob.jobs.storage.local import MAX_FILE_BYTES
from trtjob.jobs.storage.protocol import OnTrouble
from trtjob.jobs.storage.s3_bucket import READ_TIMEOUT_S, bucket_named
from trtjob.jobs.storage.s3_errors import Verdict, judge, person_error
from trtjob.jobs.storage.s3_listing import Page, S3Listing

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
# One request for all but giants, so that the etag of most is the MD5 of their bytes.
SINGLE_PUT_BYTES = 64 << 20
SLOWEST_BYTES_PER_S = 50_000
_MD5 = re.compile(r"[0-9a-f]{32}")
# Keys that obstore refuses: boto3 reads and writes those.
_UNSPEAKABLE = re.compile(r"(^|/)(/|\.{1,2}(/|$))|[\x00-\x1f\x7f]|/$")

T = TypeVar("T")


class _Absent(Exception):
    """There is no such object."""


class _Exists(Exception):
    """The object is there."""


class _Damaged(Exception):
    """An answer is not what it says it is."""


class S3Storage:
    """Objects below `s3://bucket/prefix`. See Storage; thread-safe, and its `a` methods for any one event loop."""

    is_remote = True

    def __init__(self, uri: str, *, on_trouble: OnTrouble) -> None:
        """Raises StorageError where no credentials are found, ConfigError for what is no address."""
        bucket, _, prefix = uri[len("s3://") :].rstrip("/").partition("/")
        if not bucket:
            raise ConfigError(f"'{uri}' names no bucket. Example: s3://bucket/photos")
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = bucket_named(bucket)
        self._on_trouble = on_trouble

    def place(self, key: str) -> str:
        return f"{self.uri}/{key}"

    # -- objects of a job -----------------------------------------------------------------------------------------

    def exists(self, key: str) -> bool:
        try:
            return self._head(key) is not None
        except GivenUp as err:  # no answer is not the answer no
            raise StorageError(f"cannot look for {self.place(key)}: {err}") from err

    def read(self, key: str) -> bytes:
        try:
            return self._call(key, "read", lambda path: self._get(path))
        except _Absent as err:
            raise FileNotFoundError(errno.ENOENT, "no such object", self.place(key)) from err
        except GivenUp as err:
            raise StorageError(f"cannot read {self.place(key)}: {err}") from err

    def lines(self, key: str) -> Iterator[bytes]:
        """Yield an object's lines; a transfer that breaks off goes on where it was."""
        rest = b""
        for chunk in self._chunks(key):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest

    def write(self, key: str, data: bytes) -> None:
        try:
            self._call(key, "write", lambda path: self._put(path, data))
        except GivenUp as err:
            raise StorageError(f"cannot write {self.place(key)}: {err}") from err

    def create(self, key: str, data: bytes) -> bool:
        try:
            self._call(key, "write", lambda path: self._put(path, data, only_new=True))
        except _Exists:
            # An answer may be lost on its way back: then the object that is there is our own.
            return self.read(key) == data
        except GivenUp as err:
            raise StorageError(f"cannot write {self.place(key)}: {err}") from err
        return True

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """Open a temporary file, which is sent when the block ends well: so it can be sent again when that fails."""
        with tempfile.TemporaryFile(prefix="trtjob-") as file:
            yield file
            file.flush()

            def send(path: str) -> None:
                import obstore

                file.seek(0)
                obstore.put(self._bucket.store, path, file)

            try:
                self._call(key, "write", send)
            except GivenUp as err:
                raise StorageError(f"cannot write {self.place(key)}: {err}") from err

    def put(self, key: str, data: bytes) -> None:
        try:
            self._call(key, "write", lambda path: self._put(path, data))
        except GivenUp as err:
            raise OSError(errno.EIO, str(err), self.place(key)) from err

    async def aput(self, key: str, data: bytes) -> None:
        import obstore

        if _UNSPEAKABLE.search(self._path(key)):
            await asyncio.to_thread(self.put, key, data)
            return
        try:
            await self._acall(
                key,
                "write",
                lambda path: obstore.put_async(
                    self._bucket.store, path, data, use_multipart=len(data) > SINGLE_PUT_BYTES
                ),
            )
        except GivenUp as err:
            raise OSError(errno.EIO, str(err), self.place(key)) from err

    def delete(self, key: str) -> None:
        import obstore

        try:
            self._call(key, "write", lambda path: obstore.delete(self._bucket.store, path))
        except _Absent:
            return
        except GivenUp as err:
            raise StorageError(f"cannot remove {self.place(key)}: {err}") from err

    def list(self, folder: str) -> list[str]:
        prefix = self._path(folder) + "/"
        names: list[str] = []
        after = ""
        while True:
            page = self._page(prefix, after, delimiter="/")
            names += (item["Key"][len(prefix) :] for item in page.get("Contents", []))
            if not page["IsTruncated"]:
                return sorted(name for name in names if name)
            after = page["NextContinuationToken"]

    def remove_unfinished(self) -> None:
        """End uploads in parts that nobody has completed; where that is not allowed, the bucket's own rules must."""
        client, where = self._bucket.client, {"Bucket": self._bucket.name}
        try:
            found = self._call("", "list", lambda _path: client.list_multipart_uploads(Prefix=self._prefix, **where))
            for upload in found.get("Uploads", []):
                part = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                self._call("", "write", lambda _path, part=part: client.abort_multipart_upload(**part, **where))  # type: ignore[misc]
        except (_Absent, GivenUp, StorageError) as err:
            log.warning("unfinished uploads are left in the bucket", extra={"bucket": self.uri, "error": str(err)})

    # -- images of a source ---------------------------------------------------------------------------------------

    def images(self, after: str = "") -> S3Listing:
        return S3Listing(lambda behind: self._page(self._prefix, behind), self._prefix, after)

    def entry(self, key: str) -> Entry:
        with suppress(GivenUp):
            if (head := self._head(key)) is not None:
                return Entry(key, *head)
        return Entry(key, 0, "")

    def fetch(self, entry: Entry) -> bytes:
        _check_size(entry.size_bytes)
        try:
            return self._call(entry.key, "read", lambda path: self._get(path))
        except _Absent as err:
            raise ImageError(FailureKind.MISSING, "the object is not there any more") from err
        except GivenUp as err:
            raise ImageError(FailureKind.READ, f"the object cannot be read: {err}") from err

    async def afetch(self, entry: Entry) -> bytes:
        _check_size(entry.size_bytes)
        if _UNSPEAKABLE.search(self._path(entry.key)):
            return await asyncio.to_thread(self.fetch, entry)
        try:
            return await self._acall(entry.key, "read", self._aget)
        except _Absent as err:
            raise ImageError(FailureKind.MISSING, "the object is not there any more") from err
        except GivenUp as err:
            raise ImageError(FailureKind.READ, f"the object cannot be read: {err}") from err

    # -- requests -------------------------------------------------------------------------------------------------

    def _path(self, key: str) -> str:
        if ".." in key.split("/") or "\0" in key or key.startswith("/"):
            raise StorageError(f"the key {key!r} leaves {self.uri}")
        return self._prefix + key

    def _get(self, path: str) -> bytes:
        import obstore

        if _UNSPEAKABLE.search(path):
            answer = self._bucket.client.get_object(Bucket=self._bucket.name, Key=path)
            return self._checked(answer["Body"].read(), answer["ContentLength"], answer["ETag"])
        result = obstore.get(self._bucket.store, path)
        _check_size(result.meta["size"])
        return self._checked(result.bytes().to_bytes(), result.meta["size"], result.meta["e_tag"])

    async def _aget(self, path: str) -> bytes:
        import obstore

        async with asyncio.timeout(READ_TIMEOUT_S):
            result = await obstore.get_async(self._bucket.store, path)
        size = result.meta["size"]
        _check_size(size)
        async with asyncio.timeout(READ_TIMEOUT_S + size / SLOWEST_BYTES_PER_S):
            data = (await result.bytes_async()).to_bytes()
        return self._checked(data, size, result.meta["e_tag"])

    def _checked(self, data: bytes, size: int, etag: str | None) -> bytes:
        """Return an answer's bytes if they are whole. Raises _Damaged."""
        if len(data) != size:
            raise _Damaged(f"{len(data):,} of {size:,} bytes came")
        etag = (etag or "").strip('"')
        if self._bucket.etag_is_md5 and _MD5.fullmatch(etag):
            digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
            if digest != etag and not self._is_known(digest):
                raise _Damaged("the bytes are not those of the object's MD5")
        return data

    def _is_known(self, digest: str) -> bool:
        """Say whether the same bytes came before: then it is the etag that is no MD5, as of encrypted objects."""
        bucket = self._bucket
        bucket.etag_is_md5 = digest not in bucket.odd_digests
        bucket.odd_digests.add(digest)
        return not bucket.etag_is_md5

    def _put(self, path: str, data: bytes, *, only_new: bool = False) -> None:
        import obstore

        if _UNSPEAKABLE.search(path):
            self._bucket.client.put_object(
                Bucket=self._bucket.name, Key=path, Body=data, **({"IfNoneMatch": "*"} if only_new else {})
            )
            return
        mode: Any = "create" if only_new else "overwrite"
        is_large = len(data) > SINGLE_PUT_BYTES and not only_new
        obstore.put(self._bucket.store, path, data, mode=mode, use_multipart=is_large)

    def _head(self, key: str) -> tuple[int, str] | None:
        """Return an object's size and etag, None where there is none. Raises GivenUp, StorageError."""
        client, name = self._bucket.client, self._bucket.name
        try:
            answer = self._call(key, "read", lambda path: client.head_object(Bucket=name, Key=path))
        except _Absent:
            return None
        return int(answer["ContentLength"]), str(answer["ETag"]).strip('"')

    def _page(self, prefix: str, behind: str, *, delimiter: str = "") -> Page:
        """Ask for a page of keys: those behind a key, or with a delimiter, behind a token."""
        where: dict[str, str] = {"Prefix": prefix}
        if delimiter:
            where["Delimiter"] = delimiter
        if behind:
            where["ContinuationToken" if delimiter else "StartAfter"] = behind
        client, name = self._bucket.client, self._bucket.name
        try:
            page: Page = self._call("", "list", lambda _path: client.list_objects_v2(Bucket=name, **where))
        except (_Absent, GivenUp) as err:
            raise StorageError(f"cannot list {self.uri}: {err}") from err
        return page

    def _chunks(self, key: str) -> Iterator[bytes]:
        import obstore

        path, at, etag = self._path(key), 0, None
        trial = Trial(self._bucket.breaker, path)
        while True:
            self._wait(trial)
            options: Any = {"range": {"offset": at}, "if_match": etag} if at else {}
            try:
                result = obstore.get(self._bucket.store, path, options=options)
                size, etag = result.meta["size"], result.meta["e_tag"]
                for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                    at += len(chunk)
                    yield bytes(chunk)
            except Exception as err:  # noqa: BLE001 - obstore's errors have no common base that says more
                try:
                    self._failed(trial, key, "read", err)
                except _Absent:
                    raise FileNotFoundError(errno.ENOENT, "no such object", self.place(key)) from err
                except _Exists:
                    raise StorageError(f"{self.place(key)} was replaced while it was read") from err
                except GivenUp as given_up:
                    raise StorageError(f"cannot read {self.place(key)}: {given_up}") from err
                continue
            if at >= size:
                self._bucket.breaker.succeeded()
                return
            self._failed(trial, key, "read", _Damaged(f"{at:,} of {size:,} bytes came"))

    def _call(self, key: str, what: str, request: Callable[[str], T]) -> T:
        """Make a request until it succeeds. Raises _Absent, _Exists, GivenUp, StorageError."""
        path = self._path(key)
        trial = Trial(self._bucket.breaker, path)
        while True:
            self._wait(trial)
            try:
                answer = request(path)
            except (ImageError, StorageError):
                raise
            except Exception as err:  # noqa: BLE001 - obstore, botocore and urllib3 share no base
                self._failed(trial, key, what, err)
            else:
                self._bucket.breaker.succeeded()
                return answer

    async def _acall(self, key: str, what: str, request: Callable[[str], Awaitable[T]]) -> T:
        path = self._path(key)
        trial = Trial(self._bucket.breaker, path)
        while True:
            while pause := trial.pause_s():
                self._tell()
                await asyncio.sleep(pause)
            try:
                answer = await request(path)
            except (ImageError, StorageError):
                raise
            except Exception as err:  # noqa: BLE001 - as in _call
                if judge(err)[0] is Verdict.AGAIN:
                    await asyncio.to_thread(self._failed, trial, key, what, err)  # which may ask the store
                else:
                    self._failed(trial, key, what, err)
            else:
                self._bucket.breaker.succeeded()
                return answer

    def _wait(self, trial: Trial) -> None:
        while pause := trial.pause_s():
            self._tell()
            time.sleep(pause)

    def _tell(self) -> None:
        if trouble := self._bucket.breaker.trouble:
            self._on_trouble(trouble)

    def _failed(self, trial: Trial, key: str, what: str, err: Exception) -> None:
        """Note a failure that may pass. Raises what the others call for."""
        if isinstance(err, _Damaged):
            verdict, reason = Verdict.AGAIN, str(err)
        elif isinstance(err, TimeoutError):
            verdict, reason = Verdict.AGAIN, "no answer in time"
        else:
            verdict, reason = judge(err)
        if verdict is Verdict.AGAIN:
            trial.failed(reason)
            return
        self._bucket.breaker.succeeded()  # the store is there, and said so
        if verdict is Verdict.ABSENT:
            raise _Absent(reason) from err
        if verdict is Verdict.EXISTS:
            raise _Exists from err
        raise person_error(self.place(key) if key else self.uri, what, reason) from None


def _check_size(size_bytes: int) -> None:
    if size_bytes > MAX_FILE_BYTES:
        raise ImageError(FailureKind.TOO_LARGE, f"the object has {size_bytes:,} bytes, more than 2 GiB")


def check_access(uri: str, *, write: bool) -> None:
    """Look whether a place can be listed, and written where it must be. Raises StorageError with what to do."""
    import secrets

    from trtjob.jobs.storage import PATIENCE_S, give_up_after

    storage = S3Storage(uri, on_trouble=give_up_after(PATIENCE_S / 4))
    storage._page(storage._prefix, "")
    if write:
        key = f".{secrets.token_hex(8)}.part"
        storage.write(key, b"")
        storage.delete(key)
