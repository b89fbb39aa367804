"""Images at web addresses: fetched a few at a time, from public machines alone unless the settings allow others."""

import asyncio
import errno
import http.client
import ssl
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from threading import BoundedSemaphore, Lock
from typing import BinaryIO, TypeVar
from urllib.parse import urljoin

from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.storage.http_connections import Connections, Server
from trtjob.storage.listing import Entry, Images
from trtjob.storage.protocol import OnTrouble
from trtjob.storage.retry import TRIES, pause_s
from trtjob.storage.selection import Rules
from trtjob.web_address import Address, parsed_address, quoted
from trtjob.web_connection import Refused, Resolve, addresses_of, connected, http_over, hung_up_after

T = TypeVar("T")

AT_ONCE = 8  # by one process
MOST_BYTES = 256 << 20  # of one file: how large it is may not be known before it is here
MOST_REDIRECTS = 5
TIMEOUT_S = 20.0  # for a name, a connection, the head of an answer, and between two parts of a body
SLOWEST_BYTES_PER_S = 50_000
LONGEST_WAIT_S = 60.0  # that a server may ask for
SETTING = "TRTJOB_FETCH_ALLOW_LOCAL"
# A server for which so many files in a row have failed is left alone for so long: its other files fail at once.
FAILURES, LEFT_ALONE_S = 3, 30.0

_CHUNK_BYTES = 1 << 16
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_GONE = frozenset({404, 410})
_NO_HEAD = frozenset({400, 403, 405, 501})  # of servers that answer GET alone
_POLL_S = 0.1

_pool = ThreadPoolExecutor(AT_ONCE, "trtjob-http")
_room = BoundedSemaphore(AT_ONCE)  # for requests of all threads


class HttpStorage:
    """The images below a web address. See ImageStorage; thread-safe, and `afetch` for any one event loop.

    A server that fails is not waited for, as a bucket is: there may be many of them, and some are gone for good.
    """

    is_remote = True

    def __init__(
        self, uri: str, *, on_trouble: OnTrouble, allow_local: bool = False, resolve: Resolve = addresses_of
    ) -> None:
        """uri: an address without a slash at its end; on_trouble: told while a request waits to be tried again."""
        self.uri = uri
        self._on_trouble = on_trouble
        self._allow_local = allow_local
        self._resolve = resolve

    def place(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def check_root(self) -> None:
        """Do nothing: a server that is away fails its own files."""

    def images(self, rules: Rules | None = None) -> Images:
        raise StorageError(f"{self.uri} cannot be listed: name its images in a list")

    def entry(self, key: str) -> Entry:
        """Return an image as it is now: its size, and what the server says that changes when it does."""

        def ask(url: str) -> Entry | None:
            for method in ("HEAD", "GET"):
                with self._answer(method, url) as answer:
                    if method == "GET" or answer.status not in _NO_HEAD:
                        return _entry(key, answer) if _is_good(answer) else None
            return None

        try:
            return self._tried(key, ask) or Entry(key, 0, "")
        except (OSError, Refused):
            return Entry(key, 0, "")

    def fetch(self, entry: Entry) -> bytes:
        def get(url: str) -> bytes:
            with self._answer("GET", url) as answer:
                if answer.status in _GONE:
                    raise ImageError(FailureKind.MISSING, f"the server says that it is not there: {answer.status}")
                if not _is_good(answer):
                    raise ImageError(FailureKind.READ, f"the server refuses it: status {answer.status}")
                return _body(answer)

        try:
            return self._tried(entry.key, get)
        except Refused as err:
            raise ImageError(FailureKind.READ, f"it is not fetched: {err}") from err
        except OSError as err:
            raise ImageError(FailureKind.READ, f"it cannot be fetched: {err.strerror or err}") from err

    async def afetch(self, entry: Entry) -> bytes:
        return await asyncio.get_running_loop().run_in_executor(_pool, self.fetch, entry)

    def open(self, entry: Entry) -> BinaryIO:
        raise ImageError(FailureKind.READ, "a video at a web address is not read: fetch it first (curl -O)")

    def _tried(self, key: str, request: Callable[[str], T]) -> T:
        """Make a request until it succeeds or is given up. Raises OSError where it is, and what `request` raises."""
        if {".", ".."} & set(key.split("/")) or key.startswith("/"):
            raise StorageError(f"the key {key!r} leaves {self.uri}")
        url = quoted(self.place(key))
        host = hosts[_parsed(url).header]
        host.check()
        for tries in range(1, 1 + TRIES):
            self._wait(host.busy_until, f"{self.uri}: it asks to wait")
            try:
                answer = request(url)
            except (ImageError, Refused):
                host.succeeded()
                raise
            except (OSError, http.client.HTTPException) as err:
                reason = _reason(err)
                asked_s = err.wait_s if isinstance(err, _NotNow) else 0.0
                if tries == TRIES or asked_s > LONGEST_WAIT_S:
                    host.failed(reason)
                    raise OSError(errno.EIO, reason) from err
                host.busy_until = max(host.busy_until, time.monotonic() + asked_s)
                self._wait(time.monotonic() + pause_s(tries), f"{self.uri}: {reason}")
            else:
                host.succeeded()
                return answer
        raise AssertionError("the last try returns or raises")

    def _wait(self, end: float, trouble: str) -> None:
        while time.monotonic() < end:
            self._on_trouble(trouble)
            time.sleep(_POLL_S)

    @contextmanager
    def _answer(self, method: str, url: str) -> Iterator[http.client.HTTPResponse]:
        """Ask for an address, and for those that it leads to. Raises Refused, OSError and HTTPException."""
        for _ in range(1 + MOST_REDIRECTS):
            with self._one_answer(method, url) as answer:
                target = answer.getheader("Location") if answer.status in (301, 302, 303, 307, 308) else None
                if target is None:
                    if answer.status in _AGAIN:
                        raise _NotNow(answer)
                    yield answer
                    return
                following = urljoin(url, target)
            if url.startswith("https:") and not following.startswith("https:"):
                raise Refused("it leads from https:// to another kind of address")
            url = quoted(following)
        raise Refused(f"it leads on more than {MOST_REDIRECTS} times")

    @contextmanager
    def _one_answer(self, method: str, url: str) -> Iterator[http.client.HTTPResponse]:
        address = _parsed(url)
        headers = {"Host": address.header, "User-Agent": "trtjob", "Accept-Encoding": "identity"}

        def ask(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
            with hung_up_after(connection.sock, TIMEOUT_S):
                connection.request(method, address.target, headers=headers)
                return connection.getresponse()

        server = Server.of(address, allow_local=self._allow_local)
        with _room, _connections.answer(server, ask, lambda: self._connected(address)) as answer:
            yield answer

    def _connected(self, address: Address) -> http.client.HTTPConnection:
        sock = connected(
            address, timeout_s=TIMEOUT_S, allow_local=self._allow_local, setting=SETTING, resolve=self._resolve
        )
        try:
            with hung_up_after(sock, TIMEOUT_S):
                return http_over(sock, address)
        except BaseException:
            sock.close()
            raise


class _NotNow(OSError):
    """A server asks to be asked again. wait_s: not before so many seconds, by its `Retry-After`."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.wait_s = retry_after_s(answer.getheader("Retry-After", ""))
        asks = f", and asks to wait for {self.wait_s:,.0f} s" if self.wait_s > LONGEST_WAIT_S else ""
        super().__init__(errno.EIO, f"status {answer.status}{asks}")


def retry_after_s(retry_after: str) -> float:
    """Return how long to wait: a header gives seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _parsed(url: str) -> Address:
    try:
        return parsed_address(url)
    except ValueError as err:
        raise Refused(f"it leads to no web address: {err}") from err


def _is_good(answer: http.client.HTTPResponse) -> bool:
    return 200 <= answer.status < 300


def _entry(key: str, answer: http.client.HTTPResponse) -> Entry:
    changed = answer.getheader("Last-Modified", "")
    try:
        modified_s = parsedate_to_datetime(changed).timestamp()
    except (ValueError, OverflowError):
        modified_s = 0.0
    size = answer.getheader("Content-Length", "")
    etag = answer.getheader("ETag", "").strip('"') or f"{changed} {size}".strip() or "unknown"
    return Entry(key, int(size) if size.isdecimal() else 0, etag, modified_s)


def _body(answer: http.client.HTTPResponse) -> bytes:
    """Return an answer's whole body. Raises ImageError for one that is too large, OSError for one that is not whole."""
    size = answer.length  # None where only its end tells
    _check_size(size or 0)
    body, began = bytearray(), time.monotonic()
    while chunk := answer.read1(_CHUNK_BYTES):
        body += chunk
        _check_size(len(body))
        if time.monotonic() - began > TIMEOUT_S + len(body) / SLOWEST_BYTES_PER_S:
            raise TimeoutError(errno.ETIMEDOUT, "the answer comes too slowly")
    if size is not None and len(body) != size:
        raise OSError(errno.EIO, f"{len(body):,} of {size:,} bytes came")
    return bytes(body)


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise ImageError(FailureKind.TOO_LARGE, f"the file has more than {MOST_BYTES >> 20} MiB")


def _reason(err: Exception) -> str:
    """Return why a request failed, in a few words and without its address."""
    if isinstance(err, TimeoutError):
        return err.strerror or "no answer in time"
    if isinstance(err, ssl.SSLError):
        return f"no secure connection: {err.reason or 'it broke off'}"
    if isinstance(err, OSError):
        return err.strerror or "the connection broke off"
    return "the answer is none of a web server"


@dataclass(slots=True)
class _Host:
    """How a server fares, for all threads. until: it is left alone; busy_until: it has asked to be."""

    failures: int = 0
    until: float = 0.0
    reason: str = ""
    busy_until: float = 0.0

    def check(self) -> None:
        if time.monotonic() < self.until:
            raise OSError(errno.EIO, f"{self.reason}, as for others of this server")

    def succeeded(self) -> None:
        self.failures = 0

    def failed(self, reason: str) -> None:
        with _lock:
            self.failures += 1
            self.reason = reason
            if self.failures >= FAILURES:
                self.until = time.monotonic() + LEFT_ALONE_S


_connections = Connections()
_lock = Lock()
hosts: defaultdict[str, _Host] = defaultdict(_Host)


def forget_hosts() -> None:
    """Know nothing of how servers have fared, and end what is open to them."""
    hosts.clear()
    _connections.close()
