"""A job of three rounds whose planner or finisher is killed, or sleeps, before any one step of its own."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from epochs import commit, failed, found
from redis import Redis
from samples import job_spec

from trtjob.config import Settings
from trtjob.errors import FailureKind
from trtjob.jobs.folder import RECEIPT, RESULTS, JobFolder
from trtjob.jobs.plan import read_shard
from trtjob.jobs.records import Record
from trtjob.jobs.states import ACTIVE
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import lease_key
from trtjob.queue.leases import Lease
from trtjob.queue.reconcile import reconcile
from trtjob.queue.rq_internals import list_key
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.submit import retry, submit
from trtjob.queue.units import FINISH, PLAN, shard_of
from trtjob.storage import LocalStorage, open_storage
from trtjob.storage.s3.requests import BucketRequests
from trtjob.worker.context import Context, set_current
from trtjob.worker.tasks import run_unit

BAD = b"no image"
WHEN = 1_790_000_000  # of all files, so that one comes back as it was
_TIMES = ("elapsed_s", "finished_at")
_TIME_IN_A_PAGE = re.compile(rb'"elapsed_s":[\d.]+')


class Killed(BaseException):
    """The process is dead: no `except` and no `finally` of its own does anything any more."""


@dataclass
class Steps:
    """Counts what a unit does that others can see, or that shows it what others did. at: before which step, from 1 on,
    `action` happens."""

    at: int = 0
    action: Callable[[], None] = lambda: None
    count: int = 0
    is_dead: bool = False
    _watched: threading.Thread | None = None

    @contextmanager
    def watching(self) -> Iterator[None]:
        self._watched = threading.current_thread()
        try:
            yield
        finally:
            self._watched = None

    def step(self) -> None:
        if self._watched is not threading.current_thread():
            return
        if self.is_dead:
            raise Killed
        self.count += 1
        if self.count == self.at:
            self._watched, watched = None, self._watched
            self.action()
            self._watched = watched

    def kill(self) -> None:
        self.is_dead, self._watched = True, threading.current_thread()
        raise Killed


def watch(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a step counted before each look into a folder, each change of one, and each command to the server."""
    names = [(BucketRequests, "call"), *((LocalStorage, name) for name in ("read", "lines", "list", "exists"))]
    for owner, name in [*names, (os, "link"), (Path, "replace"), (Path, "unlink"), (Redis, "execute_command")]:
        monkeypatch.setattr(owner, name, _stepping(steps, getattr(owner, name)))


def _stepping(steps: Steps, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        steps.step()
        return real(*args, **kwargs)

    return call


@dataclass
class Job:
    """A folder of images and a job over it. Workers plan and finish as real ones do; shards are done by hand."""

    redis: Any
    place: Path
    output: str
    rounds: list[Callable[[], None]] = field(init=False)

    def __post_init__(self) -> None:
        self.photos = self.place / "photos"
        self.rounds = [self._first, self._update, self._retry]
        self.workers = [self._worker(f"worker-{number}") for number in range(3)]

    def _worker(self, name: str) -> Context:
        settings = Settings(home=self.place / "home")
        return Context(name, settings, JobStore(self.redis), WorkQueue(self.redis, settings.queue))

    @property
    def spec(self) -> Any:
        return job_spec(self.photos, self.output)

    @property
    def folder(self) -> JobFolder:
        return JobFolder.of(self.spec)

    @property
    def store(self) -> JobStore:
        return self.workers[0].store

    # -- what its owner does ---------------------------------------------------------------------------------------

    def _first(self) -> None:
        for name in "bcdefg":
            self.put(f"{name}.jpg", BAD if name == "d" else name.encode())
        self.submit()

    def _update(self) -> None:
        for name in ("a.jpg", "cc.jpg", "z.jpg"):
            self.put(name, b"new")
        self.put("e.jpg", b"another")
        self.put("f.jpg", b"f")
        self.submit()

    def _retry(self) -> None:
        self.put("d.jpg", b"mended")
        retry(self.store, self.workers[0].queue, self.spec.job_id)

    def put(self, key: str, data: bytes) -> None:
        path = self.photos / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (WHEN, WHEN))

    def submit(self) -> None:
        submit(self.store, self.workers[0].queue, self.spec)

    def lose_an_image(self) -> None:
        """Have one that is planned go away, until the second round."""
        (self.photos / "f.jpg").unlink(missing_ok=True)

    # -- what workers do -------------------------------------------------------------------------------------------

    def work(self, worker: int, until: str = "") -> None:
        """Do what is to be done, as worker so-and-so, until the job has ended or the unit `until` is next."""
        context = self.workers[worker]
        for _ in range(100):
            state = self.store.state(self.spec.job_id)
            if state not in ACTIVE:
                return
            unit = self._next(context)
            if unit == until:
                return
            self.run(worker, unit)
        raise AssertionError(f"the job is {state}, and does not go on")

    def _next(self, context: Context) -> str:
        self.redis.delete(list_key(context.queue.name))
        reconcile(context.store, context.queue)
        units = sorted(unit for _, unit in context.queue.pending())
        assert units, f"nothing is to be done, but the job is {self.store.state(self.spec.job_id)}"
        return next((unit for unit in (PLAN, FINISH) if unit in units), units[0])

    def run(self, worker: int, unit: str) -> None:
        context = self.workers[worker]
        if shard_of(unit) is not None:
            self._shard(context, unit)
            return
        set_current(context)
        run_unit(self.spec.job_id, unit)

    def _shard(self, context: Context, unit: str) -> None:
        lease, shard = context.store.claim(self.spec.job_id, unit, context.name, 10), shard_of(unit)
        assert isinstance(lease, Lease), lease
        assert shard is not None
        epoch = self.store.view(self.spec.job_id).epoch
        if epoch == 0:
            self.lose_an_image()
        if (manifest := self.folder.manifest(shard)) is None:
            commit(self.folder, shard, list(map(self._record, read_shard(self.folder, epoch, shard))))
            manifest = self.folder.manifest(shard)
        assert manifest is not None
        context.store.commit(lease, shard, ok=manifest.ok, failed=manifest.failed, kinds=manifest.failures)

    def _record(self, entry: Any) -> Record:
        try:
            data = (self.photos / entry.key).read_bytes()
        except FileNotFoundError:
            return failed(entry.key, FailureKind.MISSING, "the file is not there any more")
        return failed(entry.key) if data == BAD else found(entry.key, width=100 + len(data))

    def lose_lease(self, unit: str) -> None:
        """Let time pass for a worker that says nothing."""
        self.redis.delete(lease_key(self.spec.job_id, unit))

    def wipe(self) -> None:
        self.redis.flushall()
        for context in self.workers:
            context.store.redis.script_flush()

    def committed(self) -> dict[str, bytes]:
        """Return what nobody may change any more: the plan, and the commits of the shards."""
        storage = self.folder.storage
        keys = (f"{folder}/{name}" for folder in ("plan", "shards") for name in storage.list(folder))
        return {key: storage.read(key) for key in keys}

    # -- how it ended ----------------------------------------------------------------------------------------------

    def outputs(self) -> dict[str, Any]:
        """Return every file of the job's folder without times; checks that the receipt is true."""
        storage = self.folder.storage
        files = {key: storage.read(key) for key in self._keys()}
        receipt, results = json.loads(files[RECEIPT]), files[RESULTS]
        assert receipt["results_sha256"] == sha256(results).hexdigest()
        assert receipt["listed"] == receipt["ok"] + receipt["failed"] == len(results.splitlines())
        return {name: _timeless(data) for name, data in files.items()}

    def _keys(self) -> list[str]:
        folder = self.folder
        if isinstance(folder.storage, LocalStorage):
            root = folder.storage.root
            return [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        top = open_storage(self.output).list(self.spec.job_id)
        return top + [f"{name}/{key}" for name in ("plan", "shards") for key in folder.storage.list(name)]


def _timeless(data: bytes) -> Any:
    with suppress(ValueError):
        document = json.loads(data)
        return {key: value for key, value in document.items() if key not in _TIMES}
    return _TIME_IN_A_PAGE.sub(b"", data)
