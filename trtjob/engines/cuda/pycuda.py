"""CUDA's driver through pycuda, which is built from source.

It ties all that it gives to the thread in which the context was made: what is freed in another stays allocated.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, SupportsInt

import numpy as np
from numpy.typing import DTypeLike, NDArray

from trtjob.engines.cuda.interface import Context, GpuInfo, Memory, Stream, version_of
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError


class PycudaDriver:
    """The driver, initialised. Raises EngineError where there is none, or no GPU."""

    name = "pycuda"

    def __init__(self) -> None:
        try:
            import pycuda.driver as cuda
        except ImportError as err:  # libcuda.so.1 comes with NVIDIA's driver
            raise EngineError(f"CUDA cannot be used: {err}. Install NVIDIA's driver") from err
        try:
            cuda.init()
        except cuda.Error as err:
            raise EngineError(f"CUDA cannot be used: {err}. Does nvidia-smi show a GPU?") from err
        self._cuda = cuda

    def gpus(self) -> list[GpuInfo]:
        with _errors(self._cuda):
            devices = (self._cuda.Device(index) for index in range(self._cuda.Device.count()))
            return [
                GpuInfo(index, device.name(), tuple(device.compute_capability()), device.total_memory())
                for index, device in enumerate(devices)
            ]

    def retain(self, index: int) -> Context:
        with _errors(self._cuda):
            return _Context(self._cuda, self._cuda.Device(index).retain_primary_context())

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        with _errors(self._cuda):
            return np.asarray(self._cuda.pagelocked_empty(shape, dtype))

    def unpin(self, array: NDArray[Any]) -> None:
        """Do nothing: pycuda frees the memory with the array, wherever that happens."""

    def alloc(self, size_bytes: int) -> Memory:
        with _errors(self._cuda):
            memory: Memory = self._cuda.mem_alloc(size_bytes)
            return memory

    def stream(self) -> Stream:
        with _errors(self._cuda):
            return _Stream(self._cuda)

    def memory_bytes(self) -> tuple[int, int]:
        with _errors(self._cuda):
            free, total = self._cuda.mem_get_info()
            return int(free), int(total)

    def synchronize(self) -> None:
        with _errors(self._cuda):
            self._cuda.Context.synchronize()

    def version(self) -> tuple[int, int]:
        return version_of(self._cuda.get_driver_version())


class _Context:
    def __init__(self, cuda: Any, context: Any) -> None:
        self._cuda, self._context = cuda, context

    def push(self) -> None:
        with _errors(self._cuda):
            self._context.push()

    def pop(self) -> None:
        with _errors(self._cuda):
            self._cuda.Context.pop()

    def release(self) -> None:
        with _errors(self._cuda):
            self._context.detach()


class _Stream:
    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._stream = cuda.Stream()
        # Blocking: a thread that spins would take a core from those that decode.
        self._done = cuda.Event(cuda.event_flags.DISABLE_TIMING | cuda.event_flags.BLOCKING_SYNC)

    @property
    def handle(self) -> int:
        return int(self._stream.handle)

    def copy_in(self, device: SupportsInt, host: NDArray[Any]) -> None:
        with _errors(self._cuda):
            self._cuda.memcpy_htod_async(int(device), host, self._stream)

    def copy_within(self, device: SupportsInt, source: SupportsInt, size_bytes: int) -> None:
        with _errors(self._cuda):
            self._cuda.memcpy_dtod_async(int(device), int(source), size_bytes, self._stream)

    def copy_out(self, host: NDArray[Any], device: SupportsInt) -> None:
        with _errors(self._cuda):
            self._cuda.memcpy_dtoh_async(host, int(device), self._stream)

    def mark(self) -> None:
        with _errors(self._cuda):
            self._done.record(self._stream)

    def is_done(self) -> bool:
        with _errors(self._cuda):
            return bool(self._done.query())

    def wait(self) -> None:
        with _errors(self._cuda):
            self._done.synchronize()

    def close(self) -> None:
        # pycuda destroys both with its objects, which must happen where the context is current.
        self._stream = self._done = None


@contextmanager
def _errors(cuda: Any) -> Iterator[None]:
    """Turn CUDA's errors into ours. All but a lack of memory stick to the context: nothing in it works any more."""
    try:
        yield
    except cuda.MemoryError as err:
        raise DeviceMemoryError(f"the GPU's memory is full: {err}") from err
    except cuda.Error as err:
        raise DeviceLostError(f"CUDA failed: {err}") from err
