"""How busy the cores of this process are, with its own work and with that of others."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from trtjob.cpus import usable_cpus

STAT = Path("/proc/stat")
_IDLE, _IOWAIT = 3, 4  # columns of a cpu line, proc_stat(5): user, nice, system, idle, iowait, ...


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time: on the clock, in CPU seconds of this process and its helpers, and in idle seconds of its cores
    together."""

    wall_s: float
    process_s: float
    idle_s: float | None

    @classmethod
    def now(cls, others_s: float = 0.0) -> "Moment":
        """Return this moment. others_s: CPU seconds of the process's helpers."""
        return cls(time.perf_counter(), time.process_time() + others_s, idle_seconds(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class Span:
    """What lies between two moments. own: the share of the CPU time that this process may have, by its cores and its
    quota, that it had; busy: that anyone had of its cores, or own where that is more."""

    elapsed_s: float
    process_s: float
    own: float
    busy: float

    @classmethod
    def between(cls, start: Moment, end: Moment) -> "Span":
        cores, allowed = len(os.sched_getaffinity(0)), usable_cpus()
        elapsed_s, process_s = end.wall_s - start.wall_s, end.process_s - start.process_s
        own = min(1.0, process_s / elapsed_s / allowed)
        if start.idle_s is None or end.idle_s is None:
            return cls(elapsed_s, process_s, own, own)
        # The kernel counts idle time in hundredths of a second, so a short span may seem less busy than we are.
        return cls(elapsed_s, process_s, own, max(own, 1 - (end.idle_s - start.idle_s) / elapsed_s / cores))


def idle_seconds(cores: set[int]) -> float | None:
    """Return how long these cores have been idle, all together, since the machine started; None where nobody says."""
    names = {f"cpu{core}" for core in cores}
    try:
        lines = [line.split() for line in STAT.read_text().splitlines()]
        ticks = [int(line[1 + _IDLE]) + int(line[1 + _IOWAIT]) for line in lines if line and line[0] in names]
    except (OSError, ValueError, IndexError):
        return None
    return sum(ticks) / os.sysconf("SC_CLK_TCK") if len(ticks) == len(cores) else None
