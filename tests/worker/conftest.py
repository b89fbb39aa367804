"""A local worker for tests that run units of work."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from worker.local_worker import LocalWorker
from worker.plain_engine import PlainEngine

from trtjob.config import Settings
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.worker.context import Context, set_current


@pytest.fixture(autouse=True)
def _no_worker_process() -> Iterator[None]:
    """Leave this process as it was: none of the worker's."""
    yield
    set_current(None)


@pytest.fixture
def local_worker(redis: Redis, tmp_path: Path) -> Iterator[LocalWorker]:
    """A local worker with one engine and four images in flight at most."""
    settings = Settings(home=tmp_path / "home", image_processes=1, window=4)
    context = Context("worker-1", settings, JobStore(redis), WorkQueue(redis, settings.queue))
    set_current(context)
    local_worker = LocalWorker(context, tmp_path / "photos", tmp_path / "out")
    local_worker.use(PlainEngine())
    yield local_worker
    context.close_engine()
