"""How much of a process's memory, and of the GPU's, is in use."""

from collections.abc import Iterator
from contextlib import contextmanager

from trtjob.engines.cuda import Device

MIB = 1 << 20


def free_mib() -> float:
    """Return how much of the GPU's memory is free, for all processes together."""
    device = Device(0)
    try:
        return device.free_bytes() / MIB
    finally:
        device.close()


def process_mib() -> float:
    """Return how much of the machine's memory this process holds."""
    with open("/proc/self/status") as file:  # noqa: PTH123 - no path of ours
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


@contextmanager
def nearly_full(left_mib: int) -> Iterator[None]:
    """Hold the GPU's memory but for so much of it, for the length of a block, by a context of this thread."""
    device = Device(0)
    try:
        block = device.alloc(device.free_bytes() - left_mib * MIB)
        device.leave()
        try:
            yield
        finally:
            device.enter()
            block.free()
    finally:
        device.close()
