"""A fleet under test: a server, nodes with their worker processes, one job, and what must hold in the end."""

import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from chaos.valkey import Valkey
from terminal import Terminal, descendants, wait_for, worker_pids

from trtjob.jobs.folder import JOB, RECEIPT, RESULTS, JobFolder
from trtjob.jobs.plan import planned_entries
from trtjob.jobs.records import read_records
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import TERMINAL, JobState
from trtjob.queue.job_store import JobStore
from trtjob.queue.views import JobView
from trtjob.storage import open_storage

SHARD = 25
# On a machine that is busy a worker may take longer to start than it is left to live.
MOST_KILLS = 10


@dataclass
class Fleet:
    """What one scenario works with. model: the sample; photos: the source; output: where results go."""

    terminal: Terminal
    valkey: Valkey
    model: Path
    photos: Path | str
    output: str

    @property
    def store(self) -> JobStore:
        return JobStore(self.valkey.client)

    # -- nodes ---------------------------------------------------------------------------------------------------------

    def node(self, *options: str, **environment: str) -> subprocess.Popen[str]:
        """Start a daemon with one worker process of one thread, and wait until that reports."""
        known = {worker.name for worker in self.store.workers()}
        daemon = self.terminal.start("worker", "--threads", "1", *options, **environment)
        wait_for(lambda: {worker.name for worker in self.store.workers()} - known, "the node's worker")
        return daemon

    def worker_pids(self, *daemons: subprocess.Popen[str]) -> list[int]:
        return [pid for daemon in daemons if daemon.poll() is None for pid in worker_pids(daemon.pid)]

    # -- the job -------------------------------------------------------------------------------------------------------

    def submit(self, *options: str) -> str:
        """Hand the job in, or continue it. Returns its id."""
        command = ["submit", self.photos, "--model", self.model, "-o", self.output, "--annotate", "none"]
        outcome = self.terminal.run(*command, "--shard-size", str(SHARD), *options)
        assert outcome.code == 0, outcome.err
        return outcome.out.strip()

    def view(self, job_id: str) -> JobView:
        return self.store.view(job_id)

    def wait_done(self, job_id: str, images: int, timeout_s: float = 60) -> None:
        """Wait until so many images are done."""
        wait_for(lambda: self.view(job_id).done >= images, f"{images} images", timeout_s)

    def wait_end(self, job_id: str, timeout_s: float = 90) -> JobView:
        wait_for(lambda: self.view(job_id).state in TERMINAL, f"the end of {job_id}", timeout_s)
        return self.view(job_id)

    def folder(self, job_id: str) -> JobFolder:
        return JobFolder(open_storage(f"{self.output}/{job_id}"))

    # -- what must hold ------------------------------------------------------------------------------------------------

    def check(
        self, job_id: str, calm: bytes, *, state: JobState = JobState.DONE_WITH_ERRORS, timeout_s: float = 90
    ) -> JobView:
        """Check that the job has ended as a calm one does: nothing lost, doubled, miscounted or left behind."""
        view = self.wait_end(job_id, timeout_s)
        folder = self.folder(job_id)
        assert view.state is state, view.message
        check_manifests(folder, view)
        assert folder.storage.read(RESULTS) == calm
        receipt = json.loads(folder.storage.read(RECEIPT))
        assert receipt["listed"] == receipt["ok"] + receipt["failed"] + receipt["skipped"] == view.images
        check_files(folder)
        self.check_server(job_id)
        return view

    def check_server(self, job_id: str) -> None:
        """Check that the job has no key but its record, and the queue no message that would do work."""

        def leftovers() -> list[str]:
            client = self.valkey.client
            keys = [key.decode() for key in client.scan_iter("trtjob:*", count=1000)]
            allowed = {f"trtjob:job:{job_id}{part}" for part in ("", ":calls", ":done", ":events", ":kinds", ":log")}
            mine = [key for key in keys if job_id in key and key not in allowed]
            started = client.zcard("rq:wip:trtjob")
            return [*mine, *(["rq:wip:trtjob"] if started else [])]

        wait_for(lambda: not leftovers(), f"the server to be clean, it has {leftovers()}", 30)

    def end(self, *daemons: subprocess.Popen[str]) -> None:
        """Stop nodes in order, and check that no process is left."""
        processes = [
            pid for daemon in daemons if daemon.poll() is None for pid in (daemon.pid, *descendants(daemon.pid))
        ]
        for daemon in daemons:
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            _, err = daemon.communicate(timeout=40)
            assert daemon.returncode in (0, -signal.SIGKILL), err
            assert "Traceback" not in err, err
        wait_for(lambda: not [pid for pid in processes if Path(f"/proc/{pid}").exists()], "the processes' end")


def check_manifests(folder: JobFolder, view: JobView) -> None:
    """Check that the shards' commits list every planned image exactly once, and that all counters say the same."""
    epochs = folder.epochs()
    seen: Counter[str] = Counter()
    ok = failed = 0
    for epoch in epochs[:1]:
        for shard in epoch.numbers:
            manifest = folder.manifest(shard)
            assert manifest is not None, f"shard {shard} has no commit"
            records = list(read_records(folder.storage, manifest.results))
            assert manifest.failed == sum(record.error is not None for record in records)
            assert manifest.ok + manifest.failed == len(records)
            ok, failed = ok + manifest.ok, failed + manifest.failed
            seen.update(record.image for record in records)
    assert [image for image, count in seen.items() if count != 1] == []
    assert set(seen) == {entry.key for entry in planned_entries(folder, epochs)}
    if len(epochs) == 1:
        assert (view.ok, view.failed, view.images) == (ok, failed, len(seen))


def check_files(folder: JobFolder) -> None:
    """Check that no attempt has left a file."""
    committed = {m.results for m in folder.manifests(range(sum(epoch.shards for epoch in folder.epochs())))}
    results = {f"shards/{name}" for name in folder.storage.list("shards") if name.endswith(".jsonl")}
    assert results == committed
    assert JobSpec.model_validate_json(folder.storage.read(JOB))
    if not folder.storage.is_remote:
        assert [path for path in Path(folder.uri).rglob(".*") if path.name.startswith(".")] == []


def kill_every(interval_s: float, pids: Callable[[], list[int]], until: Callable[[], bool], pick: random.Random) -> int:
    """Kill a process by SIGKILL every so many seconds, MOST_KILLS times at most. Returns how many were."""
    kills = 0
    while kills < MOST_KILLS and not until():
        if found := pids():
            with suppress(ProcessLookupError):
                os.kill(pick.choice(found), signal.SIGKILL)
                kills += 1
        deadline = time.monotonic() + interval_s
        while time.monotonic() < deadline and not until():
            time.sleep(0.05)
    return kills
