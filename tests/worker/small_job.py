"""A small job from its submission to its end, in this process, and all that its end must be like."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from samples import job_spec
from worker.burst import unit_worker, work

from trtjob.jobs.folder import RECEIPT, RESULTS, SUMMARY, JobFolder
from trtjob.jobs.spec import JobSpec
from trtjob.jobs.states import ACTIVE
from trtjob.queue.job_store import JobStore
from trtjob.queue.reconcile import reconcile
from trtjob.queue.rq_internals import intermediate_key, list_key
from trtjob.queue.submit import cancel, retry, submit
from trtjob.worker.context import Context
from trtjob.worker.tasks import run_unit

IMAGES, SHARD = 10, 4
BROKEN = "0006.png"
SWEEPS = 4  # a daemon makes one every two seconds; more of them mean that a unit waits for a lease to run out
_TOKEN = re.compile(r"(shards/\d+\.).+(\.jsonl)$")  # of an attempt, in the name of its results
_TIMES = {"finished_at", "started_at", "elapsed_s", "busy_s"}


@dataclass
class SmallJob:
    """context: a worker's, perhaps on the wrong side of a proxy; redis: a client that nothing is lost of; put, names:
    write an image, and list the files of the output, behind trtjob's back; by_rq: RQ's worker takes the messages."""

    context: Context
    redis: Any
    photos: str
    output: str
    put: Callable[[str, bytes], object]
    names: Callable[[], list[str]]
    by_rq: bool = False
    submissions: int = 0

    @property
    def spec(self) -> JobSpec:
        return job_spec(self.photos, self.output, shard_size=SHARD)

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def store(self) -> JobStore:
        return JobStore(self.redis)

    def submit(self) -> None:
        self.submissions += 1  # no two are of the same moment
        spec = self.spec.model_copy(update={"created_at": self.spec.created_at + self.submissions})
        submit(self.context.store, self.context.queue, spec)

    def cancel(self) -> None:
        cancel(self.context.store, self.job_id)

    def retry(self) -> None:
        retry(self.context.store, self.context.queue, self.job_id)

    def take(self) -> bool:
        """Do what the first message asks for, as RQ hands it over. Returns False where none waits."""
        message = self.redis.lpop(list_key(self.context.queue.name))
        if message is None:
            return False
        self.redis.delete(f"rq:job:{message.decode()}")
        run_unit(*message.decode().rsplit("--", 2)[:2])
        return True

    def take_all(self) -> None:
        """Do what is asked for until nothing waits, with RQ's own worker or without."""
        if not self.by_rq:
            while self.take():
                pass
            return
        with unit_worker(self.context, self.context.store.redis, self.redis) as worker:
            work(worker)

    def work(self) -> None:
        """Do what is asked for, and ask again as a daemon does, until the job has ended and nothing waits."""
        for _ in range(SWEEPS):
            self.take_all()
            if self.store.state(self.job_id) not in ACTIVE:
                return
            reconcile(self.context.store, self.context.queue)
        raise AssertionError(f"{self.store.state(self.job_id)} after {SWEEPS} sweeps, with {sorted(self.keys())}")

    def keys(self) -> set[str]:
        """Return the server's keys, without what RQ clears away in its own time: its lock for that, and a message that
        it has taken without hearing so."""
        taken = intermediate_key(self.context.queue.name)
        unheard = [message.decode() for message in self.redis.lrange(taken, 0, -1)]
        rqs = {taken, f"rq:clean_registries:{self.context.queue.name}"}
        rqs |= {key for message in unheard for key in (f"rq:job:{message}", f"{taken}:first_seen:{message}")}
        return {key.decode() for key in self.redis.scan_iter("*", count=1000)} - rqs

    def ending(self) -> dict[str, Any]:
        """Return what must be the same whatever happened on the way; checks the receipt."""
        folder, view = JobFolder.of(self.spec), asdict(self.store.view(self.job_id))
        results, receipt = folder.storage.read(RESULTS), json.loads(folder.storage.read(RECEIPT))
        epochs = folder.epochs()
        manifests = folder.manifests(range(sum(epoch.shards for epoch in epochs)))
        assert receipt["results_sha256"] == sha256(results).hexdigest()
        assert receipt["listed"] == receipt["ok"] + receipt["failed"] == view["ok"] + view["failed"] == view["images"]
        return {
            "results": results,
            "receipt": _timeless(receipt),
            "summary": _timeless(json.loads(folder.storage.read(SUMMARY))),
            "epochs": [epoch.model_dump() for epoch in epochs],
            "manifests": [_timeless(manifest.model_dump(exclude={"results"})) for manifest in manifests],
            "files": sorted(_TOKEN.sub(r"\1TOKEN\2", name) for name in self.names()),
            "view": _timeless(view, "spec"),
            "keys": self.keys(),
            "jobs": self.store.job_ids(),
            "counts": self.store.counts(),
            "events": Counter((event.event, event.unit, event.attempt) for event in self.store.events(self.job_id)),
        }


def _timeless(document: dict[str, Any], *others: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in _TIMES.union(others)}


def straight(job: SmallJob, _image: bytes) -> None:
    """Hand a job in, and do it."""
    job.submit()
    job.work()


def delivered(job: SmallJob, image: bytes) -> None:
    """Do a job as a worker process does, whose messages RQ delivers."""
    job.by_rq = True
    straight(job, image)


def cancelled(job: SmallJob, _image: bytes) -> None:
    """Cancel a job that is planned, and hand it in again."""
    job.submit()
    job.take()
    job.cancel()
    job.work()
    job.submit()
    job.work()


def retried(job: SmallJob, image: bytes) -> None:
    """Do a job with a damaged image, mend that, and try it again."""
    job.put(BROKEN, b"no image")
    job.submit()
    job.work()
    job.put(BROKEN, image)
    job.retry()
    job.work()


def updated(job: SmallJob, image: bytes) -> None:
    """Do a job, and do it again with one image more."""
    job.submit()
    job.work()
    job.put("9999.png", image)
    job.submit()
    job.work()


Scenario = Callable[[SmallJob, bytes], None]
LONGER: list[Scenario] = [delivered, cancelled, retried, updated]
