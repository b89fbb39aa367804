"""Work for a process of its own, which loads this module and little else."""

import os
import signal
import time

from scripts.gpu_check.rows import NotRun
from trtjob.errors import ConfigError


def double(value: int) -> int:
    return 2 * value


def lacking(_value: int) -> int:
    raise NotRun("there is no GPU")


def wrong(_value: int) -> int:
    raise ConfigError("7 is too much")


def dying(_value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def slow(_value: int) -> int:
    time.sleep(60)
    return 0
