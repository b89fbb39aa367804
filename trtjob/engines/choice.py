"""Which engine runs where: one worker process for each GPU where one can be used, else one for the CPU."""

import re
from dataclasses import dataclass
from typing import Literal

from trtjob.errors import ConfigError, EngineError, TrtjobError

EngineKind = Literal["tensorrt", "cuda", "cpu"]
EngineWish = Literal["auto", "tensorrt", "cuda", "cpu"]

# On a GPU, the first that can be used is the one to take (decision 20).
ON_GPU: tuple[EngineKind, ...] = ("tensorrt", "cuda")
TITLES = {"tensorrt": "TensorRT", "cuda": "ONNX Runtime on CUDA", "cpu": "ONNX Runtime on the CPU"}
_NO_DRIVER = "no NVIDIA driver is installed (there is no libcuda.so.1)"


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
    named that are not there.
    Raises ConfigError for GPUs that are not there; where an engine is asked for that cannot be used, EngineError or
    MissingDependencyError.
    """
    from trtjob.engines.cuda.driver import has_driver

    if wish == "cpu":
        return Choice("cpu", (), f"{TITLES['cpu']}, as asked for")
    if not has_driver():
        if wish == "auto":
            return Choice("cpu", (), f"{TITLES['cpu']}: {_NO_DRIVER}")
        raise EngineError(f"{TITLES[wish]} cannot be used: {_NO_DRIVER}. Install it, or run on the CPU: --engine cpu")
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
    return Choice("cpu", (), f"{TITLES['cpu']}, though NVIDIA's driver is installed. {'. '.join(problems)}", True)


def _on_gpus(engine: EngineKind, gpus: str, problems: list[str]) -> Choice:
    """Return the choice of an engine. problems: of those that would have come first."""
    from trtjob.engines import cuda

    title = _usable(engine)
    found = cuda.gpus()
    numbers = _numbers(gpus, [gpu.index for gpu in found])
    if engine == "tensorrt":
        from trtjob.engines.tensorrt.plans import gpu_of

        for number in numbers:
            gpu_of(found[number].name, found[number].compute_capability)
    names = ", ".join(f"GPU {number} ({found[number].name})" for number in numbers)
    return Choice(engine, numbers, ". ".join([f"{title} on {names}", *problems]))


def _usable(engine: EngineKind) -> str:
    """Return an engine's name and version. Raises EngineError, MissingDependencyError."""
    if engine == "tensorrt":
        from trtjob.engines.tensorrt.flavour import flavour

        return flavour().title
    from trtjob.engines.onnxruntime.cuda import check_usable

    return check_usable()


def _numbers(gpus: str, found: list[int]) -> tuple[int, ...]:
    if gpus == "all":
        return tuple(found)
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise ConfigError(f"--gpus '{gpus}': expected all, or numbers such as 0,2")
    numbers = tuple(dict.fromkeys(int(number) for number in gpus.split(",")))
    if missing := [number for number in numbers if number not in found]:
        raise ConfigError(f"--gpus '{gpus}': there is no GPU {missing[0]}; this machine has {len(found)}, from 0 on")
    return numbers
