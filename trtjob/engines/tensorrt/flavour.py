"""Which TensorRT is installed, and all that its version decides.

The full TensorRT from 8.6 on, or TensorRT-RTX; their Python interfaces are nearly the same. What differs is asked for
by name, never by an enumeration's number: those have moved between versions.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from trtjob.errors import EngineError, MissingDependencyError

OLDEST = {"tensorrt": (8, 6), "tensorrt_rtx": (1, 7)}
PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}

Capability = tuple[int, int]
_NEWEST_CAPABILITY = (99, 0)  # nothing is known that the newest TensorRT does not serve


@dataclass(frozen=True, slots=True)
class Era:
    """Versions of TensorRT that serve the same GPUs. lowest, highest: compute capability."""

    first: tuple[int, int]
    last: str
    lowest: Capability
    highest: Capability

    def serves(self, capability: Capability) -> bool:
        """Tell whether these versions run on GPUs of a compute capability; within a generation all of them do."""
        return self.lowest <= capability and capability[0] <= self.highest[0]

    def __str__(self) -> str:
        lowest = f"{self.lowest[0]}.{self.lowest[1]}"
        return f"{lowest} or later" if self.highest == _NEWEST_CAPABILITY else f"{lowest} to {self.highest[0]}.x"


# From the machine code that the libraries hold and from NVIDIA's release notes; docs/gpu.md says of which which.
ERAS = (
    Era((8, 6), "8.6", (6, 0), (9, 0)),
    Era((10, 0), "10.4", (7, 0), (9, 0)),
    Era((10, 5), "10.7", (7, 5), (9, 0)),
    Era((10, 8), "", (7, 5), _NEWEST_CAPABILITY),
)
# TensorRT-RTX leaves out the GPUs of data centres, which lie between.
_RTX_ERAS = (Era((1, 7), "", (8, 0), (8, 9)), Era((1, 7), "", (12, 0), (12, 9)))


@dataclass(frozen=True, slots=True)
class Flavour:
    """An installed TensorRT. name: of its module; trt: the module itself, which has no types."""

    name: str
    version: str
    trt: Any

    @property
    def title(self) -> str:
        """Return what to call it before a person: the two are never to be confused."""
        return f"{'TensorRT' if self.name == 'tensorrt' else 'TensorRT-RTX'} {self.version}"

    @property
    def release(self) -> tuple[int, int]:
        """Return the major and the minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)

    @property
    def is_weakly_typed(self) -> bool:
        """Tell whether networks are weakly typed (8.6): flags, not the graph, say which precisions a layer may have."""
        return not hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def network_flags(self) -> int:
        """Return the flags of a network whose types are those of its graph, as far as it knows types at all."""
        flags = self.trt.NetworkDefinitionCreationFlag
        return 1 << int(flags.EXPLICIT_BATCH if self.is_weakly_typed else flags.STRONGLY_TYPED)

    @property
    def has_monitor(self) -> bool:
        """Tell whether a build says how it goes on, and can be stopped from within."""
        return hasattr(self.trt, "IProgressMonitor")

    @property
    def keeps_timing_cache(self) -> bool:
        """Tell whether a build's timing cache, what it has learnt of kernels, is for the next one.

        TensorRT-RTX compiles its kernels where it runs; 8.6 fails now and then with a cache of another model ("Myelin
        error").
        """
        return self.name == "tensorrt" and not self.is_weakly_typed

    @property
    def reads_old_opsets_only(self) -> bool:
        """Tell whether the parser takes a newer opset for the one it knows, without a word: graphs are lowered."""
        return self.is_weakly_typed

    def expect_gpu(self, gpu_name: str, capability: Capability) -> None:
        """Raise EngineError where a GPU is older, or newer, than this TensorRT serves; say which version does."""
        eras = eras_of(self)
        if any(era.serves(capability) for era in eras):
            return
        served = " and ".join(map(str, eras))
        raise EngineError(f"{_shown(gpu_name, capability)}: {self.title} serves {served}. {_advice(capability)}")


def expect_default(gpu_name: str, capability: Capability) -> None:
    """Raise EngineError where a GPU is none for the newest TensorRT, which pip installs; say which version is for it.

    For a machine without TensorRT.
    """
    if not ERAS[-1].serves(capability):
        raise EngineError(f"it is not installed. {_shown(gpu_name, capability)}. {_advice(capability)}")


def _shown(gpu_name: str, capability: Capability) -> str:
    return f"{gpu_name} has compute capability {'.'.join(map(str, capability))}"


def eras_of(found: Flavour) -> tuple[Era, ...]:
    """Return the eras of a package, the newest first."""
    if found.name != "tensorrt":
        return _RTX_ERAS
    return (next(era for era in reversed(ERAS) if era.first <= found.release),)


def _advice(capability: Capability) -> str:
    fitting = [era for era in ERAS if era.serves(capability)]
    if not fitting:
        return "No TensorRT from 8.6 on does: run it with --engine cpu"
    first = ".".join(map(str, fitting[0].first))
    last = fitting[-1].last
    span = first if last == first else f"{first} to {last}" if last else f"{first} or later"
    return f"Install TensorRT {span}, or run it with --engine cuda; docs/gpu.md has the table of versions and cards"


@cache
def flavour() -> Flavour:
    """Return the full TensorRT where it is installed, else TensorRT-RTX.

    Raises MissingDependencyError where there is neither, EngineError where the one there is too old or does not load.
    """
    for name in OLDEST:
        try:
            trt = import_module(name)
        except ModuleNotFoundError as err:
            if err.name != name:
                raise EngineError(f"{PACKAGES[name]} is installed only in part: {err}. Install it again") from err
            continue
        except ImportError as err:  # a library that it is linked to is not there
            raise EngineError(f"{PACKAGES[name]} is installed but does not load: {err}. Install it again") from err
        return checked(Flavour(name, trt.__version__, trt))
    raise MissingDependencyError("tensorrt", extra="tensorrt")


def checked(found: Flavour) -> Flavour:
    """Return a package that is known. Raises EngineError for one that is too old."""
    oldest = OLDEST[found.name]
    if found.release < oldest:
        wanted = ".".join(map(str, oldest))
        raise EngineError(
            f"{found.title} is too old: trtjob needs {wanted} or later. "
            f"Install it with: pip install '{PACKAGES[found.name]}>={wanted}'. "
            "Which version serves which card is a table in docs/gpu.md"
        )
    return found
