"""One worker process: `python -m trtjob.worker.process`, started by the supervisor and by nobody else.

Standard input brings a config as one line of JSON (so that no password is in an argument list), for `trtjob run` the
job's id in another, and its end says that the supervisor is gone. Standard output carries a line a second: the proof of
life. Logs go to standard error.
"""

import json
import os
import signal
import sys
from contextlib import suppress
from io import FileIO
from types import FrameType
from typing import NoReturn

from trtjob.garbage import lasting
from trtjob.worker.pipeline.prestart import PrestartedProcesses, fork_ahead
from trtjob.worker.worker_config import WorkerConfig


def main() -> int:
    """Work until told to stop. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's, which sends SIGTERM
    with suppress(OSError):  # then the fork server will be a new Python
        fork_ahead()  # before the password is read
    # Without the lock of sys.stdin: on one that a thread holds while it waits, the interpreter stumbles when it ends.
    commands = FileIO(0, closefd=False)
    config = WorkerConfig(**json.loads(commands.readline()))
    if config.cores:
        os.sched_setaffinity(0, config.cores)  # the image processes begin so
    try:
        prestarted = PrestartedProcesses(config.image_processes)
    except OSError:  # who needs them says so
        prestarted = None
    with lasting():
        from trtjob.worker.engine_process import work  # only now: it takes as long as the image processes take to begin
    # Only now: what is raised while NumPy's compiled part begins would be an error of NumPy's, with a page of advice.
    signal.signal(signal.SIGTERM, _leave)  # until the worker listens to it
    return work(config, commands, prestarted)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """End in order: who is the last to use the embedded server stops it."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
