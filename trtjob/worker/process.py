"""One worker process: `python -m trtjob.worker.process`, started by the supervisor and by nobody else.

Standard input brings the settings as one line of JSON (so that no password is in an argument list), and its end says
that the supervisor is gone. Standard output carries one byte a second: the proof of life. Logs go to standard error.
"""

import json
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

import cv2
from redis import RedisError

from trtjob.config import Settings
from trtjob.errors import TrtjobError
from trtjob.jobs.connection import connect
from trtjob.jobs.joblog import JobLog
from trtjob.jobs.queue import WorkQueue
from trtjob.jobs.store import JobStore
from trtjob.logs import bind_process, configure_logging
from trtjob.worker import tasks  # noqa: F401 - imported now, so that the first message does not wait for it
from trtjob.worker.context import Context, set_current
from trtjob.worker.heart import EXIT_SERVER_AWAY, Heart
from trtjob.worker.pipeline.crew import Recruits
from trtjob.worker.pipeline.limits import processes_of
from trtjob.worker.rq_worker import UnitWorker

log = logging.getLogger(__name__)


def main() -> int:
    """Work until told to stop. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's, which sends SIGTERM
    signal.signal(signal.SIGTERM, _leave)  # until the worker listens to it
    order = json.loads(sys.stdin.readline())
    settings = Settings(**order["settings"])
    recruits = Recruits(processes_of(settings))
    configure_logging(settings.log_level, settings.log_format)
    bind_process(worker=order["name"])
    logging.getLogger().addHandler(job_log := JobLog())
    logging.getLogger("rq.worker").setLevel(logging.ERROR)
    cv2.setNumThreads(1)  # the pipeline has threads of its own
    try:
        with connect(settings) as connection:
            context = Context(
                order["name"],
                settings,
                JobStore(connection.redis),
                WorkQueue(connection.redis, settings.queue),
                engine=order["engine"],
                gpu=order["gpu"],
                recruits=recruits,
            )
            set_current(context)
            heart = Heart(context, connection.heartbeat(), job_log)
            heart.report()
            heart.start()
            worker = UnitWorker(context, heart, connection.redis, settings.queue)
            threading.Thread(target=_await_supervisor, args=(os.getpid(),), daemon=True).start()
            worker.work(logging_level="ERROR")
            heart.end()
            context.close_engine()
            context.store.remove_worker(context.name)
    except RedisError as err:
        log.warning("the queue's server is away: the worker process ends", extra={"error": str(err)})
        return EXIT_SERVER_AWAY
    except TrtjobError as err:
        log.error(str(err))
        return 1
    return 0


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """End in order: who is the last to use the embedded server stops it."""
    sys.exit(128 + number)


def _await_supervisor(pid: int) -> None:
    """Stop, as by SIGTERM, when the supervisor is gone: its end of our standard input closes however it dies."""
    # Not sys.stdin: a thread that waits in it holds its lock, on which the interpreter stumbles when it ends.
    while os.read(0, 4096):
        pass
    os.kill(pid, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
