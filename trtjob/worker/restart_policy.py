"""How a worker process died: what is to blame, and how long its successor waits."""

import signal
from pathlib import Path

from trtjob.worker.exit_codes import STALLED

FREE_RESTARTS = 3  # an image that kills its worker costs two: no delay for the first few
FREE_FAULTS = 1  # a new process can use a GPU whose context broke; one that fails again is sick
MAX_BACKOFF_S = 30.0
_FATAL_SIGNALS = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE})


def backoff_s(young_deaths: int, free: int = FREE_RESTARTS) -> float:
    """Return how long to wait before a process starts again that has died young so many times in a row.

    free: how many deaths cost no wait.
    """
    if young_deaths <= free:
        return 0.0
    doublings = min(young_deaths - free, 16)  # a float ends at 1,024 of them, a crash loop does not
    return float(min(MAX_BACKOFF_S, 0.5 * 2**doublings))


def blame_of(exit_code: int, *, was_silent: bool, had_oom: bool) -> str:
    """Say why the work in hand is to blame for a process's death; empty where it is not (somebody killed it)."""
    if was_silent:
        return "it stopped responding"
    if exit_code == STALLED:
        return "it made no progress"
    if exit_code < 0 and -exit_code in _FATAL_SIGNALS:
        return signal.Signals(-exit_code).name
    if exit_code == -signal.SIGKILL and had_oom:
        return "out of memory"
    return ""


def oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
