"""The way to the queue."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

from trtjob.errors import ConfigError, QueueError

if TYPE_CHECKING:
    from pathlib import Path

    from trtjob.config import Settings
    from trtjob.queue.connection import Connection
    from trtjob.queue.job_store import JobStore
    from trtjob.queue.rq_queue import WorkQueue


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a caller says of its workers over the settings of the same names; None: what these say."""

    threads: int | None = None
    image_processes: int | None = None
    batch: int | None = None
    engine: Literal["auto", "tensorrt", "cuda", "cpu"] | None = None
    gpus: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """What works with the queue has this while it is connected."""

    settings: "Settings"
    connection: "Connection"
    store: "JobStore"
    queue: "WorkQueue"


@contextmanager
def open_session(settings: "Settings") -> Iterator[Session]:
    """Connect to the queue's server for the length of the block. Raises QueueError also where it is lost inside."""
    from redis import RedisError

    from trtjob.queue.connection import Connection
    from trtjob.queue.job_store import JobStore
    from trtjob.queue.replies import is_of_key
    from trtjob.queue.rq_queue import WorkQueue

    with Connection(settings) as connection:
        try:
            yield Session(settings, connection, JobStore(connection.redis), WorkQueue(connection.redis, settings.queue))
        except RedisError as err:
            if is_of_key(err):
                raise QueueError(
                    f"what stands in the queue's server at {connection.place} is not what trtjob has written: {err}. "
                    "Look for it with: redis-cli --scan --pattern 'trtjob:*'; a running worker removes what it can"
                ) from err
            raise QueueError(
                f"lost the queue's server at {connection.place}: {err}. No work is lost; repeat the command when the "
                "server is back. Check with: trtjob doctor"
            ) from err


def settings_for(workers: WorkerOptions | None = None, *, http: str | None = None, quiet: bool = True) -> "Settings":
    """Read the settings, with what a caller says over them, and make their home. Raises ConfigError.

    quiet: workers log only warnings, unless the user has set a level: the log would stand between the lines of the
    progress.
    """
    from trtjob.config import load_settings

    options = {each.name: getattr(workers, each.name) for each in fields(WorkerOptions)} if workers else {}
    given = {name: value for name, value in {**options, "http": http}.items() if value is not None}
    settings = load_settings(**given)
    if quiet and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "WARNING"})
    with suppress(OSError):  # who needs it says so
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _expect_own(settings.home)
    return settings


def _expect_own(home: "Path") -> None:
    """Raise ConfigError for a home that is another user's: a plan of TensorRT's that lies there is code that runs."""
    owner = home.stat().st_uid
    if owner not in (0, os.geteuid()):
        raise ConfigError(
            f"TRTJOB_HOME: '{home}' belongs to user {owner}, who could have code run as you. Name a folder of yours"
        )
