"""Run one shard: its images through the pipeline, its results to storage, its commit."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Container
from contextlib import suppress

from redis import RedisError

from trtjob.errors import EngineError, FailureKind, StorageError, TooManyFailures
from trtjob.imaging.scripts import describe_missing
from trtjob.jobs.folder import JobFolder, ShardManifest, results_key
from trtjob.jobs.plan import checkpoint_key, read_shard
from trtjob.jobs.records import from_line
from trtjob.jobs.spec import Annotate
from trtjob.queue.leases import Done, Lease
from trtjob.queue.units import FINISH, shard_of
from trtjob.queue.views import JobView
from trtjob.worker.context import Context
from trtjob.worker.interrupter import Interrupted, Interrupter
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.preflight import expect_output, expect_source

log = logging.getLogger(__name__)

CHECKPOINT_S = 15.0
REPORT_S = 0.5
MANY = 10  # images: fewer that are missing are just that
_AWAY = frozenset({FailureKind.MISSING, FailureKind.READ})
_ANOTHERS = frozenset({"lost", "gone"})  # why a shard is left that is no concern of this worker any more
# What another node may do better at.
_NODES_OWN = _AWAY | {FailureKind.INFER, FailureKind.WRITE}


async def run_shard(
    context: Context,
    lease: Lease,
    interrupter: Interrupter,
    on_fed: Callable[[], None] = lambda: None,
) -> None:
    """Run a claimed shard to its commit.

    interrupter: leaves this shard alone; on_fed: called when the last image has come in, so that another shard's may
    follow.
    Raises Interrupted where it must be left (what is done is kept in a checkpoint), TrtjobError where the job fails.
    """
    shard = shard_of(lease.unit)
    assert shard is not None
    run = await asyncio.to_thread(_ShardRun, context, lease, shard, interrupter)
    manifest = run.committed or await run.run(on_fed)
    await asyncio.to_thread(run.report, manifest)


def _failures_allowed(view: JobView) -> int | None:
    """Return how many images may fail; a share cannot be told before all are listed."""
    options = view.spec.options
    is_share = options.max_failures is not None and options.max_failures.endswith("%")
    return None if is_share and not view.planned else options.failures_allowed(view.images)


class _ShardRun:
    """One attempt at a shard. Its methods that are no coroutines wait for storage and server: they run in threads."""

    def __init__(self, context: Context, lease: Lease, shard: int, interrupter: Interrupter) -> None:
        view = context.view(lease.job_id)
        self.context = context
        self.lease = lease
        self.shard = shard
        self.interrupter = interrupter
        self.spec = view.spec
        self.folder = JobFolder.of(view.spec, self._on_trouble)
        expect_output(self.folder, self.spec)
        expect_source(self.spec)
        self.committed = self.folder.manifest(shard)
        self.started = time.monotonic()
        self.allowed = _failures_allowed(view)
        self.failed_elsewhere = view.failed
        self.entries = [] if self.committed else read_shard(self.folder, view.epoch, shard)
        self.checkpoint_key = checkpoint_key(self.spec, shard, self.entries)
        # Those that could not be read when they were planned are no sign of a place that is away.
        self.were_there = {entry.key for entry in self.entries if entry.etag}
        self.lines: dict[str, bytes] = {}  # the records of the images that are done
        self.failures: dict[str, FailureKind] = {}
        self.away: list[str] = []  # that were there when they were planned, and are missing or unreadable
        self.reaches_web = False  # a web server has sent an image, or has none of that name: others' trouble is theirs
        self.crashed: list[str] = []  # of which the job's events do not tell yet
        self.begun_with = 0  # images that an earlier attempt has done
        self.saved = time.monotonic()

    @property
    def failed(self) -> int:
        return len(self.failures)

    def _on_trouble(self, _trouble: str) -> None:
        self.context.still_wanted(self.interrupter)

    async def run(self, on_fed: Callable[[], None]) -> ShardManifest:
        """Process what is missing and commit. Returns the manifest in force, this attempt's or an earlier one's."""
        pipeline = await asyncio.to_thread(self._prepare)
        try:
            await self._run(pipeline, on_fed)
        except (Interrupted, RedisError, asyncio.CancelledError) as err:
            if not isinstance(err, Interrupted):
                await asyncio.to_thread(self._save_checkpoint)
            elif err.reason not in _ANOTHERS:
                err.kept = await asyncio.to_thread(self._save_checkpoint)
            raise
        except (TooManyFailures, StorageError, EngineError) as err:
            # To be tried again when the job is continued, and by another node.
            self._forget_failures(frozenset(FailureKind) if isinstance(err, TooManyFailures) else _NODES_OWN)
            await asyncio.to_thread(self._save_checkpoint)
            raise
        return await asyncio.to_thread(self._commit, self.context.device_of(pipeline.engine))

    def _prepare(self) -> Pipeline:
        self._load_checkpoint()
        self.begun_with = len(self.lines)
        self._tell_of_labels()
        return self.context.pipeline_for(self.spec.model, self.interrupter, decode=self.spec.options.decode)

    def _tell_of_labels(self) -> None:
        """Say once of a job which letters of its labels cannot be drawn here."""
        labels = [label for label in self.spec.model.labels if not label.isascii()]
        is_drawn = self.spec.options.annotate is not Annotate.NONE and not self.spec.options.hide_labels
        if not labels or not is_drawn or self.spec.job_id in self.context.told_of_labels:
            return
        self.context.told_of_labels.add(self.spec.job_id)
        if missing := describe_missing(labels):
            log.warning("%s", missing)

    def report(self, manifest: ShardManifest) -> None:
        """Tell the server that the shard is committed."""
        store = self.context.store
        self.context.shards += 1
        if store.commit(self.lease, self.shard, ok=manifest.ok, failed=manifest.failed, kinds=manifest.failures):
            self.context.queue.put(self.lease.job_id, [FINISH])
        counts = {"ok": manifest.ok, "failed": manifest.failed, "elapsed_s": manifest.elapsed_s}
        log.info("shard committed", extra={"event": "shard_committed", **counts})
        self.folder.storage.delete(self.checkpoint_key)

    async def _run(self, pipeline: Pipeline, on_fed: Callable[[], None]) -> None:
        """Run the pipeline until it ends or the unit is interrupted."""
        event = asyncio.Event()

        async def watch() -> None:
            while not event.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(REPORT_S):
                        await event.wait()
                await asyncio.to_thread(self._report_progress)
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
        self._check_places()
        self._check_failures()
        missing = [entry for entry in self.entries if entry.key not in self.lines]
        await pipeline.run(self.spec, missing, self._on_done, on_fed)
        await asyncio.to_thread(self._close)

    def _report_progress(self) -> None:
        """Tell how far the shard is, and keep what is done. Raises Interrupted where it must be left."""
        answer = self._check()
        if answer != "go":
            raise Interrupted(answer)
        if len(self.lines) > self.begun_with:
            self.context.own_exclusions.note_progress(self.lease.job_id)
        if time.monotonic() - self.saved > CHECKPOINT_S:
            self._save_checkpoint()

    def _check(self) -> str:
        while self.crashed:
            self.context.store.set_aside(self.lease, self.crashed.pop())
        done = self._done()
        return self.context.store.check(self.lease, done.images, done.kinds.total(), done.kinds)

    def _done(self) -> Done:
        return Done(len(self.lines), Counter(map(str, list(self.failures.values()))))

    def _close(self) -> None:
        """Count the failures for the last time."""
        # The answer does not matter: a shard that is complete may be committed, whoever has it and however the job is.
        self._check()
        view = self.context.store.view(self.lease.job_id)
        self.allowed, self.failed_elsewhere = _failures_allowed(view), view.failed
        self._check_failures()

    def _check_failures(self) -> None:
        if self.allowed is not None and self.failed_elsewhere + self.failed > self.allowed:
            raise TooManyFailures(
                f"more than {self.spec.options.max_failures} of the images failed (--max-failures). "
                f"See them in {self.folder.uri}; run the same command again to continue"
            )

    def _check_places(self) -> None:
        """Raise StorageError where so many images are missing or unreadable that it is no fault of theirs."""
        away = [key for key in self.away if not (self.reaches_web and self.spec.source.is_on_web(key))]
        share = self.context.settings.max_missing
        if len(away) >= MANY and len(away) > share * len(self.entries):
            raise StorageError(
                f"{len(away)} of {len(self.entries)} images of {self.spec.source.shown} that were there when they were "
                f"listed cannot be read on this machine, such as {away[0]!r}. Is it mounted, and may trtjob "
                "read it? Where they really are gone: TRTJOB_MAX_MISSING=1"
            )

    def _forget_failures(self, kinds: Container[FailureKind]) -> None:
        """Let images that failed so be tried again, but not those that kill their process."""
        for key, kind in list(self.failures.items()):
            if kind in kinds and kind is not FailureKind.CRASHED:
                del self.failures[key], self.lines[key]

    def _on_done(self, outcome: Outcome) -> None:
        self._keep(outcome)
        self.context.images += 1
        self.context.failed += outcome.failure is not None
        if outcome.failure is FailureKind.CRASHED:
            self.crashed.append(outcome.key)
        if outcome.failure in _AWAY:
            self._check_places()
        self._check_failures()

    def _keep(self, outcome: Outcome) -> None:
        self.lines[outcome.key] = outcome.line
        if outcome.failure is not FailureKind.READ and not self.reaches_web:
            self.reaches_web = self.spec.source.is_on_web(outcome.key)
        if outcome.failure is not None:
            self.failures[outcome.key] = outcome.failure
            if outcome.failure in _AWAY and outcome.key in self.were_there:
                self.away.append(outcome.key)

    def _load_checkpoint(self) -> None:
        """Take over what an interrupted attempt had done: records depend on nothing but the image and the job."""
        try:
            lines = self.folder.storage.read(self.checkpoint_key).splitlines(keepends=True)
        except FileNotFoundError:
            return
        keys = {entry.key for entry in self.entries}
        for line in lines:
            record = from_line(line)
            if record.image in keys:
                self._keep(Outcome(record.image, line, record.error.kind if record.error else None))

    def _save_checkpoint(self) -> Done | None:
        """Keep what is done. Returns it, None where it cannot be kept."""
        self.saved = time.monotonic()
        done, lines = self._done(), list(self.lines.values())
        try:
            expect_output(self.folder, self.spec)
            self.folder.storage.write(self.checkpoint_key, b"".join(lines))
        except StorageError as err:  # the shard is only done again
            log.warning("no checkpoint", extra={"job_id": self.lease.job_id, "shard": self.shard, "error": str(err)})
            return None
        return done

    def _commit(self, device: str) -> ShardManifest:
        lines = [self.lines[entry.key] for entry in self.entries]
        kinds = Counter(self.failures.values())
        # A server that was wiped gives tokens out again.
        results = results_key(self.shard, f"{self.lease.token}-{self.lease.call}")
        self.folder.storage.write(results, b"".join(lines))
        manifest = ShardManifest(
            shard=self.shard,
            results=results,
            ok=len(lines) - self.failed,
            failed=self.failed,
            failures=dict(sorted(kinds.items())),
            attempt=self.lease.attempt,
            worker=self.lease.owner,
            device=device,
            elapsed_s=round(time.monotonic() - self.started, 3),
            busy_s={stage: round(seconds, 4) for stage, seconds in sorted(self.context.take_busy_s().items())},
        )
        if self.folder.commit_shard(manifest):
            return manifest
        earlier = self.folder.manifest(self.shard)
        assert earlier is not None, "commit_shard refuses only where there is a manifest"
        return earlier
