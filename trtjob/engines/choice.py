"""Which engine runs where: one worker process for each GPU where one can be used, else one for the CPU."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtjob.errors import ConfigError, EngineError, MissingDependencyError, TrtjobError

if TYPE_CHECKING:
    from trtjob.engines.cuda.interface import GpuInfo
    from trtjob.engines.cuda.survey import SurveyedGpu

EngineKind = Literal["tensorrt", "cuda", "cpu"]
EngineRequest = Literal["auto", "tensorrt", "cuda", "cpu"]

# On a GPU, the first that can be used is the one to take (decision 20).
ON_GPU: tuple[EngineKind, ...] = ("tensorrt", "cuda")
TITLES = {"tensorrt": "TensorRT", "cuda": "ONNX Runtime on CUDA", "cpu": "ONNX Runtime on the CPU"}
_NO_DRIVER = "no NVIDIA driver is installed (there is no libcuda.so.1)"
_NAME = "(?:[0-9]+|(?:GPU|MIG)-[0-9A-Za-z/-]+)"
_WITHOUT_NAMES = "Take all that are there: --gpus all (TRTJOB_GPUS=all)"


@dataclass(frozen=True, slots=True)
class ChosenGpu:
    """A GPU to use. called: what people call it, such as GPU 0; place: where it is.

    is_here: whether this process sees it, under the number of its place. Of the parts of GPUs (MIG) a process sees one.
    """

    called: str
    place: "SurveyedGpu"
    is_here: bool = True

    @property
    def number(self) -> int:
        """The GPU's number in this process. Raises ConfigError where it is not here."""
        if not self.is_here:
            raise ConfigError(
                f"{self.called} cannot be used beside another part of a GPU in one process. "
                f"Show it that one alone: CUDA_VISIBLE_DEVICES={self.called}"
            )
        return self.place.index


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen. gpus: one worker process for each, empty for the CPU; reason: a sentence for a person.

    is_wanting: whether there is a GPU that cannot be used.
    """

    engine: EngineKind
    gpus: tuple[ChosenGpu, ...]
    reason: str
    is_wanting: bool = False


def choose(wish: EngineRequest, gpus: str) -> Choice:
    """Return the engine and the GPUs to use. gpus: `all`, numbers such as `0,2`, or names such as `GPU-1a2b3c4d`.

    CUDA_VISIBLE_DEVICES says which GPUs there are, as it does for every program.

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
        # By CUDA's driver alone: an engine may have failed before it asked for the GPUs.
        chosen_gpus(gpus, survey().gpus)
    return Choice("cpu", (), f"{TITLES['cpu']}, though NVIDIA's driver is installed. {'. '.join(problems)}", True)


def _on_gpus(engine: EngineKind, gpus: str, problems: list[str]) -> Choice:
    """Return the choice of an engine. problems: of those that would have come first."""
    from trtjob.engines.cuda.device import gpus as seen_gpus
    from trtjob.engines.cuda.survey import survey

    title = _usable(engine)
    seen_gpus()  # the package that the engine uses must see them, too
    chosen = chosen_gpus(gpus, survey().gpus)
    _expect_served(engine, [gpu.place for gpu in chosen])
    names = ", ".join(f"{gpu.called} ({gpu.place.name})" for gpu in chosen)
    return Choice(engine, chosen, ". ".join([f"{title} on {names}", *problems]))


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
        from trtjob.engines.tensorrt.flavour import flavour

        for gpu in gpus:
            flavour().expect_gpu(gpu.name, gpu.compute_capability)
        return
    from trtjob.engines.onnxruntime.cuda import check_usable

    check_usable(gpus)


def _named(gpus: str) -> tuple[str, ...]:
    """Return the numbers and names in a setting, each once; none for `all`. Raises ConfigError."""
    if gpus == "all":
        return ()
    if not re.fullmatch(rf"{_NAME}(,{_NAME})*", gpus):
        raise ConfigError(f"--gpus '{gpus}': expected all, numbers such as 0,2, or names such as GPU-1a2b3c4d")
    return tuple(dict.fromkeys(gpus.split(",")))


def chosen_gpus(gpus: str, seen: "Sequence[SurveyedGpu]") -> tuple[ChosenGpu, ...]:
    """Return the GPUs that a setting names, of those that this process sees, and of the parts that it may show to
    others."""
    from trtjob.config import visible_gpus

    parts = tuple(name for name in visible_gpus() if name.startswith("MIG-"))
    names = _named(gpus)
    if len(parts) > 1:
        names = tuple(dict.fromkeys(_part_called(name, gpus, parts) for name in names)) or parts
    if not names:
        return tuple(ChosenGpu(f"GPU {gpu.index}", gpu) for gpu in seen)
    return tuple(_found(name, gpus, seen) for name in names)


def _part_called(name: str, gpus: str, parts: Sequence[str]) -> str:
    """Return the name of a part of a GPU, by its place among those that CUDA_VISIBLE_DEVICES names, or as it is."""
    if not name.isdecimal():
        return name
    if int(name) >= len(parts):
        there = f"CUDA_VISIBLE_DEVICES names {len(parts)}, from 0 on"
        raise ConfigError(f"--gpus '{gpus}': there is no GPU {name}; {there}. {_WITHOUT_NAMES}")
    return parts[int(name)]


def _found(name: str, gpus: str, seen: "Sequence[SurveyedGpu]") -> ChosenGpu:
    if name.isdecimal():
        if found := [gpu for gpu in seen if gpu.index == int(name)]:
            return ChosenGpu(f"GPU {int(name)}", found[0])
        there = f"this machine has {len(seen)}, from 0 on" if seen else "this machine has none"
        raise ConfigError(f"--gpus '{gpus}': there is no GPU {name}; {there}. {_WITHOUT_NAMES}")
    if found := [gpu for gpu in seen if gpu.visible_as.startswith(name)]:
        if len(found) == 1:
            return ChosenGpu(f"GPU {found[0].index}" if name.startswith("GPU-") else name, found[0])
        raise ConfigError(f"--gpus '{gpus}': more than one GPU is called {name}... Write more of its name")
    part = _part(name)
    if part is None:
        there = ", ".join(gpu.visible_as for gpu in seen) or "none"
        raise ConfigError(f"--gpus '{gpus}': there is no GPU {name}; this machine has {there}. {_WITHOUT_NAMES}")
    return ChosenGpu(name, part, is_here=False)


def _part(name: str) -> "SurveyedGpu | None":
    """Return a part of a GPU that another process can see, if this one may show it."""
    from trtjob.config import visible_gpus
    from trtjob.engines.cuda.survey import survey_alone

    visible = visible_gpus()
    is_shown = not visible or name in visible
    return survey_alone(name) if name.startswith("MIG-") and is_shown else None
