"""Say whether a worker works on this host: exit code 0 where one has reported to the queue's server lately, else 1.

    healthcheck.py          for a health check or a readiness probe: a server that is away is a failure
    healthcheck.py --live   for a liveness probe: it is not, since a restart of the worker would not bring it back

A worker process reports every two seconds while it lives, and ends itself where its work stands still.
"""

import socket
import sys

from redis import RedisError

from trtjob.config import Settings, load_settings
from trtjob.errors import QueueError, TrtjobError
from trtjob.jobs.connection import connect
from trtjob.jobs.server import EmbeddedServer
from trtjob.jobs.store import JobStore

# Five reports missed: longer than a busy machine delays one, shorter than the store remembers a worker that is gone.
LATEST_S = 12.0


def main(arguments: list[str]) -> int:
    """Print what was found, and return the exit code."""
    code, found = check(server_must_answer="--live" not in arguments)
    print(found)  # noqa: T201 - the probe's message
    return code


def check(*, server_must_answer: bool) -> tuple[int, str]:
    """Return the exit code and what was found."""
    try:
        names = reporting(load_settings())
    except (QueueError, RedisError) as err:
        return int(server_must_answer), f"the queue's server is away: {err}"
    except TrtjobError as err:
        return 1, str(err)
    if not names:
        return 1, f"no worker of {socket.gethostname()} has reported in the last {LATEST_S:g} s"
    return 0, f"working: {', '.join(names)}"


def reporting(settings: Settings) -> list[str]:
    """Return the names of this host's workers that have reported lately. Raises TrtjobError or RedisError."""
    if settings.redis_url is None and not EmbeddedServer(settings.server_dir).answers():
        return []  # connecting would start a server, though no worker runs
    with connect(settings) as connection:
        workers = JobStore(connection.heartbeat()).workers()
    host = socket.gethostname()
    return [worker.name for worker in workers if worker.host == host and worker.beat_age_s <= LATEST_S]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
