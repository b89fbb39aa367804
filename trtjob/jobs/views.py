"""A job and a worker as they stand: what the hashes in Redis say, typed."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from trtjob.jobs.models import JobSpec
from trtjob.jobs.states import JobState, Priority


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it stands. Times are seconds since the epoch, None where not reached.

    images: listed so far (all of them once `planned`); ok, failed, skipped: in committed shards;
    live_done, live_failed: in shards under way; degraded: what is failing outside the job, so that it waits.
    """

    spec: JobSpec
    state: JobState
    message: str
    epoch: int
    reason: str
    planned: bool
    images: int
    ok: int
    failed: int
    skipped: int
    ignored: Mapping[str, int]
    shards: int
    shards_done: int
    live_done: int
    live_failed: int
    started_at: float | None
    finished_at: float | None
    priority: Priority = Priority.NORMAL
    degraded: str = ""

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def done(self) -> int:
        return self.ok + self.failed + self.skipped + self.live_done

    @property
    def failures(self) -> int:
        return self.failed + self.live_failed


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker process as it last reported. rate: images per second; busy: share of its time by stage, 0 to 1.

    units: the job and the unit of all that it has in hand; job_id, unit: those of the first.
    """

    name: str
    host: str
    pid: int
    engine: str
    device: str
    state: str
    job_id: str | None
    unit: str | None
    beat_age_s: float
    rate: float
    busy: Mapping[str, float] = field(default_factory=dict)
    units: tuple[tuple[str, str], ...] = ()


def job_view(fields: dict[bytes, bytes], live: list[bytes], shards_done: int) -> JobView:
    """Read a job's hash and its shards under way, each "done,failed". Raises ValueError, KeyError where it cannot."""
    text = {key.decode(): value.decode() for key, value in fields.items()}
    pairs = [tuple(map(int, value.split(b","))) for value in live]
    return JobView(
        spec=JobSpec.model_validate_json(text["spec"]),
        state=JobState(text["state"]),
        message=text["message"],
        epoch=int(text["epoch"]),
        reason=text["reason"],
        planned=text["planned"] == "1",
        images=int(text["images"]),
        ok=int(text["ok"]),
        failed=int(text["failed"]),
        skipped=int(text["skipped"]),
        ignored=json.loads(text["ignored"]),
        shards=int(text["shards"]),
        shards_done=shards_done,
        live_done=sum(done for done, _ in pairs),
        live_failed=sum(failed for _, failed in pairs),
        started_at=_time(text.get("started_at")),
        finished_at=_time(text.get("finished_at")),
        priority=Priority(text["priority"]),
        degraded=text.get("degraded", ""),
    )


def _time(value: str | None) -> float | None:
    return float(value) if value else None


def units_held(fields: Iterable[bytes]) -> list[tuple[str, str]]:
    """Return the job and the unit of each that a worker's record says it holds."""
    names = (field.decode().split(":") for field in fields if field.startswith(b"unit:"))
    return sorted((job_id, unit) for _, job_id, unit in names)


def worker_view(name: str, fields: dict[bytes, bytes], beat_age_s: float) -> WorkerView:
    """Read a worker's hash."""
    text = {key.decode(): value.decode() for key, value in fields.items()}
    state: Literal["idle", "busy"] | str = text.get("state", "idle")
    units = units_held(fields) if state != "idle" else []
    job_id, unit = units[0] if units else (None, None)
    return WorkerView(
        name=name,
        host=text["host"],
        pid=int(text["pid"]),
        engine=text.get("engine", ""),
        device=text.get("device", ""),
        state=state,
        job_id=job_id,
        unit=unit,
        units=tuple(units),
        beat_age_s=beat_age_s,
        rate=float(text.get("rate", 0)),
        busy=json.loads(text.get("busy", "{}")),
    )
