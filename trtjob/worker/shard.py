"""Run one shard: its images through the pipeline, its results to storage, its commit."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from redis import RedisError

from trtjob.errors import FailureKind, StorageError, TrtjobError
from trtjob.jobs.folder import JobFolder, ShardManifest, results_key
from trtjob.jobs.listing import Entry
from trtjob.jobs.plan import read_shard
from trtjob.jobs.records import ImageFailure, Record, from_line, to_line
from trtjob.jobs.storage import open_storage
from trtjob.jobs.store import Claim
from trtjob.jobs.units import FINISH, shard_of
from trtjob.jobs.views import JobView
from trtjob.worker.context import Context, Interrupted, Interrupter
from trtjob.worker.pipeline import Pipeline
from trtjob.worker.pools import Limits
from trtjob.worker.stages import Stages

log = logging.getLogger(__name__)

CHECKPOINT_S = 15.0

RoomFor = Callable[[Limits], asyncio.Semaphore]


class TooManyFailures(TrtjobError):
    """The job's `max_failures` is reached."""


async def run_shard(
    context: Context,
    claim: Claim,
    interrupter: Interrupter,
    room_for: RoomFor | None = None,
    on_fed: Callable[[], None] = lambda: None,
) -> None:
    """Run a claimed shard to its commit.

    interrupter: leaves this shard alone; room_for: gives the room for images that it shares with the shard before;
    on_fed: called when the last image has come in, so that another shard's may follow.
    Raises Interrupted where it must be left (what is done is kept in a checkpoint), TrtjobError where the job fails.
    """
    shard = shard_of(claim.unit)
    assert shard is not None
    run = await asyncio.to_thread(_ShardRun, context, claim, shard, interrupter)
    manifest = run.committed or await run.run(room_for, on_fed)
    await asyncio.to_thread(run.report, manifest)


def _checkpoint_key(shard: int) -> str:
    return f"shards/{shard:05d}.part.jsonl"


def _failures_allowed(view: JobView) -> int | None:
    """Return how many images may fail; a share cannot be told before all are listed."""
    options = view.spec.options
    is_share = options.max_failures is not None and options.max_failures.endswith("%")
    return None if is_share and not view.planned else options.failures_allowed(view.images)


class _ShardRun:
    """One attempt at a shard. Its methods that are no coroutines wait for storage and server: they run in threads."""

    def __init__(self, context: Context, claim: Claim, shard: int, interrupter: Interrupter) -> None:
        view = context.view(claim.job_id)
        self.context = context
        self.claim = claim
        self.shard = shard
        self.interrupter = interrupter
        self.spec = view.spec
        self.folder = JobFolder.of(view.spec, self._on_trouble)
        self.committed = self.folder.manifest(shard)
        self.started = time.monotonic()
        self.allowed = _failures_allowed(view)
        self.failed_elsewhere = view.failed
        self.entries = [] if self.committed else read_shard(self.folder, shard)
        self.records: dict[str, Record] = {}
        self.kinds: Counter[str] = Counter()  # the failed, by kind
        self.saved = time.monotonic()

    @property
    def failed(self) -> int:
        return self.kinds.total()

    def _on_trouble(self, _trouble: str) -> None:
        self.context.still_wanted(self.interrupter)

    async def run(self, room_for: RoomFor | None, on_fed: Callable[[], None]) -> ShardManifest:
        """Process what is missing and commit. Returns the manifest in force, this attempt's or an earlier one's."""
        stages, pipeline = await asyncio.to_thread(self._prepare, room_for)
        with self.context.watching(stages.watch):
            try:
                await self._run(pipeline, on_fed)
            except (Interrupted, RedisError, asyncio.CancelledError):
                await asyncio.to_thread(self._save_checkpoint)
                raise
            except TooManyFailures:
                self._forget_failures()
                await asyncio.to_thread(self._save_checkpoint)
                raise
            return await asyncio.to_thread(self._commit, pipeline.engine.device, stages.watch.busy_s())

    def _prepare(self, room_for: RoomFor | None) -> tuple[Stages, Pipeline]:
        self._load_checkpoint()
        self._set_aside_culprit()
        engine, pools = self.context.engine_for(self.spec.model, self.interrupter)
        settings = self.context.settings
        stages = Stages(
            self.spec,
            engine.spec,
            self.folder.storage,
            max_pixels=settings.max_pixels,
            jpeg_quality=settings.jpeg_quality,
            source=open_storage(self.spec.source.root, on_trouble=self._on_trouble),
        )
        return stages, Pipeline(stages, engine, pools, room_for and room_for(pools.limits), self.context.on_batch)

    def report(self, manifest: ShardManifest) -> None:
        """Tell the server that the shard is committed."""
        store = self.context.store
        self.context.shards += 1
        if store.commit(self.claim, self.shard, ok=manifest.ok, failed=manifest.failed, kinds=manifest.failures):
            self.context.queue.put(self.claim.job_id, [FINISH])
        counts = {"ok": manifest.ok, "failed": manifest.failed, "elapsed_s": manifest.elapsed_s}
        log.info("shard committed", extra={"event": "shard_committed", **counts})
        self.folder.storage.delete(_checkpoint_key(self.shard))

    async def _run(self, pipeline: Pipeline, on_fed: Callable[[], None]) -> None:
        """Run the pipeline until it ends or the unit is interrupted."""
        event = asyncio.Event()

        async def watch() -> None:
            await event.wait()
            self.interrupter.check()
            self.context.interrupter.check()

        with self.context.interrupter.listening(event), self.interrupter.listening(event):
            watching = asyncio.create_task(watch())
            working = asyncio.create_task(self._work(pipeline, on_fed))
            try:
                await asyncio.wait([watching, working], return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    working.cancel()
                    await asyncio.wait([working])
                    await watching
                await working
            finally:
                watching.cancel()

    async def _work(self, pipeline: Pipeline, on_fed: Callable[[], None]) -> None:
        suspects = set(self.claim.suspects)
        # One at a time: if the worker dies again, the one in flight is the culprit.
        for entry in self._missing(suspects):
            await pipeline.run([entry], self._gate, self._on_record)
        await pipeline.run(self._missing(), self._gate, self._on_record, on_fed)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Say that no image is in flight any more, and count the failures for the last time."""
        # The answer does not matter: a shard that is complete may be committed, whoever has it and however the job is.
        self.context.store.check(self.claim, [], len(self.records), self.failed, self.kinds)
        view = self.context.store.view(self.claim.job_id)
        self.allowed, self.failed_elsewhere = _failures_allowed(view), view.failed
        self._check_failures()

    def _missing(self, among: set[str] | None = None) -> list[Entry]:
        return [e for e in self.entries if e.key not in self.records and (among is None or e.key in among)]

    async def _gate(self, inflight: Iterable[str]) -> None:
        """Let a group of images in, unless the shard is lost, the job has ended or too many images failed."""
        self._check_failures()
        answer = await asyncio.to_thread(
            self.context.store.check, self.claim, list(inflight), len(self.records), self.failed, Counter(self.kinds)
        )
        if answer != "go":
            raise Interrupted(answer)
        if time.monotonic() - self.saved > CHECKPOINT_S:
            await asyncio.to_thread(self._save_checkpoint)

    def _check_failures(self) -> None:
        if self.allowed is not None and self.failed_elsewhere + self.failed > self.allowed:
            raise TooManyFailures(
                f"more than {self.spec.options.max_failures} of the images failed (--max-failures). "
                f"See them in {self.folder.uri}; run the same command again to continue"
            )

    def _forget_failures(self) -> None:
        """Let the failed images be tried again when the job is continued, but not those that kill their worker."""
        good = [r for r in self.records.values() if r.error is None or r.error.kind is FailureKind.CRASHED]
        self.records = {record.image: record for record in good}

    def _on_record(self, record: Record) -> None:
        self.records[record.image] = record
        if record.error is not None:
            self.kinds[record.error.kind] += 1
        self.context.steps += 1
        self.context.images += 1
        self.context.failed += record.error is not None

    def _load_checkpoint(self) -> None:
        """Take over what an interrupted attempt had done: records depend on nothing but the image and the job."""
        try:
            lines = self.folder.storage.read(_checkpoint_key(self.shard)).splitlines()
        except FileNotFoundError:
            return
        keys = {entry.key for entry in self.entries}
        for record in map(from_line, lines):
            if record.image in keys:
                self._on_record(record)

    def _save_checkpoint(self) -> None:
        self.saved = time.monotonic()
        lines = [to_line(record) for record in list(self.records.values())]
        try:
            self.folder.storage.write(_checkpoint_key(self.shard), b"".join(lines))
        except StorageError as err:  # the shard is only done again
            log.warning("no checkpoint", extra={"job_id": self.claim.job_id, "shard": self.shard, "error": str(err)})

    def _set_aside_culprit(self) -> None:
        """Record the image that was alone in flight when the last attempt's worker died."""
        if len(self.claim.suspects) != 1 or not self.claim.is_certain:
            return
        key = self.claim.suspects[0]
        message = f"processing it ended the worker process ({self.claim.blame})"
        self._on_record(Record(key, error=ImageFailure(FailureKind.CRASHED, message, attempts=2)))
        self._save_checkpoint()
        self.context.store.set_aside(self.claim, key)
        log.warning("image set aside", extra={"job_id": self.claim.job_id, "image": key, "blame": self.claim.blame})

    def _commit(self, device: str, busy_s: dict[str, float]) -> ShardManifest:
        lines = [to_line(self.records[entry.key]) for entry in self.entries]
        results = results_key(self.shard, self.claim.token)
        self.folder.storage.write(results, b"".join(lines))
        manifest = ShardManifest(
            shard=self.shard,
            results=results,
            ok=len(lines) - self.failed,
            failed=self.failed,
            failures=dict(sorted(self.kinds.items())),
            attempt=self.claim.attempt,
            worker=self.claim.owner,
            device=device,
            elapsed_s=round(time.monotonic() - self.started, 3),
            busy_s={stage: round(seconds, 4) for stage, seconds in sorted(busy_s.items())},
        )
        if self.folder.commit_shard(manifest):
            return manifest
        earlier = self.folder.manifest(self.shard)
        assert earlier is not None, "commit_shard refuses only where there is a manifest"
        return earlier
