"""Run one shard: its images through the pipeline, its results to storage, its commit."""

import asyncio
import logging
import time
from collections.abc import Iterable

from trtjob.errors import StorageError, TrtjobError
from trtjob.jobs.folder import JobFolder, ShardManifest, results_key
from trtjob.jobs.listing import Entry
from trtjob.jobs.plan import read_shard
from trtjob.jobs.records import ImageFailure, Record, from_line, to_line
from trtjob.jobs.states import FailureKind
from trtjob.jobs.store import Claim
from trtjob.jobs.units import FINISH
from trtjob.jobs.views import JobView
from trtjob.worker.context import Context, Interrupted
from trtjob.worker.pipeline import Pipeline
from trtjob.worker.stages import Stages

log = logging.getLogger(__name__)

CHECKPOINT_S = 15.0


class TooManyFailures(TrtjobError):
    """The job's `max_failures` is reached."""


def run_shard(context: Context, claim: Claim, shard: int) -> None:
    """Run a claimed shard to its commit.

    Raises Interrupted where it must be left (what is done is kept in a checkpoint), TrtjobError where the job fails.
    """
    view = context.store.view(claim.job_id)
    folder = JobFolder.of(view.spec)
    manifest = folder.manifest(shard)
    if manifest is None:
        manifest = _ShardRun(context, claim, shard, view, folder).run()
    if context.store.commit(claim, shard, ok=manifest.ok, failed=manifest.failed):
        context.queue.put(claim.job_id, [FINISH])
    folder.storage.delete(_checkpoint_key(shard))


def _checkpoint_key(shard: int) -> str:
    return f"shards/{shard:05d}.part.jsonl"


def _failures_allowed(view: JobView) -> int | None:
    """Return how many images may fail; a share cannot be told before all are listed."""
    options = view.spec.options
    is_share = options.max_failures is not None and options.max_failures.endswith("%")
    return None if is_share and not view.planned else options.failures_allowed(view.images)


def _sum(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {stage: a.get(stage, 0.0) + b.get(stage, 0.0) for stage in {**a, **b}}


class _ShardRun:
    def __init__(self, context: Context, claim: Claim, shard: int, view: JobView, folder: JobFolder) -> None:
        self.context = context
        self.claim = claim
        self.shard = shard
        self.spec = view.spec
        self.folder = folder
        self.started = time.monotonic()
        self.allowed = _failures_allowed(view)
        self.failed_elsewhere = view.failed
        self.entries = read_shard(folder, shard)
        self.records: dict[str, Record] = {}
        self.failed = 0
        self.saved = time.monotonic()

    def run(self) -> ShardManifest:
        """Process what is missing and commit. Returns the manifest in force, this attempt's or an earlier one's."""
        self._load_checkpoint()
        self._set_aside_culprit()
        engine, pools = self.context.engine_for(self.spec.model)
        settings = self.context.settings
        stages = Stages(
            self.spec,
            engine.spec,
            self.folder.storage,
            max_pixels=settings.max_pixels,
            jpeg_quality=settings.jpeg_quality,
        )
        before = self.context.busy_s()
        self.context.busy_s = lambda: _sum(before, stages.watch.busy_s())
        try:
            asyncio.run(self._run(Pipeline(stages, engine, pools)))
        except Interrupted:
            self._save_checkpoint()
            raise
        except TooManyFailures:
            self._forget_failures()
            self._save_checkpoint()
            raise
        return self._commit(stages.watch.busy_s())

    async def _run(self, pipeline: Pipeline) -> None:
        """Run the pipeline until it ends or the unit is interrupted."""
        event = asyncio.Event()

        async def watch() -> None:
            await event.wait()
            self.context.interrupter.check()

        with self.context.interrupter.listening(event):
            watching = asyncio.create_task(watch())
            working = asyncio.create_task(self._work(pipeline))
            try:
                await asyncio.wait([watching, working], return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    working.cancel()
                    await asyncio.wait([working])
                    await watching
                await working
            finally:
                watching.cancel()

    async def _work(self, pipeline: Pipeline) -> None:
        suspects = set(self.claim.suspects)
        # One at a time: if the worker dies again, the one in flight is the culprit.
        for entry in self._missing(suspects):
            await pipeline.run([entry], self._gate, self._on_record)
        await pipeline.run(self._missing(), self._gate, self._on_record)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Say that no image is in flight any more, and count the failures for the last time."""
        # The answer does not matter: a shard that is complete may be committed, whoever has it and however the job is.
        self.context.store.check(self.claim, [], len(self.records), self.failed)
        view = self.context.store.view(self.claim.job_id)
        self.allowed, self.failed_elsewhere = _failures_allowed(view), view.failed
        self._check_failures()

    def _missing(self, among: set[str] | None = None) -> list[Entry]:
        return [e for e in self.entries if e.key not in self.records and (among is None or e.key in among)]

    async def _gate(self, inflight: Iterable[str]) -> None:
        """Let a group of images in, unless the shard is lost, the job has ended or too many images failed."""
        self._check_failures()
        answer = await asyncio.to_thread(
            self.context.store.check, self.claim, list(inflight), len(self.records), self.failed
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
        self.failed += record.error is not None
        self.context.steps += 1
        self.context.images += 1

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
        self.context.store.clear_attempts(self.claim)
        log.warning("image set aside", extra={"job_id": self.claim.job_id, "image": key, "blame": self.claim.blame})

    def _commit(self, busy_s: dict[str, float]) -> ShardManifest:
        lines = [to_line(self.records[entry.key]) for entry in self.entries]
        results = results_key(self.shard, self.claim.token)
        self.folder.storage.write(results, b"".join(lines))
        manifest = ShardManifest(
            shard=self.shard,
            results=results,
            ok=len(lines) - self.failed,
            failed=self.failed,
            attempt=self.claim.attempt,
            worker=self.claim.owner,
            elapsed_s=round(time.monotonic() - self.started, 3),
            busy_s={stage: round(seconds, 4) for stage, seconds in sorted(busy_s.items())},
        )
        if self.folder.commit_shard(manifest):
            return manifest
        earlier = self.folder.manifest(self.shard)
        assert earlier is not None, "commit_shard refuses only where there is a manifest"
        return earlier
