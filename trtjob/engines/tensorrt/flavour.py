"""Which TensorRT is installed: the full one, or TensorRT-RTX, whose Python interface is nearly the same."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from trtjob.errors import EngineError, MissingDependencyError

OLDEST = {"tensorrt": (11, 0), "tensorrt_rtx": (1, 7)}
PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx-cu13"}


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
        return _checked(Flavour(name, trt.__version__, trt))
    raise MissingDependencyError("tensorrt", extra="tensorrt")


def _checked(found: Flavour) -> Flavour:
    oldest = OLDEST[found.name]
    if tuple(map(int, found.version.split(".")[:2])) < oldest:
        wanted = ".".join(map(str, oldest))
        raise EngineError(
            f"{found.title} is too old: trtjob needs {wanted} or later, where a network's precision is in its graph. "
            f"Install it with: pip install '{PACKAGES[found.name]}>={wanted}'"
        )
    return found
