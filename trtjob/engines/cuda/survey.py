"""What CUDA's driver says of this machine's GPUs, asked without any Python package.

For advice on what to install, and for where GPUs are. `python -m trtjob.engines.cuda.survey` prints them as JSON.
"""

import ctypes
import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from trtjob.child_environment import environment, python
from trtjob.engines.cuda.interface import GpuInfo, version_of

# Values of the driver's interface, cuda.h.
_SUCCESS, _NO_DEVICE = 0, 100
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256
_BUS_ID_BYTES = 32
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class SurveyedGpu(GpuInfo):
    """A GPU with its place, each empty where the driver does not say.

    visible_as: what CUDA_VISIBLE_DEVICES calls it, GPU-... or MIG-..., whatever its number; pci_bus_id: such as
    0000:3B:00.0.
    """

    visible_as: str = ""
    pci_bus_id: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What the driver says. cuda: the newest CUDA that it runs, (0, 0) where there is no driver.

    problem: why a driver that is installed names no GPU; empty where it just has none.
    """

    gpus: Sequence[SurveyedGpu] = ()
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


def survey_alone(name: str) -> SurveyedGpu | None:
    """Return the GPU that a process sees to which only this one is visible; None where it sees none.

    Of the parts of GPUs (MIG), a process sees no more than one. name: as CUDA_VISIBLE_DEVICES takes it.
    """
    answer = subprocess.run(
        python("-m", "trtjob.engines.cuda.survey"),
        env=environment({"CUDA_VISIBLE_DEVICES": name}),
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=True,
    )
    for found in json.loads(answer.stdout):
        return SurveyedGpu(**found | {"compute_capability": tuple(found["compute_capability"])})
    return None


def _gpu(library: ctypes.CDLL, index: int) -> SurveyedGpu:
    device = _number(library.cuDeviceGet, index)
    name, memory_bytes = ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    _done(library.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    _done(library.cuDeviceTotalMem_v2(ctypes.byref(memory_bytes), device), "cuDeviceTotalMem_v2")
    capability = (
        _number(library.cuDeviceGetAttribute, _CAPABILITY_MAJOR, device),
        _number(library.cuDeviceGetAttribute, _CAPABILITY_MINOR, device),
    )
    title = name.value.decode(errors="replace")
    return SurveyedGpu(
        index, title, capability, memory_bytes.value, _visible_as(library, device, title), _bus_id(library, device)
    )


def _visible_as(library: ctypes.CDLL, device: int, title: str) -> str:
    """Return a GPU's name for CUDA_VISIBLE_DEVICES; a part of one has MIG in its title."""
    uuid = ctypes.create_string_buffer(16)
    try:
        code = library.cuDeviceGetUuid_v2(uuid, device)
    except AttributeError:  # before CUDA 11.4
        return ""
    return "" if code else f"{'MIG' if ' MIG ' in f'{title} ' else 'GPU'}-{UUID(bytes=uuid.raw)}"


def _bus_id(library: ctypes.CDLL, device: int) -> str:
    bus_id = ctypes.create_string_buffer(_BUS_ID_BYTES)
    code = library.cuDeviceGetPCIBusId(bus_id, _BUS_ID_BYTES, device)
    return "" if code else bus_id.value.decode(errors="replace")


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


if __name__ == "__main__":
    print(json.dumps([asdict(gpu) for gpu in survey().gpus]))  # noqa: T201 - for `survey_alone`
