"""Build a plan from a model: once for each kind of GPU, which takes from seconds to minutes."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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
    best: int = 32
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
    """How to build. workspace_mib: the memory that a layer may borrow; None: all. optimization_level: 0 to 5.

    tf32: whether float32 may be multiplied with 10 bits of mantissa instead of 23, where the GPU can.
    """

    profile: BatchProfile = field(default_factory=BatchProfile)
    workspace_mib: int | None = None
    optimization_level: int = 3
    tf32: bool = True


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
    found = flavour()
    trt = found.trt
    trt_logger, messages = logger()
    messages.take()
    builder = trt.Builder(trt_logger)
    network = builder.create_network(found.network_flags)
    with readable_copy(model) as readable:
        parser = _parse(readable, network, model.name)
        config = build_config(builder, network, options)
        if found.is_weakly_typed:
            _allow_precisions(network, config, readable)
        if found.keeps_timing_cache and not config.set_timing_cache(config.create_timing_cache(timing_cache), False):
            config.set_timing_cache(config.create_timing_cache(b""), False)  # of another GPU: learnt anew
        watch = BuildWatch(on_progress)
        plan = watch.build(builder, network, config)
    del parser  # it holds the weights that the network points to
    if watch.is_cancelled:
        raise BuildCancelled
    if plan is None:
        raise EngineError(f"{found.title} cannot build '{model.name}': {messages.take()}")
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()) if found.keeps_timing_cache else b"")


def readable_copy(model: Path) -> AbstractContextManager[Path]:
    """Give, for a block, a file that the parser reads as the model is meant."""
    if not flavour().reads_old_opsets_only:
        return nullcontext(model)
    from trtjob.engines.tensorrt.lowering import lowered  # imports onnx

    return lowered(model)


def _parse(model: Path, network: Any, name: str) -> Any:
    """Read a model into a network. Returns the parser, which must live as long as the network."""
    trt = flavour().trt
    trt_logger, messages = logger()
    parser = trt.OnnxParser(network, trt_logger)
    if not parser.parse_from_file(str(model)):
        errors = [error_text(parser.get_error(index), model) for index in range(parser.num_errors)]
        raise EngineError(f"{flavour().title} cannot read '{name}': {'; '.join(errors) or messages.take()}")
    return parser


def error_text(error: Any, model: Path) -> str:
    """Return what a parser says of a model in one line, with the node that it is about."""
    text = " ".join(error.desc().split())
    if hasattr(error, "node_operator"):
        return f"node '{error.node_name()}' ({error.node_operator()}): {text}" if error.node_operator() else text
    from trtjob.engines.tensorrt.lowering import node_at  # imports onnx

    node = node_at(model, error.node())  # 8.6 counts the nodes, and knows no names
    return f"node {node}: {text}" if node else text


def build_config(builder: Any, network: Any, options: BuildOptions) -> Any:
    """Return TensorRT's own options for a build of this network."""
    trt = flavour().trt
    config = builder.create_builder_config()
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    # Two lanes are two contexts with the same profile: 8.6 forbids that unless told, 10 allows it, 11 knows no other.
    if (sharing := getattr(trt.PreviewFeature, "PROFILE_SHARING_0806", None)) is not None:
        config.set_preview_feature(sharing, True)
    _add_profile(builder, network, config, options.profile)
    return config


def _add_profile(builder: Any, network: Any, config: Any, sizes: BatchProfile) -> None:
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        value = network.get_input(index)
        if value.name != INPUT_NAME:
            raise EngineError(f"the model takes '{value.name}': expected '{INPUT_NAME}' alone. Convert it again")
        rest = tuple(value.shape)[1:]
        profile.set_shape(value.name, *((batch, *rest) for batch in (sizes.smallest, sizes.best, sizes.largest)))
    # Neither says no: a profile that cannot be is false, and adding it gives -1.
    if not profile or config.add_optimization_profile(profile) < 0:
        raise EngineError(f"{flavour().title} refuses batches of {sizes}: {logger()[1].take()}")


def _allow_precisions(network: Any, config: Any, model: Path) -> None:
    """Let a weakly typed network compute in the precisions of its graph: what stands there is no order to it.

    model: the file that was parsed, since the network itself has forgotten what was half. The flag of half permits it
    everywhere. Layers that make what the graph computes in float32 are asked to keep to that: a box's edge of 1000
    pixels has steps of half a pixel in half.
    """
    trt = flavour().trt
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    if any(layer.type in (trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE) for layer in layers):
        config.set_flag(trt.BuilderFlag.INT8)
    from trtjob.engines.tensorrt.lowering import float_values  # imports onnx

    floats = float_values(model)
    if floats is None:
        return
    config.set_flag(trt.BuilderFlag.FP16)
    config.set_flag(trt.BuilderFlag.TF32)  # what it does in float32 all the same need not be finer than half
    config.set_flag(trt.BuilderFlag.PREFER_PRECISION_CONSTRAINTS)
    for layer in layers:
        names = [layer.get_output(index).name for index in range(layer.num_outputs)]
        held = [index for index, name in enumerate(names) if name in floats]  # a TopK gives integers as well
        if held:
            layer.precision = trt.DataType.FLOAT
        for index in held:
            layer.set_output_type(index, trt.DataType.FLOAT)


class BuildWatch:
    """Passes a build's progress on, where TensorRT tells of it, from threads of its own."""

    def __init__(self, on_progress: BuildProgress | None) -> None:
        self.is_cancelled = False
        self._on_progress = on_progress
        self._steps: dict[str, int] = {}
        self._kept: Any = None  # TensorRT calls it, and may not keep it alive

    def build(self, builder: Any, network: Any, config: Any) -> Any:
        """Return the plan, None where the build failed or was stopped."""
        if flavour().has_monitor:
            self._kept = config.progress_monitor = self.monitor()
        return builder.build_serialized_network(network, config)

    def monitor(self) -> Any:
        """Return an object of TensorRT's own class for progress, which tells this one."""
        base: Any = flavour().trt.IProgressMonitor
        watch = self

        class Monitor(base):  # type: ignore[misc]
            def __init__(self) -> None:
                base.__init__(self)

            def phase_start(self, phase: str, _parent: str | None, steps: int) -> None:
                watch._steps[phase] = steps

            def step_complete(self, phase: str, step: int) -> bool:
                return watch._tell(phase, step + 1)

            def phase_finish(self, phase: str) -> None:
                watch._steps.pop(phase, None)

        return Monitor()

    def _tell(self, phase: str, done: int) -> bool:
        if self._on_progress is not None and not self._on_progress(phase, done, self._steps.get(phase, 0)):
            self.is_cancelled = True
        return not self.is_cancelled
