"""A node to measure: an embedded server, a supervisor with its worker process, and jobs handed in to it."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from trtjob.config import Settings
from trtjob.converters.registry import RegisteredModel
from trtjob.jobs.sources import source_from
from trtjob.jobs.spec import Annotate, JobSpec, ModelRef, Options, job_id_of
from trtjob.jobs.states import FINISHED, TERMINAL
from trtjob.queue.connection import Connection
from trtjob.queue.job_store import JobStore
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.submit import cancel, submit
from trtjob.queue.views import JobView
from trtjob.storage.selection import Selection
from trtjob.worker.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Node:
    connection: Connection
    store: JobStore
    queue: WorkQueue

    def submit(
        self,
        source: Path,
        model: RegisteredModel,
        output: Path,
        *,
        annotate: Annotate = Annotate.ALL,
        shard_size: int = 256,
        decode: Literal["cpu", "gpu"] = "cpu",
        frames: str | None = None,
    ) -> JobSpec:
        """Hand a job in with the model's own thresholds. frames: of videos; None: they are left out."""
        origin, keys = source_from(source, selection=Selection(videos=frames is not None))
        spec = model.spec
        reference = ModelRef(
            name=model.name, sha256=model.sha256, path=str(model.path), task=spec.task.value, labels=spec.labels
        )
        options = Options(
            conf=spec.conf,
            min_score=spec.min_score,
            iou=spec.iou,
            annotate=annotate,
            resize=spec.resize.value,
            shard_size=shard_size,
            decode=decode,
            frames=frames,
        )
        job = JobSpec(
            job_id=job_id_of(origin, b"", reference, options, str(output)),
            source=origin,
            model=reference,
            options=options,
            output=str(output),
            created_at=time.time(),
            versions={},
        )
        return submit(self.store, self.queue, job, keys)[0]

    def wait(self, job_id: str, until: Callable[[JobView], bool] | None = None, timeout_s: float = 3000) -> JobView:
        """Return the job's view once it has ended, or `until` holds."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            view = self.store.view(job_id)
            if until is not None and until(view):
                return view
            if view.state in TERMINAL:
                if view.state not in FINISHED:
                    raise RuntimeError(f"{job_id}: {view.state}: {view.message}")
                return view
            time.sleep(0.02)
        raise TimeoutError(job_id)

    def wait_for_worker(self) -> None:
        """Return once a worker process reports."""
        while not self.store.workers():
            time.sleep(0.02)

    def cancel(self, job_id: str) -> None:
        cancel(self.store, job_id)


@contextmanager
def node(home: Path, *, workers: int = 1) -> Iterator[Node]:
    """Run a node in a thread for the length of the block; workers=0: only the server."""
    settings = Settings(home=home, log_level="WARNING")
    with Connection(settings) as connection:
        stop = asyncio.Event()
        loop = asyncio.new_event_loop()

        def run() -> None:
            loop.run_until_complete(Supervisor(settings, connection, processes=workers).run(stop))

        thread = threading.Thread(target=run)
        if workers:
            thread.start()
        try:
            yield Node(connection, JobStore(connection.redis), WorkQueue(connection.redis, settings.queue))
        finally:
            if workers:
                loop.call_soon_threadsafe(stop.set)
                thread.join()
            loop.close()
