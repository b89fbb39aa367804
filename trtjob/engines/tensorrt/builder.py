"""Build a plan from a model: once for each kind of GPU, which takes from seconds to minutes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trtjob.engines.spec import INPUT_NAME
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.messages import logger
from trtjob.errors import ConfigError, EngineError

log = logging.getLogger(__name__)

# Called with a phase, the steps it has done and how many it has; False stops the build.
BuildProgress = Callable[[str, int, int], bool]


class BuildCancelled(Exception):
    """The build was stopped by its progress callback."""


@dataclass(frozen=True, slots=True)
class BatchProfile:
    """Batch sizes that a plan accepts, and the one that it is made fast for."""

    smallest: int = 1
    best: int = 8
    largest: int = 32

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest:
            raise ConfigError(f"batch sizes {self}: expected 1 <= smallest <= best <= largest, such as 1:8:32")

    def __str__(self) -> str:
        return f"{self.smallest}:{self.best}:{self.largest}"

    def halved(self) -> "BatchProfile":
        """Return the same with half of the largest batch; it must not be 1."""
        largest = self.largest // 2
        return BatchProfile(min(self.smallest, largest), min(self.best, largest), largest)

    @classmethod
    def parse(cls, text: str) -> "BatchProfile":
        """Return the profile of `1:8:32`, or of `8`, for batches of up to 8. Raises ConfigError."""
        try:
            sizes = [int(part) for part in text.split(":")]
        except ValueError as err:
            raise ConfigError(f"batch sizes '{text}': expected whole numbers, such as 1:8:32") from err
        if len(sizes) == 1:
            sizes = [1, sizes[0], sizes[0]]
        if len(sizes) != 3:
            raise ConfigError(f"batch sizes '{text}': expected smallest:best:largest, such as 1:8:32")
        return cls(*sizes)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How to build. workspace_mib: the memory that a layer may borrow; None: all. optimization_level: 0 to 5."""

    profile: BatchProfile = field(default_factory=BatchProfile)
    workspace_mib: int | None = None
    optimization_level: int = 3


@dataclass(frozen=True, slots=True)
class Built:
    """plan: the bytes to keep; timing_cache: what was learnt of the GPU's kernels, for the next build."""

    plan: bytes
    timing_cache: bytes


def build_plan(
    model: Path, options: BuildOptions, *, timing_cache: bytes = b"", on_progress: BuildProgress | None = None
) -> Built:
    """Build a plan of one of our ONNX models for the GPU at hand.

    Raises EngineError with the parser's or the builder's reasons, BuildCancelled where `on_progress` said False.
    """
    trt = flavour().trt
    trt_logger, messages = logger()
    messages.take()
    builder = trt.Builder(trt_logger)
    network = builder.create_network(0)
    _parse(model, network)
    config = _config(builder, network, options)
    is_learning = flavour().name == "tensorrt"  # TensorRT-RTX compiles its kernels where it runs
    if is_learning and not config.set_timing_cache(config.create_timing_cache(timing_cache), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)  # of another GPU: learnt anew
    watch = _Watch(on_progress)
    config.progress_monitor = watch.monitor
    plan = builder.build_serialized_network(network, config)
    if watch.is_cancelled:
        raise BuildCancelled
    if plan is None:
        raise EngineError(f"{flavour().title} cannot build '{model.name}': {messages.take()}")
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()) if is_learning else b"")


def _parse(model: Path, network: Any) -> None:
    trt = flavour().trt
    trt_logger, messages = logger()
    parser = trt.OnnxParser(network, trt_logger)
    if parser.parse_from_file(str(model)):
        return
    errors = [_error_text(parser.get_error(index)) for index in range(parser.num_errors)]
    raise EngineError(f"{flavour().title} cannot read '{model.name}': {'; '.join(errors) or messages.take()}")


def _error_text(error: Any) -> str:
    node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_operator() else ""
    return node + " ".join(error.desc().split())


def _config(builder: Any, network: Any, options: BuildOptions) -> Any:
    trt = flavour().trt
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    sizes = options.profile
    for index in range(network.num_inputs):
        value = network.get_input(index)
        if value.name != INPUT_NAME:
            raise EngineError(f"the model takes '{value.name}': expected '{INPUT_NAME}' alone. Convert it again")
        rest = tuple(value.shape)[1:]
        profile.set_shape(value.name, *((batch, *rest) for batch in (sizes.smallest, sizes.best, sizes.largest)))
    # Neither says no: a profile that cannot be is false, and adding it gives -1.
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{flavour().title} refuses batches of {sizes}: {logger()[1].take()}")
    return config


class _Watch:
    """Passes a build's progress on; TensorRT calls it from threads of its own."""

    def __init__(self, on_progress: BuildProgress | None) -> None:
        base: Any = flavour().trt.IProgressMonitor
        watch = self
        self.is_cancelled = False
        self._on_progress = on_progress
        self._steps: dict[str, int] = {}

        class Monitor(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
                watch._steps[phase] = steps

            def step_complete(self, phase: str, step: int) -> bool:
                return watch._tell(phase, step + 1)

            def phase_finish(self, phase: str) -> None:
                watch._steps.pop(phase, None)

        self.monitor = Monitor()

    def _tell(self, phase: str, done: int) -> bool:
        if self._on_progress is not None and not self._on_progress(phase, done, self._steps.get(phase, 0)):
            self.is_cancelled = True
        return not self.is_cancelled
