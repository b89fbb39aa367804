"""How much of a process's memory, and of the GPU's, is in use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from scripts.gpu_check.watch import handle_of_first
from trtjob.engines.cuda.device import Device, gpus

MIB = 1 << 20


def free_mib() -> float:
    """Return how much of the GPU's memory is free, for all processes together."""
    device = Device(0)
    try:
        return device.free_bytes() / MIB
    finally:
        device.close()


def own_mib() -> float:
    """Return how much of the GPU's memory this process has, as NVIDIA's management library counts it.

    Where that does not tell, how much all processes have together.
    """
    try:
        nvml: Any = import_module("pynvml")
        nvml.nvmlInit()
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle_of_first(nvml))
        return float(next(found.usedGpuMemory for found in processes if found.pid == os.getpid())) / MIB
    except Exception:  # noqa: BLE001 - an optional package, whose errors are its own; or None, or no such process
        return gpus()[0].memory_bytes / MIB - free_mib()


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
