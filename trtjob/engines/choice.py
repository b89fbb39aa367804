"""Which engine runs where: one worker process for each GPU where TensorRT can be used, else one for the CPU."""

import re
from dataclasses import dataclass
from typing import Literal

from trtjob.errors import ConfigError, TrtjobError

EngineName = Literal["auto", "onnxruntime", "tensorrt"]


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. gpus: one worker process for each, empty for the CPU; reason: a sentence for a person."""

    engine: Literal["onnxruntime", "tensorrt"]
    gpus: tuple[int, ...]
    reason: str


def choose(wish: EngineName, gpus: str) -> Choice:
    """Return the engine and the GPUs to use. gpus: `all`, or numbers such as `0,2`.

    `auto` never fails for want of a GPU or of TensorRT, unless GPUs are named that are not there.
    Raises ConfigError for GPUs that are not there; with `tensorrt`, EngineError or MissingDependencyError where it
    cannot be used.
    """
    if wish == "onnxruntime":
        return Choice("onnxruntime", (), "ONNX Runtime on the CPU, as asked for")
    try:
        from trtjob.engines.tensorrt import cuda
        from trtjob.engines.tensorrt.flavour import flavour

        found = cuda.gpus()
        title = flavour().title
    except TrtjobError as err:
        if wish == "tensorrt":
            raise
        return Choice("onnxruntime", (), f"ONNX Runtime on the CPU: {err}")
    numbers = _numbers(gpus, [gpu.index for gpu in found])
    names = ", ".join(f"GPU {number} ({found[number].name})" for number in numbers)
    return Choice("tensorrt", numbers, f"{title} on {names}")


def _numbers(gpus: str, found: list[int]) -> tuple[int, ...]:
    if gpus == "all":
        return tuple(found)
    if not re.fullmatch(r"\d+(,\d+)*", gpus):
        raise ConfigError(f"--gpus '{gpus}': expected all, or numbers such as 0,2")
    numbers = tuple(dict.fromkeys(int(number) for number in gpus.split(",")))
    if missing := [number for number in numbers if number not in found]:
        raise ConfigError(f"--gpus '{gpus}': there is no GPU {missing[0]}; this machine has {len(found)}, from 0 on")
    return numbers
