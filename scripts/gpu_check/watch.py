"""How busy the GPU and its JPEG engine are meanwhile, as NVIDIA's management library counts it."""

import shutil
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self

from trtjob.engines.cuda.survey import survey

EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Busy:
    """A moment. gpu and jpeg: percent; None where nobody says."""

    at: float
    gpu: float
    jpeg: float | None


class GpuWatch:
    """Looks at the first GPU again and again, in a thread, for the length of a block."""

    def __init__(self) -> None:
        self._look, self.how = _looker()
        self._seen: list[Busy] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-watch")

    def __enter__(self) -> Self:
        if self._look is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._look is not None:
            self._thread.join()

    def gpu(self, last_s: float = float("inf")) -> str:
        """Return the share of the time that the GPU had work, over the last seconds of the block."""
        return _said([busy.gpu for busy in self._last(last_s)])

    def jpeg(self) -> str:
        return _said([busy.jpeg for busy in self._seen if busy.jpeg is not None])

    def _last(self, seconds: float) -> list[Busy]:
        return [busy for busy in self._seen if busy.at >= self._seen[-1].at - seconds]

    def _run(self) -> None:
        assert self._look is not None
        while not self._end.wait(EVERY_S):
            self._seen.append(self._look())


def _said(values: list[float]) -> str:
    return f"{statistics.mean(values):.0f}% (at most {max(values):.0f}%)" if values else ""


def _looker() -> tuple[Callable[[], Busy] | None, str]:
    """Return what looks, and its name; or None, and why there is nothing."""
    try:
        nvml: Any = import_module("pynvml")  # from nvidia-ml-py, or its forerunner
        nvml.nvmlInit()
        handle = handle_of_first(nvml)
    except Exception as err:  # noqa: BLE001 - an optional package, whose errors are its own
        return _looker_by_tool(f"NVML: {err}")

    def look() -> Busy:
        return Busy(time.perf_counter(), nvml.nvmlDeviceGetUtilizationRates(handle).gpu, _jpeg_share(nvml, handle))

    return look, "NVML"


def handle_of_first(nvml: Any) -> Any:
    """Return what NVIDIA's management library, which knows nothing of CUDA_VISIBLE_DEVICES, calls CUDA's GPU 0."""
    return nvml.nvmlDeviceGetHandleByPciBusId(_first())


def _first() -> str:
    return next((gpu.pci_bus_id for gpu in survey().gpus), "0")


def _jpeg_share(nvml: Any, handle: Any) -> float | None:
    try:
        return float(nvml.nvmlDeviceGetJpgUtilization(handle)[0])
    except (AttributeError, nvml.NVMLError):  # an older package, or a GPU without the engine
        return None


def _looker_by_tool(reason: str) -> tuple[Callable[[], Busy] | None, str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None, f"{reason}; and there is no nvidia-smi"
    command = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", f"--id={_first()}"]

    def look() -> Busy:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return Busy(time.perf_counter(), float(answer.stdout), None)

    try:
        look()
    except (OSError, ValueError, subprocess.SubprocessError) as err:
        return None, f"{reason}; nvidia-smi: {err}"
    return look, "nvidia-smi"
