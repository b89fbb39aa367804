"""Requests for the objects of one place, made again until they succeed, are refused, or are given up."""

import asyncio
import errno
import time
from collections.abc import Awaitable, Callable
from typing import Literal, TypeVar

from trtjob.errors import ImageError, StorageError
from trtjob.storage.protocol import OnTrouble
from trtjob.storage.retry import Breaker, RetryState
from trtjob.storage.s3.errors import ABSENT_BUCKET, Verdict, judge, person_error

T = TypeVar("T")
What = Literal["read", "look for", "write", "remove", "list"]
Explain = Callable[[str, What, str], StorageError]


class BucketRequests:
    """What is asked of the objects below an address, whose keys all begin with a prefix.

    breaker: of the bucket; on_trouble: told, while a request waits, what the bucket's trouble is; explain: returns the
    error of a place, of what was asked and of a reason for which a person must do something.
    """

    def __init__(
        self, uri: str, prefix: str, breaker: Breaker, on_trouble: OnTrouble, explain: Explain = person_error
    ) -> None:
        self.uri = uri
        self._prefix = prefix
        self._breaker = breaker
        self._on_trouble = on_trouble
        self._explain = explain

    def place(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def path(self, key: str) -> str:
        """Return an object's key in its bucket. Raises StorageError for one that leaves the prefix."""
        if ".." in key.split("/") or "\0" in key or key.startswith("/"):
            raise StorageError(f"the key {key!r} leaves {self.uri}")
        return self._prefix + key

    def call(self, key: str, what: What, request: Callable[[str], T]) -> T:
        """Make a request until it succeeds.

        Raises StorageError where a person must do something, and OSError for what concerns this object alone:
        FileNotFoundError where there is none to read or remove, FileExistsError where the request's condition does not
        hold, another one where it was given up.
        """
        path = self.path(key)
        state = RetryState(self._breaker, path)
        while True:
            self.wait(state)
            try:
                answer = request(path)
            except (ImageError, StorageError):
                raise
            except Exception as err:  # noqa: BLE001 - obstore, botocore and urllib3 share no base
                self.failed(state, key, what, err)
            else:
                self._breaker.succeeded()
                return answer

    async def acall(self, key: str, what: What, request: Callable[[str], Awaitable[T]]) -> T:
        """Make a request as `call` does."""
        path = self.path(key)
        state = RetryState(self._breaker, path)
        while True:
            while pause := state.pause_s():
                self._tell()
                await asyncio.sleep(pause)
            try:
                answer = await request(path)
            except (ImageError, StorageError):
                raise
            except Exception as err:  # noqa: BLE001 - as in call
                if judge(err)[0] is Verdict.AGAIN:
                    await asyncio.to_thread(self.failed, state, key, what, err)  # which may ask the store
                else:
                    self.failed(state, key, what, err)
            else:
                self._breaker.succeeded()
                return answer

    def wait(self, state: RetryState) -> None:
        """Wait until a request may be made, telling of a bucket that fails. Raises what `on_trouble` does."""
        while pause := state.pause_s():
            self._tell()
            time.sleep(pause)

    def _tell(self) -> None:
        if trouble := self._breaker.trouble:
            self._on_trouble(trouble)

    def failed(self, state: RetryState, key: str, what: What, err: Exception) -> None:
        """Note a failure that may pass. Raises as `call` does for another."""
        verdict, reason = judge(err)
        place = self.place(key) if key else self.uri
        if verdict is Verdict.AGAIN:
            if not state.failed(reason):
                raise OSError(errno.EIO, reason, place) from err
            return
        self._breaker.succeeded()  # the store is there, and said so
        if verdict is Verdict.ABSENT:
            if what not in ("write", "list"):
                raise FileNotFoundError(errno.ENOENT, "no such object", place) from err
            reason = ABSENT_BUCKET
        if verdict is Verdict.UNMET:
            raise FileExistsError(errno.EEXIST, reason, place) from err
        raise self._explain(place, what, reason) from None
