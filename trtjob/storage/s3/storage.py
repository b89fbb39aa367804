"""A prefix of a bucket in any S3-compatible store."""

import asyncio
import errno
import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, BinaryIO

from trtjob.atomic import unfinished_name
from trtjob.errors import ConfigError, StorageError
from trtjob.storage.listing import Entry
from trtjob.storage.protocol import OnTrouble
from trtjob.storage.retry import RetryState
from trtjob.storage.s3.client import READ_TIMEOUT_S, bucket_named, signed_address
from trtjob.storage.s3.content_types import attributes, content_type
from trtjob.storage.s3.errors import ONCE_MORE, check_whole
from trtjob.storage.s3.listing import BucketListing, Page, checked_page, last_key, modified_s
from trtjob.storage.s3.requests import BucketRequests, What
from trtjob.storage.s3.transfers import (
    UNSPEAKABLE,
    areceived,
    check_size,
    get_part,
    head_bytes,
    of_an_image,
    opened,
    received,
)
from trtjob.storage.selection import Rules
from trtjob.storage.trouble import PATIENCE_S, give_up_after

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
# One request for all but giants, so that the etag of most is the MD5 of their bytes.
SINGLE_PUT_BYTES = 64 << 20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class S3Storage:
    """Objects below `s3://bucket/prefix`. See Storage; thread-safe, and its `a` methods for any one event loop.

    What has a key that obstore refuses is read and written by boto3.
    """

    is_remote = True

    def __init__(self, uri: str, *, on_trouble: OnTrouble, anonymous: bool = False) -> None:
        """Raises StorageError where no credentials are found, ConfigError for what is no address."""
        bucket, _, prefix = uri[len("s3://") :].rstrip("/").partition("/")
        if not bucket:
            raise ConfigError(f"'{uri}' names no bucket. Example: s3://bucket/photos")
        self.uri = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = bucket_named(bucket, anonymous=anonymous)
        self._requests = BucketRequests(self.uri, self._prefix, self._bucket.breaker, on_trouble)

    def place(self, key: str) -> str:
        return self._requests.place(key)

    def address(self, key: str, lifetime: timedelta) -> str | None:
        """Return where anyone gets an object for so long; the public address, of a bucket that is read without
        credentials. None for a key that obstore cannot name.
        """
        path = self._requests.path(key)
        if UNSPEAKABLE.search(path):
            return None
        if self._bucket.is_anonymous:
            params = {"Bucket": self._bucket.name, "Key": path}
            return str(self._bucket.client.generate_presigned_url("get_object", Params=params))
        return signed_address(self._bucket.store, path, lifetime)

    # -- objects of a job -----------------------------------------------------------------------------------------

    def make_root(self) -> None:
        """Do nothing: a prefix is there as soon as something is below it."""

    def check_root(self) -> None:
        """Do nothing: a bucket that is away says so itself."""

    def exists(self, key: str) -> bool:
        with self._needed("look for", key):  # no answer is not the answer no
            return self._head(key) is not None

    def read(self, key: str) -> bytes:
        with self._needed("read", key):
            return self._requests.call(key, "read", self._get)

    @contextmanager
    def _needed(self, what: What, key: str) -> Iterator[None]:
        """What concerns one object alone is a StorageError: it is one of a job's own, without which nothing goes on."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as err:
            raise StorageError(f"cannot {what} {self.place(key)}: {err.strerror}. {ONCE_MORE}") from err

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
        with self._needed("write", key):
            self.put(key, data)

    def create(self, key: str, data: bytes) -> bool:
        tries = 0

        def create(path: str) -> None:
            nonlocal tries
            tries += 1
            self._put(path, data, only_new=True)

        with self._needed("write", key):
            try:
                self._requests.call(key, "write", create)
            except FileExistsError:
                # The answer to an earlier try may have been lost on its way: then the object that is there is our own.
                return tries > 1 and self._holds(key, data)
        return True

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.read(key) == data
        except FileNotFoundError:
            return False

    @contextmanager
    def writing(self, key: str) -> Iterator[BinaryIO]:
        """Open a temporary file, which is sent when the block ends well: so it can be sent again when that fails."""
        import obstore

        path = self._requests.path(key)
        with _temporary_file() as file:
            yield file
            file.flush()

            def send(_path: str) -> None:
                file.seek(0)
                obstore.put(self._bucket.store, path, file, attributes=attributes(path))

            with self._needed("write", key):
                self._requests.call(key, "write", send)

    def put(self, key: str, data: bytes) -> None:
        self._requests.call(key, "write", lambda path: self._put(path, data))

    async def aput(self, key: str, data: bytes) -> None:
        import obstore

        if UNSPEAKABLE.search(self._requests.path(key)):
            await asyncio.to_thread(self.put, key, data)
            return
        await self._requests.acall(
            key,
            "write",
            lambda path: obstore.put_async(
                self._bucket.store,
                path,
                data,
                attributes=attributes(path),
                use_multipart=len(data) > SINGLE_PUT_BYTES,
            ),
        )

    def delete(self, key: str) -> None:
        import obstore

        with suppress(FileNotFoundError), self._needed("remove", key):
            self._requests.call(key, "remove", lambda path: obstore.delete(self._bucket.store, path))

    def list(self, folder: str) -> list[str]:
        prefix = self._requests.path(folder) + "/"
        names: list[str] = []
        after = ""
        while True:
            page = self._page(prefix, after, delimiter="/")
            names += (item["Key"][len(prefix) :] for item in page.get("Contents", []))
            if not page["IsTruncated"]:
                return sorted(name for name in names if name)
            after = page["NextContinuationToken"]

    def remove_unfinished(self, before: Callable[[], None] = lambda: None) -> None:
        """End uploads in parts that nobody has completed; where that is not allowed, the bucket's own rules must."""
        client, where, call = self._bucket.client, {"Bucket": self._bucket.name}, self._requests.call
        try:
            found = call("", "list", lambda _path: client.list_multipart_uploads(Prefix=self._prefix, **where))
            before()
            for upload in found.get("Uploads", []):
                part = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                call("", "remove", lambda _path, part=part: client.abort_multipart_upload(**part, **where))  # type: ignore[misc]
        except (OSError, StorageError) as err:
            log.warning("unfinished uploads are left in the bucket", extra={"bucket": self.uri, "error": str(err)})

    # -- images of a source ---------------------------------------------------------------------------------------

    def images(self, rules: Rules | None = None) -> BucketListing:
        rules = rules or Rules()
        start = self._prefix + rules.start
        if rules.selection.recursive:
            return BucketListing(self._head_bytes, lambda key: self._page(start, key), last_key, self._prefix, rules)

        def page(token: str) -> Page:
            return self._page(start, token, delimiter="/")

        return BucketListing(self._head_bytes, page, _token, self._prefix, rules)

    def entry(self, key: str) -> Entry:
        with suppress(OSError):
            if (head := self._head(key)) is not None:
                return Entry(key, *head)
        return Entry(key, 0, "")

    def fetch(self, entry: Entry) -> bytes:
        check_size(entry.size_bytes)
        with of_an_image():
            return self._requests.call(entry.key, "read", self._get)

    async def afetch(self, entry: Entry) -> bytes:
        check_size(entry.size_bytes)
        if UNSPEAKABLE.search(self._requests.path(entry.key)):
            return await asyncio.to_thread(self.fetch, entry)
        with of_an_image():
            return await self._requests.acall(entry.key, "read", self._aget)

    def open(self, entry: Entry) -> BinaryIO:
        return opened(entry, self._requests, self._get_part)

    def _head_bytes(self, entry: Entry) -> bytes:
        return head_bytes(entry, self._requests, self._get_part)

    # -- what is asked for ----------------------------------------------------------------------------------------

    def _get(self, path: str) -> bytes:
        import obstore

        if UNSPEAKABLE.search(path):
            answer = self._bucket.client.get_object(Bucket=self._bucket.name, Key=path)
            return self._bucket.checked(answer["Body"].read(), answer["ContentLength"], answer["ETag"])
        data, meta = received(obstore.get(self._bucket.store, path))
        return self._bucket.checked(data, meta["size"], meta["e_tag"])

    def _get_part(self, path: str, etag: str, begin: int, end: int) -> bytes:
        if not UNSPEAKABLE.search(path):
            return get_part(self._bucket.store, path, etag, begin, end)
        where = {"Bucket": self._bucket.name, "Key": path, "IfMatch": f'"{etag}"'}
        answer = self._bucket.client.get_object(Range=f"bytes={begin}-{end - 1}", **where)
        data: bytes = answer["Body"].read()
        check_whole(len(data), end - begin)
        return data

    async def _aget(self, path: str) -> bytes:
        import obstore

        async with asyncio.timeout(READ_TIMEOUT_S):
            answer = await obstore.get_async(self._bucket.store, path)
        data, meta = await areceived(answer)
        return self._bucket.checked(data, meta["size"], meta["e_tag"])

    def _put(self, path: str, data: bytes, *, only_new: bool = False) -> None:
        import obstore

        if UNSPEAKABLE.search(path):
            more = {"IfNoneMatch": "*"} if only_new else {}
            if kind := content_type(path):
                more["ContentType"] = kind
            self._bucket.client.put_object(Bucket=self._bucket.name, Key=path, Body=data, **more)
            return
        mode: Any = "create" if only_new else "overwrite"
        is_large = len(data) > SINGLE_PUT_BYTES and not only_new
        obstore.put(self._bucket.store, path, data, attributes=attributes(path), mode=mode, use_multipart=is_large)

    def _head(self, key: str) -> tuple[int, str, float] | None:
        """Return an object's size, its etag and when it was written, None where there is none.

        Raises as BucketRequests.call does.
        """

        def head(path: str) -> tuple[int, str, float]:
            answer = self._bucket.client.head_object(Bucket=self._bucket.name, Key=path)
            etag = str(answer["ETag"]).strip('"')
            return int(answer["ContentLength"]), etag, modified_s(answer["LastModified"])

        try:
            return self._requests.call(key, "look for", head)
        except FileNotFoundError:
            return None

    def _page(self, prefix: str, behind: str, *, delimiter: str = "") -> Page:
        """Ask for a page of keys: those behind a key, or with a delimiter, behind a token."""
        where: dict[str, str] = {"Prefix": prefix}
        if delimiter:
            where["Delimiter"] = delimiter
        if behind:
            where["ContinuationToken" if delimiter else "StartAfter"] = behind
        client, name = self._bucket.client, self._bucket.name
        follows = "NextContinuationToken" if delimiter else "Contents"

        def ask(_path: str) -> Page:
            return checked_page(client.list_objects_v2(Bucket=name, **where), follows)

        try:
            return self._requests.call("", "list", ask)
        except OSError as err:
            raise StorageError(f"cannot list {self.uri}: {err.strerror}. {ONCE_MORE}") from err

    def _chunks(self, key: str) -> Iterator[bytes]:
        import obstore

        path, at, etag = self._requests.path(key), 0, None
        state = RetryState(self._bucket.breaker, path)
        while True:
            self._requests.wait(state)
            options: Any = {"range": {"offset": at}, "if_match": etag} if at else {}
            try:
                result = obstore.get(self._bucket.store, path, options=options)
                size, etag = result.meta["size"], result.meta["e_tag"]
                for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
                    at += len(chunk)
                    yield bytes(chunk)
                check_whole(at, size)
            except Exception as err:  # noqa: BLE001 - obstore's errors have no common base that says more
                with self._needed("read", key):
                    try:
                        self._requests.failed(state, key, "read", err)
                    except FileExistsError:
                        replaced = f"{self.place(key)} was replaced while it was read. {ONCE_MORE}"
                        raise StorageError(replaced) from err
            else:
                self._bucket.breaker.succeeded()
                return


def _token(page: Page) -> str:
    return str(page["NextContinuationToken"])


@contextmanager
def _temporary_file() -> Iterator[BinaryIO]:
    try:
        with tempfile.TemporaryFile(prefix="trtjob-") as file:
            yield file
    except OSError as err:
        if err.errno not in _FULL:
            raise
        folder = tempfile.gettempdir()
        raise StorageError(
            f"the folder for temporary files, {folder}, is full: free some space, or set TMPDIR"
        ) from err


def check_access(uri: str, *, write: bool) -> None:
    """Look whether a place can be listed, and written where it must be. Raises StorageError with what to do."""
    storage = S3Storage(uri, on_trouble=give_up_after(PATIENCE_S / 4))
    storage._page(storage._prefix, "")
    if write:
        key = unfinished_name()
        storage.write(key, b"")
        storage.delete(key)
