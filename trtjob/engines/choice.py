"""Which engine runs where: one worker process for each GPU where one can be used, else one for the CPU."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtjob.errors import ConfigError, EngineError, MissingDependencyError, TrtjobError

if TYPE_CHECKING:
    from trtjob.engines.cuda.driver import GpuInfo

EngineKind = Literal["tensorrt", "cuda", "cpu"]
EngineWish = Literal["auto", "tensorrt", "cuda", "cpu"]

# On a GPU, the first that can be used is the one to take (decision 20).
ON_GPU: tuple[EngineKind, ...] = ("tensorrt", "cuda")
TITLES = {"tensorrt": "TensorRT", "cuda": "ONNX Runtime on CUDA", "cpu": "ONNX Runtime on the CPU"}
_NO_DRIVER = "no NVIDIA driver is installed (there is no libcuda.so.1)"
_WITHOUT_NAMES = "Take all that are there: --gpus all (TRTJOB_GPUS=all)"


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. gpus: one worker process for each, empty for the CPU; reason: a sentence for a person.

    is_wanting: whether there is a GPU that cannot be used.
    """

    engine: EngineKind
    gpus: tuple[int, ...]
    reason: str
    is_wanting: bool = False


def choose(wish: EngineWish, gpus: str) -> Choice:
    """Return the engine and the GPUs to use. gpus: `all`, or numbers such as `0,2`.

    `auto` takes TensorRT, else CUDA, else the CPU, and never fails for want of a GPU or of a package, unless GPUs are
    named that are not there. The CPU, asked for, looks at no GPU.
    Raises ConfigError for GPUs that are not there, and always for what names none; where an engine is asked for that
    cannot be used, EngineError or MissingDependencyError.
    """
    from trtjob.engines.cuda.driver import has_driver
    from trtjob.engines.cuda.survey import survey

    named = _named(gpus)
    if wish == "cpu":
        return Choice("cpu", (), f"{TITLES['cpu']}, as asked for")
    if not has_driver():
        if wish != "auto":
            raise EngineError(
                f"{TITLES[wish]} cannot be used: {_NO_DRIVER}. Install it, or run on the CPU: --engine cpu"
            )
        if named:
            raise ConfigError(f"--gpus '{gpus}': there is no GPU {named[0]}: {_NO_DRIVER}. {_WITHOUT_NAMES}")
        return Choice("cpu", (), f"{TITLES['cpu']}: {_NO_DRIVER}")
    problems: list[str] = []
    for engine in ON_GPU if wish == "auto" else (wish,):
        try:
            return _on_gpus(engine, gpus, problems)
        except ConfigError:
            raise
        except TrtjobError as err:
            if wish != "auto":
                raise
            problems.append(f"{TITLES[engine]}: {err}")
    if named:
        # Of CUDA's driver alone: an engine may have failed before it asked for the GPUs.
        _numbers(gpus, [gpu.index for gpu in survey().gpus])
    return Choice("cpu", (), f"{TITLES['cpu']}, though NVIDIA's driver is installed. {'. '.join(problems)}", True)


def _on_gpus(engine: EngineKind, gpus: str, problems: list[str]) -> Choice:
    """Return the choice of an engine. problems: of those that would have come first."""
    from trtjob.engines import cuda

    title = _usable(engine)
    found = cuda.gpus()
    numbers = _numbers(gpus, [gpu.index for gpu in found])
    _expect_served(engine, [found[number] for number in numbers])
    names = ", ".join(f"GPU {number} ({found[number].name})" for number in numbers)
    return Choice(engine, numbers, ". ".join([f"{title} on {names}", *problems]))


def _usable(engine: EngineKind) -> str:
    """Return an engine's name and version. Raises EngineError, MissingDependencyError."""
    if engine == "tensorrt":
        return _tensorrt()
    from trtjob.engines.onnxruntime.cuda import check_usable

    return check_usable()


def _tensorrt() -> str:
    from trtjob.engines.cuda.survey import survey
    from trtjob.engines.tensorrt.flavour import expect_default, flavour

    try:
        return flavour().title
    except MissingDependencyError:
        for gpu in survey().gpus:
            expect_default(gpu.name, gpu.compute_capability)
        raise


def _expect_served(engine: EngineKind, gpus: "Sequence[GpuInfo]") -> None:
    """Raise EngineError where one of the GPUs is none for what is installed."""
    if engine == "tensorrt":
        from trtjob.engines.tensorrt.plans import gpu_of

        for gpu in gpus:
            gpu_of(gpu.name, gpu.compute_capability)
        return
    from trtjob.engines.onnxruntime.cuda import check_usable

    check_usable(gpus)


def _named(gpus: str) -> tuple[int, ...]:
    """Return the numbers that a setting names, each once; none for `all`. Raises ConfigError."""
    if gpus == "all":
        return ()
    if not re.fullmatch(r"[0-9]+(,[0-9]+)*", gpus):
        raise ConfigError(f"--gpus '{gpus}': expected all, or numbers such as 0,2")
    return tuple(dict.fromkeys(int(number) for number in gpus.split(",")))


def _numbers(gpus: str, found: list[int]) -> tuple[int, ...]:
    numbers = _named(gpus) or tuple(found)
    if missing := [number for number in numbers if number not in found]:
        there = f"this machine has {len(found)}, from 0 on" if found else "this machine has none"
        raise ConfigError(f"--gpus '{gpus}': there is no GPU {missing[0]}; {there}. {_WITHOUT_NAMES}")
    return numbers
