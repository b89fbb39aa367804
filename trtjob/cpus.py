"""How many CPUs this process may keep busy, by its affinity and a container's quota, and which lie near a device."""

import math
import os
import re
import sys
from collections.abc import Iterator, Set
from pathlib import Path

PROC = Path("/proc/self")
SYSTEM = Path("/sys/devices/system")
PCI = Path("/sys/bus/pci/devices")


def usable_cpus(proc: Path = PROC) -> int:
    """Return the number of CPUs that this process may keep busy, at least 1; a quota of 1.5 counts as 2."""
    quota = quota_cpus(proc)
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def quota_cpus(proc: Path = PROC) -> float | None:
    """Return the CPU seconds a second that the process's control groups allow, the least of all; None for no limit."""
    quotas = map(_quota, cgroup_folders(proc, "cpu"))
    return min((quota for quota in quotas if quota is not None), default=None)


def near_cpus(pci_bus_id: str, devices: Path = PCI) -> frozenset[int]:
    """Return the CPUs of a device's own NUMA node; none where the kernel does not say.

    pci_bus_id: as CUDA's driver writes it, such as 0000:3B:00.0; the kernel writes it in small letters.
    """
    return _listed(devices / pci_bus_id.lower() / "local_cpulist")


def by_neighbourhood(cpus: Set[int], system: Path = SYSTEM) -> list[int]:
    """Return CPUs so that those of a NUMA node stand together, and in it those that share one core."""
    nodes = [_listed(file) for file in sorted(system.glob("node/node*/cpulist"))]

    def place(cpu: int) -> tuple[int, int, int]:
        node = next((number for number, of_node in enumerate(nodes) if cpu in of_node), len(nodes))
        siblings = _listed(system / f"cpu/cpu{cpu}/topology/thread_siblings_list")
        return node, min(siblings, default=cpu), cpu

    return sorted(cpus, key=place)


def _listed(file: Path) -> frozenset[int]:
    try:
        return cpus_of(file.read_text())
    except (OSError, ValueError):
        return frozenset()


def cpus_of(text: str) -> frozenset[int]:
    """Return the CPUs of the kernel's list format, such as `0-3,8`. Raises ValueError.

    >>> sorted(cpus_of("0-3,8"))
    [0, 1, 2, 3, 8]
    """
    ranges = [part.partition("-") for part in text.strip().split(",") if part]
    return frozenset(cpu for first, _, last in ranges for cpu in range(int(first), int(last or first) + 1))


def cgroup_folders(proc: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups, and those around them, that limit a process's `cpu` or `memory`."""
    try:
        memberships = [line.split(":", 2) for line in os.fsdecode((proc / "cgroup").read_bytes()).split("\n")]
        mounts = [line.split(" ") for line in os.fsdecode((proc / "mountinfo").read_bytes()).split("\n")]
    except OSError:
        return
    # proc_pid_mountinfo(5): id, parent, device, root, mount point, options, tags ..., "-", type, source, its options
    for mount in (mount for mount in mounts if "-" in mount[:-2]):
        kind, options = mount[mount.index("-") + 1], mount[-1].split(",")
        if kind == "cgroup2" or (kind == "cgroup" and controller in options):
            root, point = _plain(mount[3]), Path(_plain(mount[4]))
            for _, controllers, path in (group for group in memberships if len(group) == 3):
                if (controllers == "") if kind == "cgroup2" else (controller in controllers.split(",")):
                    yield from _upwards(point, root, path)


def _upwards(point: Path, root: str, path: str) -> Iterator[Path]:
    """Yield a group's folder and those above it. root: the group that is mounted at `point`, as a container sees it."""
    below = os.path.relpath(path, root)
    folder = point if below.startswith("..") else point / below
    yield folder
    while folder != point:
        folder = folder.parent
        yield folder


def _plain(escaped: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), escaped)


def _quota(folder: Path) -> float | None:
    """Return the quota of one group of either version, in CPUs."""
    try:
        if (file := folder / "cpu.max").exists():
            quota, period = file.read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cpus = float(quota) / float(period)  # "max" is no number, and -1 no limit
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return cpus if cpus > 0 else None
