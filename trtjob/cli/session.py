"""The way from a command to the queue."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from trtjob.cli.options import WorkerOptions
from trtjob.errors import ConfigError, QueueError

if TYPE_CHECKING:
    from pathlib import Path

    from trtjob.config import Settings
    from trtjob.queue.connection import Connection
    from trtjob.queue.job_store import JobStore
    from trtjob.queue.rq_queue import WorkQueue


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with while it is connected."""

    settings: "Settings"
    connection: "Connection"
    store: "JobStore"
    queue: "WorkQueue"


@contextmanager
def open_session(settings: "Settings") -> Iterator[Session]:
    """Connect to the queue's server for the length of the block. Raises QueueError also where it is lost inside."""
    from redis import RedisError

    from trtjob.queue.connection import connect
    from trtjob.queue.job_store import JobStore
    from trtjob.queue.replies import is_of_key
    from trtjob.queue.rq_queue import WorkQueue

    with connect(settings) as connection:
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


def start(workers: WorkerOptions | None = None, *, http: str | None = None, quiet: bool = True) -> "Settings":
    """Read the settings, with the command's own over them, and set the log up.

    quiet: only warnings, unless the user has set a level: the log would stand between the lines of the progress.
    """
    from trtjob.config import load_settings
    from trtjob.logs import configure_logging

    settings = load_settings()
    options = {**asdict(workers or WorkerOptions()), "http": http}
    given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    if quiet and "log_level" not in settings.model_fields_set:
        given["log_level"] = "WARNING"
    settings = settings.model_copy(update=given)
    configure_logging(settings.log_level, settings.log_format)
    with suppress(OSError):  # a command that needs it says so
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
