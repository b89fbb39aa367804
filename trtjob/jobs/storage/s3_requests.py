"""Requests for the objects of one place, made again until they succeed, are refused, or are given up."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from trtjob.errors import ImageError, StorageError
from trtjob.jobs.storage.breaker import Breaker, Trial
from trtjob.jobs.storage.protocol import OnTrouble
from trtjob.jobs.storage.s3_errors import Absent, Exists, Verdict, judge, person_error

T = TypeVar("T")


class S3Requests:
    """What is asked of the objects below an address, whose keys all begin with a prefix.

    breaker: of the bucket; on_trouble: told, while a request waits, what the bucket's trouble is.
    """

    def __init__(self, uri: str, prefix: str, breaker: Breaker, on_trouble: OnTrouble) -> None:
        self.uri = uri
        self._prefix = prefix
        self._breaker = breaker
        self._on_trouble = on_trouble

    def place(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def path(self, key: str) -> str:
        if ".." in key.split("/") or "\0" in key or key.startswith("/"):
            raise StorageError(f"the key {key!r} leaves {self.uri}")
        return self._prefix + key

    def call(self, key: str, what: str, request: Callable[[str], T]) -> T:
        """Make a request until it succeeds. Raises Absent, Exists, GivenUp, StorageError."""
        path = self.path(key)
        trial = Trial(self._breaker, path)
        while True:
            self.wait(trial)
            try:
                answer = request(path)
            except (ImageError, StorageError):
                raise
            except Exception as err:  # noqa: BLE001 - obstore, botocore and urllib3 share no base
                self.failed(trial, key, what, err)
            else:
                self._breaker.succeeded()
                return answer

    async def acall(self, key: str, what: str, request: Callable[[str], Awaitable[T]]) -> T:
        path = self.path(key)
        trial = Trial(self._breaker, path)
        while True:
            while pause := trial.pause_s():
                self._tell()
                await asyncio.sleep(pause)
            try:
                answer = await request(path)
            except (ImageError, StorageError):
                raise
            except Exception as err:  # noqa: BLE001 - as in call
                if judge(err)[0] is Verdict.AGAIN:
                    await asyncio.to_thread(self.failed, trial, key, what, err)  # which may ask the store
                else:
                    self.failed(trial, key, what, err)
            else:
                self._breaker.succeeded()
                return answer

    def wait(self, trial: Trial) -> None:
        while pause := trial.pause_s():
            self._tell()
            time.sleep(pause)

    def _tell(self) -> None:
        if trouble := self._breaker.trouble:
            self._on_trouble(trouble)

    def failed(self, trial: Trial, key: str, what: str, err: Exception) -> None:
        """Note a failure that may pass. Raises what the others call for."""
        verdict, reason = judge(err)
        if verdict is Verdict.AGAIN:
            trial.failed(reason)
            return
        self._breaker.succeeded()  # the store is there, and said so
        if verdict is Verdict.ABSENT:
            raise Absent(reason) from err
        if verdict is Verdict.EXISTS:
            raise Exists from err
        raise person_error(self.place(key) if key else self.uri, what, reason) from None
