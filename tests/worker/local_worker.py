"""A worker in this process: a real store and queue, a folder of images, a plain engine; units run in this process."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from samples import MODEL, job_spec
from terminal import wait_for
from worker.plain_engine import PlainEngine, write_images

from trtjob.jobs.folder import JobFolder
from trtjob.jobs.records import Record, read_records
from trtjob.jobs.spec import JobSpec
from trtjob.queue.job_store import JobStore
from trtjob.queue.keys import part_key
from trtjob.queue.leases import Lease
from trtjob.queue.rq_internals import list_key
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.submit import submit
from trtjob.queue.units import PLAN, shard_unit
from trtjob.worker.context import Context
from trtjob.worker.shard.run import run_shard
from trtjob.worker.tasks import run_unit


@dataclass
class LocalWorker:
    """What a test of units needs at hand; the job is `photos-1234abcd` in every one."""

    context: Context
    photos: Path
    output: Path

    @property
    def store(self) -> JobStore:
        return self.context.store

    @property
    def queue(self) -> WorkQueue:
        return self.context.queue

    @property
    def folder(self) -> JobFolder:
        return JobFolder.of(job_spec(self.photos, self.output))

    @property
    def job_id(self) -> str:
        return job_spec().job_id

    def use(self, engine: PlainEngine) -> PlainEngine:
        """Take another engine for the job's model."""
        self.context.close_engine()
        self.context.adopt_engine(MODEL, engine)
        return engine

    def submit(self, *, shard_size: int = 4, max_failures: str | None = None) -> JobSpec:
        """Hand the job in."""
        spec = job_spec(self.photos, self.output, shard_size=shard_size, max_failures=max_failures)
        return submit(self.store, self.queue, spec)[0]

    def plan(self, count: int, *, shard_size: int = 4, max_failures: str | None = None) -> list[str]:
        """Write so many images, hand the job in and plan it. Returns the images' keys."""
        keys = write_images(self.photos, count)
        self.submit(shard_size=shard_size, max_failures=max_failures)
        message = self.queue.redis.lpop(list_key(self.queue.name))  # as RQ takes the plan's
        self.queue.redis.delete(f"rq:job:{message.decode()}")
        run_unit(self.job_id, PLAN)
        return keys

    def claim(self, unit: str = shard_unit(0), owner: str = "") -> Lease:
        """Claim a unit, which must be free, as `run_unit` does."""
        lease = self.store.claim(self.job_id, unit, owner or self.context.name, self.context.settings.lease_s)
        assert isinstance(lease, Lease), lease
        return lease

    def run(self, lease: Lease) -> None:
        """Run one shard, and none after it."""

        async def run() -> None:
            with self.context.holding(lease) as interrupter:
                await run_shard(self.context, lease, interrupter)

        asyncio.run(run())

    def stop(self) -> None:
        """Ask the process to stop, as a signal does, from the engine's thread; return when its pipeline has heard."""
        pipeline = self.context.pipeline
        assert pipeline is not None
        self.context.request_stop()
        wait_for(lambda: all(flow.is_left for flow in pipeline.flows), "every shard to be left")

    def records(self, shard: int = 0) -> dict[str, Record]:
        """Return what a shard has committed."""
        manifest = self.folder.manifest(shard)
        assert manifest is not None, "the shard is not committed"
        return {record.image: record for record in read_records(self.folder.storage, manifest.results)}

    def attempts(self, unit: str = shard_unit(0)) -> int:
        return int(self.store.redis.hget(part_key(self.job_id, "attempts"), unit) or 0)

    def crash(self, lease: Lease, blame: str = "SIGSEGV") -> None:
        """Let a unit's worker die."""
        assert self.store.abandon(lease.owner, blame) == [(lease.job_id, lease.unit)]
