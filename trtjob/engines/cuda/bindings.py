"""CUDA's driver through NVIDIA's own cuda-bindings, which come as wheels."""

import math
import mmap
from dataclasses import dataclass
from typing import Any, SupportsInt

import numpy as np
from cuda.bindings import driver as cuda
from numpy.typing import DTypeLike, NDArray

from trtjob.engines.cuda.interface import Context, GpuInfo, Memory, Stream, version_of
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError

_NAME_BYTES = 256


class BindingsDriver:
    """The driver, initialised. Raises EngineError where there is none, or no GPU."""

    name = "cuda-bindings"

    def __init__(self) -> None:
        try:
            (code,) = cuda.cuInit(0)
        except Exception as err:  # its class depends on the package's version
            reason = " ".join(str(err).split())
            raise EngineError(f"CUDA cannot be used: {reason}. Install NVIDIA's driver") from err
        if code != cuda.CUresult.CUDA_SUCCESS:
            raise EngineError(f"CUDA cannot be used: {_text(code)}. Does nvidia-smi show a GPU?")

    def gpus(self) -> list[GpuInfo]:
        return [_info(index) for index in range(_done(cuda.cuDeviceGetCount()))]

    def retain(self, index: int) -> Context:
        device = _done(cuda.cuDeviceGet(index))
        _, is_active = _done(cuda.cuDevicePrimaryCtxGetState(device))
        if not is_active:
            # Else a thread in which a library waits for the GPU would spin, on a core that could decode images.
            _done(cuda.cuDevicePrimaryCtxSetFlags(device, cuda.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC))
        return _Context(device, _done(cuda.cuDevicePrimaryCtxRetain(device)))

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        size_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        # Pages of its own: page-locking is by the page, and no two ranges may share one.
        flat = np.frombuffer(mmap.mmap(-1, max(size_bytes, 1)), np.uint8)[:size_bytes]
        _done(cuda.cuMemHostRegister(flat.ctypes.data, max(size_bytes, 1), cuda.CU_MEMHOSTREGISTER_PORTABLE))
        return flat.view(dtype).reshape(shape)

    def unpin(self, array: NDArray[Any]) -> None:
        _done(cuda.cuMemHostUnregister(array.ctypes.data))

    def alloc(self, size_bytes: int) -> Memory:
        return _Memory(int(_done(cuda.cuMemAlloc(size_bytes))))

    def stream(self) -> Stream:
        return _Stream()

    def memory_bytes(self) -> tuple[int, int]:
        free, total = _done(cuda.cuMemGetInfo())
        return int(free), int(total)

    def synchronize(self) -> None:
        _done(cuda.cuCtxSynchronize())

    def version(self) -> tuple[int, int]:
        return version_of(int(_done(cuda.cuDriverGetVersion())))


def _info(index: int) -> GpuInfo:
    device = _done(cuda.cuDeviceGet(index))
    name = _done(cuda.cuDeviceGetName(_NAME_BYTES, device)).split(b"\0")[0].decode()
    of = cuda.CUdevice_attribute
    major = _done(cuda.cuDeviceGetAttribute(of.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device))
    minor = _done(cuda.cuDeviceGetAttribute(of.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device))
    return GpuInfo(index, name, (int(major), int(minor)), int(_done(cuda.cuDeviceTotalMem(device))))


@dataclass(frozen=True, slots=True)
class _Context:
    device: Any
    context: Any

    def push(self) -> None:
        _done(cuda.cuCtxPushCurrent(self.context))

    def pop(self) -> None:
        _done(cuda.cuCtxPopCurrent())

    def release(self) -> None:
        _done(cuda.cuDevicePrimaryCtxRelease(self.device))


@dataclass(frozen=True, slots=True)
class _Memory:
    address: int

    def __int__(self) -> int:
        return self.address

    def free(self) -> None:
        _done(cuda.cuMemFree(self.address))


class _Stream:
    def __init__(self) -> None:
        self._stream = _done(cuda.cuStreamCreate(cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
        # Blocking: a thread that spins would take a core from those that decode.
        flags = cuda.CUevent_flags
        self._event = _done(cuda.cuEventCreate(flags.CU_EVENT_DISABLE_TIMING | flags.CU_EVENT_BLOCKING_SYNC))
        self.handle = int(self._stream)

    def copy_in(self, device: SupportsInt, host: NDArray[Any]) -> None:
        _done(cuda.cuMemcpyHtoDAsync(int(device), host.ctypes.data, host.nbytes, self._stream))

    def copy_within(self, device: SupportsInt, source: SupportsInt, size_bytes: int) -> None:
        _done(cuda.cuMemcpyDtoDAsync(int(device), int(source), size_bytes, self._stream))

    def copy_out(self, host: NDArray[Any], device: SupportsInt) -> None:
        _done(cuda.cuMemcpyDtoHAsync(host.ctypes.data, int(device), host.nbytes, self._stream))

    def mark(self) -> None:
        _done(cuda.cuEventRecord(self._event, self._stream))

    def is_done(self) -> bool:
        (code,) = cuda.cuEventQuery(self._event)
        if code == cuda.CUresult.CUDA_ERROR_NOT_READY:
            return False
        _done((code,))
        return True

    def wait(self) -> None:
        _done(cuda.cuEventSynchronize(self._event))

    def close(self) -> None:
        _done(cuda.cuEventDestroy(self._event))
        _done(cuda.cuStreamDestroy(self._stream))


def _done(answer: tuple[Any, ...]) -> Any:
    """Return what a call gave, one value or several. All errors but a lack of memory stick to the context."""
    code, *values = answer
    if code == cuda.CUresult.CUDA_SUCCESS:
        return values[0] if len(values) == 1 else tuple(values)
    if code == cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise DeviceMemoryError(f"the GPU's memory is full: {_text(code)}")
    raise DeviceLostError(f"CUDA failed: {_text(code)}")


def _text(code: Any) -> str:
    failed, text = cuda.cuGetErrorString(code)
    return str(code) if text is None or int(failed) else f"{code.name}: {text.decode()}"
