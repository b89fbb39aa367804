"""What CUDA's driver says of this machine's GPUs, asked without any Python package: for advice on what to install."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

from trtjob.engines.cuda.driver import GpuInfo, version_of

# Values of the driver's interface, cuda.h.
_SUCCESS, _NO_DEVICE = 0, 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Survey:
    """What the driver says. cuda: the newest CUDA that it runs, (0, 0) where there is no driver.

    problem: why a driver that is installed names no GPU; empty where it just has none.
    """

    gpus: Sequence[GpuInfo] = ()
    cuda: tuple[int, int] = (0, 0)
    problem: str = ""


def survey() -> Survey:
    """Ask the driver that is installed; never raises."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Survey()
    try:
        cuda = version_of(_number(library.cuDriverGetVersion))
        if code := library.cuInit(0):
            return Survey((), cuda, "" if code == _NO_DEVICE else error_text(library, code))
        count = _number(library.cuDeviceGetCount)
        return Survey([_gpu(library, index) for index in range(count)], cuda)
    except (AttributeError, OSError) as err:  # a function that this driver has not, or one that fails
        return Survey((), (0, 0), f"libcuda.so.1 does not answer: {err}")


def _gpu(library: ctypes.CDLL, index: int) -> GpuInfo:
    device = _number(library.cuDeviceGet, index)
    name, memory_bytes = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    _done(library.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    _done(library.cuDeviceTotalMem_v2(ctypes.byref(memory_bytes), device), "cuDeviceTotalMem_v2")
    capability = (
        _number(library.cuDeviceGetAttribute, _CAPABILITY_MAJOR, device),
        _number(library.cuDeviceGetAttribute, _CAPABILITY_MINOR, device),
    )
    return GpuInfo(index, name.value.decode(errors="replace"), capability, memory_bytes.value)


def _number(function: "ctypes._NamedFuncPointer", *arguments: int) -> int:
    """Return the int that a function of the driver writes through its first argument."""
    number = ctypes.c_int()
    _done(function(ctypes.byref(number), *arguments), function.__name__)
    return number.value


def _done(code: int, name: str) -> None:
    if code != _SUCCESS:
        raise OSError(f"{name} gives error {code}")


def error_text(library: ctypes.CDLL, code: int) -> str:
    """Return the driver's words for an error of its own."""
    text = ctypes.c_char_p()
    library.cuGetErrorString(code, ctypes.byref(text))
    return (text.value or b"an unknown error").decode(errors="replace") + f" (CUDA error {code})"
