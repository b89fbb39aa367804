"""Images in the stores of Google and Azure: read by obstore, which finds the credentials, and never written."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, BinaryIO

from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.storage.listing import Entry
from trtjob.storage.protocol import OnTrouble
from trtjob.storage.retry import Breaker
from trtjob.storage.s3.client import CONNECT_TIMEOUT_S, CONNECTIONS, READ_TIMEOUT_S, WHOLE_TIMEOUT_S, signed_address
from trtjob.storage.s3.errors import ABSENT_BUCKET, check_whole, first_line
from trtjob.storage.s3.listing import BucketListing, Page, last_key
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
from trtjob.storage.uri import CLOUD_SCHEMES

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore

_PAGE_KEYS = 1000
_GOOGLE, _AZURE = CLOUD_SCHEMES
_CREDENTIALS = {
    _GOOGLE: "Log in (gcloud auth application-default login), or name a key's file in GOOGLE_APPLICATION_CREDENTIALS; "
    "a public bucket is read without any by --anonymous",
    _AZURE: "Set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or log in (az "
    "login) and set AZURE_USE_AZURE_CLI=true; a public container is read without any by --anonymous",
}
# What obstore says where it finds no credentials, or none that are taken, and asks the machine's cloud for some.
_NO_CREDENTIALS = ("token request", "PublicAccessNotPermitted")


class CloudImages:
    """The images below `gs://bucket/prefix` or `az://container/prefix`. See ImageStorage; used as S3Storage is."""

    is_remote = True

    def __init__(self, uri: str, *, on_trouble: OnTrouble, anonymous: bool = False) -> None:
        """Raises StorageError where no account is named."""
        self.uri = uri.rstrip("/")
        scheme, bucket, prefix = _parts(self.uri)
        self._prefix = f"{prefix}/" if prefix else ""
        self._bucket = _bucket(scheme, bucket, anonymous=anonymous)
        self._store = self._bucket.store
        self._explain = partial(_person_error, scheme)
        self._requests = BucketRequests(self.uri, self._prefix, self._bucket.breaker, on_trouble, self._explain)

    def place(self, key: str) -> str:
        return self._requests.place(key)

    def address(self, key: str, lifetime: timedelta) -> str | None:
        """Return where anyone gets an object for so long; None for a key that has no address. Raises StorageError where
        nothing can be signed, as of a bucket that is read without credentials.
        """
        path = self._requests.path(key)
        return None if UNSPEAKABLE.search(path) else signed_address(self._store, path, lifetime)

    def check_root(self) -> None:
        """Do nothing: a bucket that is away says so itself."""

    def images(self, rules: Rules | None = None) -> BucketListing:
        pages = _Pages(self._store, self._prefix, self._listed)
        return BucketListing(self._head_bytes, pages, last_key, self._prefix, rules or Rules())

    def entry(self, key: str) -> Entry:
        import obstore

        def head(path: str) -> Entry:
            with self._known():
                found = obstore.head(self._store, path)
            return Entry(key, found["size"], _etag(found), found["last_modified"].timestamp())

        if not UNSPEAKABLE.search(self._requests.path(key)):
            with suppress(OSError):
                return self._requests.call(key, "look for", head)
        return Entry(key, 0, "")

    def fetch(self, entry: Entry) -> bytes:
        self._check_key(entry.key)
        check_size(entry.size_bytes)
        with of_an_image():
            return self._requests.call(entry.key, "read", self._get)

    async def afetch(self, entry: Entry) -> bytes:
        self._check_key(entry.key)
        check_size(entry.size_bytes)
        with of_an_image():
            return await self._requests.acall(entry.key, "read", self._aget)

    def open(self, entry: Entry) -> BinaryIO:
        self._check_key(entry.key)
        return opened(entry, self._requests, partial(get_part, self._store))

    def _head_bytes(self, entry: Entry) -> bytes:
        self._check_key(entry.key)
        return head_bytes(entry, self._requests, partial(get_part, self._store))

    def _check_key(self, key: str) -> None:
        if UNSPEAKABLE.search(self._requests.path(key)):
            raise ImageError(FailureKind.READ, "the object's key has a part that is empty, `.`, `..` or unprintable")

    def _get(self, path: str) -> bytes:
        import obstore

        with self._known():
            answer = obstore.get(self._store, path)
        data, meta = received(answer)
        check_whole(len(data), meta["size"])
        return data

    async def _aget(self, path: str) -> bytes:
        import obstore

        async with asyncio.timeout(READ_TIMEOUT_S):
            with self._known():
                answer = await obstore.get_async(self._store, path)
        data, meta = await areceived(answer)
        check_whole(len(data), meta["size"])
        return data

    def _listed(self, ask: Callable[[], Page]) -> Page:
        def known(_path: str) -> Page:
            with self._known():
                return ask()

        try:
            return self._requests.call("", "list", known)
        except OSError as err:
            raise StorageError(f"cannot list {self.uri}: {err.strerror}") from err

    @contextmanager
    def _known(self) -> Iterator[None]:
        """Have missing credentials said at once: to ask again brings none. Where there were some, it may."""
        try:
            yield
        except Exception as err:
            if not self._bucket.has_answered and any(text in str(err) for text in _NO_CREDENTIALS):
                raise self._explain(self.uri, "read", "no credentials") from err
            raise
        self._bucket.has_answered = True


@dataclass(slots=True)
class _Bucket:
    """The process's client of a bucket, how that fares, and whether it has ever answered."""

    store: "GCSStore | AzureStore"
    breaker: Breaker
    has_answered: bool = False


class _Pages:
    """Pages of keys, of one listing: that of Azure cannot begin in the middle without going through all before it."""

    def __init__(self, store: "GCSStore | AzureStore", prefix: str, ask: Callable[[Callable[[], Page]], Page]) -> None:
        self._store = store
        self._prefix = prefix
        self._ask = ask
        self._stream: Iterator[Any] | None = None

    def __call__(self, behind: str) -> Page:
        return self._ask(partial(self._page, behind))

    def _page(self, behind: str) -> Page:
        import obstore

        if self._stream is None:
            listing = obstore.list(self._store, self._prefix, offset=behind or None, chunk_size=_PAGE_KEYS)
            self._stream = iter(listing)
        try:
            found: Any = next(self._stream, [])
        except Exception:
            self._stream = None  # which has ended: the next one begins behind what came
            raise
        objects = [
            {"Key": each["path"], "Size": each["size"], "ETag": _etag(each), "LastModified": each["last_modified"]}
            for each in found
        ]
        return {"Contents": objects, "IsTruncated": bool(objects)}


def _parts(uri: str) -> tuple[str, str, str]:
    scheme = next(scheme for scheme in CLOUD_SCHEMES if uri.startswith(scheme))
    bucket, _, prefix = uri.removeprefix(scheme).partition("/")
    return scheme, bucket, prefix


def _etag(found: Any) -> str:
    return str(found["e_tag"] or found["last_modified"]).strip('"')


def _person_error(scheme: str, place: str, what: What, reason: str) -> StorageError:
    why = "there is no such bucket. Check its name" if reason == ABSENT_BUCKET else f"{reason}. {_CREDENTIALS[scheme]}"
    return StorageError(f"cannot {what} {place}: {why}")


def forget_buckets() -> None:
    """Know no bucket any more, nor what the environment said of their accounts."""
    _bucket.cache_clear()


@lru_cache(maxsize=64)
def _bucket(scheme: str, name: str, *, anonymous: bool) -> _Bucket:
    """Return the process's bucket. Raises StorageError where no account is named."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore

    options: Any = {
        "allow_http": True,  # where the environment names such an endpoint: an emulator
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        "timeout": timedelta(seconds=WHOLE_TIMEOUT_S),
        "pool_max_idle_per_host": str(CONNECTIONS),
    }
    how: Any = {"client_options": options, "retry_config": {"max_retries": 0}}
    if anonymous:
        how["skip_signature"] = True
    try:
        store = GCSStore(name, **how) if scheme == _GOOGLE else AzureStore(name, **how)
    except (BaseError, ValueError) as err:
        raise StorageError(f"cannot use {scheme}{name}: {first_line(err)}. {_CREDENTIALS[scheme]}") from err

    def works() -> bool:
        try:
            next(iter(obstore.list(store, chunk_size=1)), None)
        except Exception:  # noqa: BLE001 - obstore's errors have no common base that says more
            return False
        return True

    return _Bucket(store, Breaker(f"{scheme}{name}", works))
