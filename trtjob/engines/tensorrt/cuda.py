"""CUDA through pycuda: the devices of this machine, and one device's context in one thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError, MissingDependencyError


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """A GPU of this machine."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def driver() -> Any:
    """Return pycuda's driver module, initialised.

    Raises MissingDependencyError where pycuda is not installed, EngineError where there is no driver or no GPU.
    """
    try:
        import pycuda.driver as cuda
    except ModuleNotFoundError as err:
        raise MissingDependencyError("pycuda", extra="tensorrt") from err
    except ImportError as err:  # libcuda.so.1 comes with NVIDIA's driver
        raise EngineError(f"CUDA cannot be used: {err}. Install NVIDIA's driver") from err
    try:
        cuda.init()
    except cuda.Error as err:
        raise EngineError(f"CUDA cannot be used: {err}. Does nvidia-smi show a GPU?") from err
    return cuda


def gpus() -> list[GpuInfo]:
    """Return the GPUs that this process may use. Raises as `driver` does."""
    cuda = driver()
    devices = (cuda.Device(index) for index in range(cuda.Device.count()))
    return [
        GpuInfo(index, device.name(), tuple(device.compute_capability()), device.total_memory())
        for index, device in enumerate(devices)
    ]


class Device:
    """A GPU's primary context, which TensorRT and other libraries share, current in the thread that makes this."""

    def __init__(self, index: int) -> None:
        self._cuda = driver()
        with _errors(self._cuda):
            self._context = self._cuda.Device(index).retain_primary_context()
            self._context.push()

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in page-locked memory: the GPU copies it while the CPU does other things."""
        with _errors(self._cuda):
            return np.asarray(self._cuda.pagelocked_empty(shape, dtype))

    def alloc(self, size_bytes: int) -> Any:
        """Return memory of the GPU; `int()` of it is its address, `free()` gives it back."""
        with _errors(self._cuda):
            return self._cuda.mem_alloc(size_bytes)

    def stream(self) -> "Stream":
        with _errors(self._cuda):
            return Stream(self._cuda)

    def close(self) -> None:
        """Leave the context; what was allocated in it must have been freed."""
        self._context.pop()
        self._context.detach()


class Stream:
    """Work in order, beside that of other streams."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._stream = cuda.Stream()
        # Blocking: a thread that spins would take a core from those that decode.
        self._done = cuda.Event(cuda.event_flags.DISABLE_TIMING | cuda.event_flags.BLOCKING_SYNC)

    @property
    def handle(self) -> int:
        return int(self._stream.handle)

    def copy_in(self, device: Any, host: NDArray[Any]) -> None:
        """Begin to copy from page-locked memory to the GPU."""
        with _errors(self._cuda):
            self._cuda.memcpy_htod_async(device, host, self._stream)

    def copy_out(self, host: NDArray[Any], device: Any) -> None:
        with _errors(self._cuda):
            self._cuda.memcpy_dtoh_async(host, device, self._stream)

    def capture(self, work: Callable[[], None]) -> "Graph | None":
        """Record what `work` asks of this stream, instead of doing it.

        None where cuda-bindings is not installed or the work cannot be recorded: the stream is as good as before.
        """
        try:
            from cuda.bindings import driver as bindings
        except ImportError:
            return None
        stream = bindings.CUstream(self.handle)
        mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        if _failed(bindings.cuStreamBeginCapture(stream, mode)):
            return None
        is_recorded = True
        try:
            work()
        except EngineError:  # also DeviceLostError: in a capture, a refusal does not break the context
            is_recorded = False
        ended, graph = bindings.cuStreamEndCapture(stream)
        if not is_recorded or _failed((ended,)):
            return None
        made, executable = bindings.cuGraphInstantiate(graph, 0)
        bindings.cuGraphDestroy(graph)
        return None if _failed((made,)) else Graph(bindings, executable, stream)

    def mark(self) -> None:
        """Remember this point for `wait`."""
        with _errors(self._cuda):
            self._done.record(self._stream)

    def wait(self) -> None:
        """Wait until the work before the last mark is done."""
        with _errors(self._cuda):
            self._done.synchronize()


class Graph:
    """Work that was recorded once and is launched with one call."""

    def __init__(self, bindings: Any, executable: Any, stream: Any) -> None:
        self._bindings, self._executable, self._stream = bindings, executable, stream

    def launch(self) -> None:
        """Begin the work, on the stream that it was recorded on. Raises DeviceLostError."""
        if _failed(self._bindings.cuGraphLaunch(self._executable, self._stream)):
            raise DeviceLostError("CUDA failed to launch a graph")

    def close(self) -> None:
        self._bindings.cuGraphExecDestroy(self._executable)


def _failed(answer: tuple[Any, ...]) -> bool:
    """Tell whether a call of cuda-bindings, which returns its error and raises none, went wrong."""
    return int(answer[0]) != 0


@contextmanager
def _errors(cuda: Any) -> Iterator[None]:
    """Turn CUDA's errors into ours. All but a lack of memory stick to the context: nothing in it works any more."""
    try:
        yield
    except cuda.MemoryError as err:
        raise DeviceMemoryError(f"the GPU's memory is full: {err}") from err
    except cuda.Error as err:
        raise DeviceLostError(f"CUDA failed: {err}") from err
