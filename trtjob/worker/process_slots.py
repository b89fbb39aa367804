"""The places of a daemon's worker processes: which GPU and which cores each has, and how those fared that had it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from trtjob.cpus import by_neighbourhood, near_cpus
from trtjob.engines.choice import ChosenGpu
from trtjob.worker.core_shares import core_shares


@dataclass(slots=True)
class ProcessSlot:
    """A place for one worker process, and how those fared that had it.

    gpu: None for the CPU; cores: its share of the machine's.
    young_deaths: in a row; failed_starts: how many in a row have ended, or were not started at all, before they worked.
    """

    number: int
    gpu: ChosenGpu | None
    cores: frozenset[int]
    young_deaths: int = 0
    failed_starts: int = 0
    last_end: str = ""

    @property
    def name(self) -> str:
        return f"worker process {self.number}" + (f" ({self.gpu.called})" if self.gpu else "")

    @property
    def environment(self) -> dict[str, str]:
        """What has a process see its own GPU alone: so another that is lost neither disturbs it nor moves numbers."""
        name = self.gpu.place.visible_as if self.gpu else ""
        return {"CUDA_VISIBLE_DEVICES": name} if name else {}

    @property
    def gpu_number(self) -> int | None:
        """The GPU's number in its process."""
        if self.gpu is None:
            return None
        return 0 if self.environment else self.gpu.number


def process_slots(gpus: Sequence[ChosenGpu | None]) -> list[ProcessSlot]:
    """Return a place for a process on each GPU, or on the CPU where that is None, the cores being shared out."""
    near = [near_cpus(gpu.place.pci_bus_id) if gpu else frozenset[int]() for gpu in gpus]
    shares = core_shares(near, by_neighbourhood(os.sched_getaffinity(0)))
    return [ProcessSlot(number, gpu, share) for number, (gpu, share) in enumerate(zip(gpus, shares, strict=True))]
