"""The TensorRT engine: a plan on the lanes of one GPU."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from trtjob.child_process import Allowance
from trtjob.engines.cuda import Device, GpuInfo, Memory, Stream
from trtjob.engines.cuda.device import gpu_of as device_of
from trtjob.engines.cuda.staging import Arrays, copy_in, copy_out
from trtjob.engines.pool import LANES, RUNS
from trtjob.engines.protocol import (
    AnyImage,
    Engine,
    FloatArray,
    Outputs,
    UInt8Array,
    Wanted,
    all_names,
    answer_name,
    check_batch,
    check_images,
    outputs_of,
    part,
    room,
)
from trtjob.engines.spec import INPUT_NAME, ModelSpec
from trtjob.engines.tensorrt.build_process import build_in_child
from trtjob.engines.tensorrt.builder import BuildOptions, BuildProgress
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.lanes import Lanes
from trtjob.engines.tensorrt.messages import logger
from trtjob.engines.tensorrt.plans import PlanCache, PlanKey, SingleFlight, gpu_of
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError

log = logging.getLogger(__name__)


@contextmanager
def alone(_name: str) -> Iterator[None]:
    """A single flight for a process that has nobody beside it."""
    yield


@dataclass(frozen=True, slots=True)
class TensorRtOptions:
    """Where plans are kept, and how they are built.

    batch: images in every call; 0: the largest that the plan takes. model_name: what to call the model before a
    person. allowance: what a build may take.
    """

    plans: PlanCache
    gpu: int = 0
    batch: int = 0
    build: BuildOptions = field(default_factory=BuildOptions)
    single_flight: SingleFlight = alone
    on_progress: BuildProgress | None = None
    model_name: str = ""
    allowance: Allowance = field(default_factory=Allowance)


def open_engine(path: Path, spec: ModelSpec, model_sha256: str, options: TensorRtOptions) -> "TensorRtEngine":
    """Load a model's plan for a GPU, building it where there is none; with smaller batches where memory is short.

    Raises EngineError where there is no GPU or no TensorRT, or the plan cannot be built or loaded.
    """
    gpu = device_of(options.gpu)
    batches = options.build.profile
    while True:
        try:
            plan = _plan(path, model_sha256, gpu, replace(options, build=replace(options.build, profile=batches)))
            batch = min(options.batch or batches.largest, batches.largest)
            return TensorRtEngine(plan, spec, gpu, batch)
        except DeviceMemoryError:
            if batches.largest == 1:
                raise
            smaller = batches.halved()
            log.warning(
                "too little GPU memory: smaller batches", extra={"batches": str(batches), "instead": str(smaller)}
            )
            batches = smaller


def build_ahead(path: Path, model_sha256: str, options: TensorRtOptions) -> None:
    """Build a model's plan for a GPU unless it is there. Raises as `open_engine` does."""
    _plan(path, model_sha256, device_of(options.gpu), options)


def layer_report(path: Path, model_sha256: str, options: TensorRtOptions) -> str:
    """Return what TensorRT made of each layer, as JSON: kernels, formats, precisions. Raises as `open_engine` does."""
    plan = _plan(path, model_sha256, device_of(options.gpu), options)
    resources = _Resources(plan, options.gpu)
    try:
        engine = resources.load()
        report = str(engine.create_engine_inspector().get_engine_information(flavour().trt.LayerInformationFormat.JSON))
        del engine
        return report
    finally:
        resources.close()


def _plan(path: Path, model_sha256: str, gpu: GpuInfo, options: TensorRtOptions) -> bytes:
    build = options.build
    found = flavour()
    key = PlanKey(
        model_sha256,
        str(build.profile),
        build.optimization_level,
        found.name,
        found.version,
        gpu_of(gpu.name, gpu.compute_capability),
        build.tf32,
        build.workspace_mib,
    )

    def build_now(learnt: bytes) -> tuple[bytes, bytes]:
        name = options.model_name or path.name
        log.info("building a plan", extra={"model": name, "gpu": gpu.name, "tensorrt": found.title})
        on_progress = options.on_progress or (lambda *_: True)
        built = build_in_child(
            path,
            build,
            gpu=gpu.index,
            timing_cache=learnt,
            on_progress=on_progress,
            name=name,
            allowance=options.allowance,
        )
        return built.plan, built.timing_cache

    return options.plans.get_or_build(key, build_now, options.single_flight)


class TensorRtEngine(Engine):
    """One plan on one GPU; as many callers at once as there are lanes keep it busy.

    Every call has the same shape, the rows that a smaller batch leaves over being computed for nothing.
    """

    name = "tensorrt"

    def __init__(self, plan: bytes, spec: ModelSpec, gpu: GpuInfo, max_batch: int) -> None:
        self.spec = spec
        self.device = f"{gpu.name}, {flavour().title}"
        self.max_batch = max_batch
        resources = self._resources = _Resources(plan, gpu.index)
        self._lanes = Lanes(lambda: resources.lanes(spec, max_batch), resources.close, runs=RUNS)
        self.concurrency = self._lanes.count
        self._shapes = resources.shapes
        self.answer_shape = self._shapes[answer_name(spec)]

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        check_images(images, into, self.spec)
        self._run(images, {answer_name(self.spec): into})

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        found = room(self._shapes, self.spec, len(images))
        self._run(list(images), {name: list(array) for name, array in found.items()})
        return outputs_of(found)

    def _run(self, images: Sequence[AnyImage], wanted: Wanted) -> None:
        for start in range(0, len(images), self.max_batch):
            end = start + self.max_batch
            self._lanes.run(images[start:end], part(wanted, start, end))

    def pin(self, memory: mmap) -> None:
        self._lanes.do(partial(self._resources.lock, memory))

    def close(self) -> None:
        self._lanes.close()


class _Resources:
    """All that lives on the GPU, made and freed in one thread."""

    def __init__(self, plan: bytes, gpu: int) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}  # of one image's outputs, once there are lanes
        self._plan, self._gpu = plan, gpu
        self._device: Device | None = None
        self._engine: Any = None
        self._runtime: Any = None

    def load(self) -> Any:
        """Return the engine of the plan, in the GPU's context, which becomes this thread's."""
        # CUDA first: without a GPU the constructor of TensorRT's Runtime can end the process.
        self._device = Device(self._gpu)
        trt_logger, messages = logger()
        messages.take()
        self._runtime = flavour().trt.Runtime(trt_logger)
        self._engine = self._runtime.deserialize_cuda_engine(self._plan)
        if self._engine is None:
            raise EngineError(f"{flavour().title} cannot load the plan: {messages.take()}")
        return self._engine

    def lanes(self, spec: ModelSpec, max_batch: int) -> "list[TensorRtLane]":
        """Return the lanes, or one alone where the GPU's memory is short."""
        engine = self.load()
        assert self._device is not None
        self.shapes = {name: tuple(engine.get_tensor_shape(name))[1:] for name in all_names(spec)}
        lanes: list[TensorRtLane] = []
        contexts: deque[Any] = deque()  # those that no lane computes with
        try:
            for number in range(LANES):
                if number < RUNS:
                    contexts.append(_new_context(engine))
                lanes.append(TensorRtLane(self._device, engine, spec, max_batch, contexts, self.shapes))
        except DeviceMemoryError:
            if not lanes:
                raise
            log.warning(
                "too little GPU memory for all lanes: copying and computing overlap less", extra={"lanes": len(lanes)}
            )
        except BaseException:
            for lane in lanes:
                lane.close()
            raise
        return lanes

    def lock(self, memory: mmap) -> None:
        assert self._device is not None
        self._device.lock(memory)

    def close(self) -> None:
        # Lanes, engine, runtime, and last the context that they all live in.
        self._engine = self._runtime = None
        if self._device is not None:
            self._device.close()
            self._device = None


def _new_context(engine: Any) -> Any:
    """Return an execution context. Raises DeviceMemoryError."""
    context = engine.create_execution_context()
    if context is None:
        raise DeviceMemoryError(f"the GPU's memory is full: {logger()[1].take()}")
    return context


class TensorRtLane:
    """One stream with its buffers, which borrows an execution context for each batch."""

    def __init__(
        self,
        device: Device,
        engine: Any,
        spec: ModelSpec,
        max_batch: int,
        contexts: deque[Any],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> None:
        """contexts: those that are free, shared by all lanes; never fewer than batches that are under way.

        shapes: of one image's outputs.
        """
        self._messages = logger()[1]
        self._device = device
        self._engine = engine
        self._contexts = contexts
        self._context: Any = None
        self._max_batch = max_batch
        self._stream: Stream = device.stream()
        self._image_shape = (*spec.input_hw, spec.channels)
        self._buffers: dict[str, Memory] = {}
        with ExitStack() as undo:
            undo.callback(self._release)
            self._allocate(shapes)
            undo.pop_all()

    def _allocate(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        device, max_batch = self._device, self._max_batch
        self.images: UInt8Array = device.pinned((max_batch, *self._image_shape), np.uint8)
        self.outputs = {name: device.pinned((max_batch, *shape), np.float32) for name, shape in shapes.items()}
        self._buffers[INPUT_NAME] = device.alloc(self.images.nbytes)
        for name, values in self.outputs.items():
            self._buffers[name] = device.alloc(values.nbytes)

    def reaches(self, arrays: Arrays) -> bool:
        return self._device.reaches(arrays)

    def launch(self, images: Sequence[AnyImage], outputs: Mapping[str, Arrays]) -> None:
        try:
            self._context = self._contexts.popleft()
            self._bind(self._context)
            copy_in(self._stream, self._buffers[INPUT_NAME], images)
            self._compute()
            for name, arrays in outputs.items():
                copy_out(self._stream, arrays, self._buffers[name])
            self._stream.mark()
        except EngineError:
            self._give_back()
            raise

    def _give_back(self) -> None:
        if self._context is not None:
            self._contexts.append(self._context)
            self._context = None

    def _bind(self, context: Any) -> None:
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, int(buffer)):
                raise EngineError(f"TensorRT does not know '{name}': {self._messages.take()}")
        # Always the same shape: kernels may go by it, and an image's result by how many came with it.
        if not context.set_input_shape(INPUT_NAME, (self._max_batch, *self._image_shape)):
            raise EngineError(f"TensorRT refuses a batch of {self._max_batch}: {self._messages.take()}")

    def _compute(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise DeviceLostError(f"TensorRT failed: {self._messages.take()}")

    def is_done(self) -> bool:
        return self._stream.is_done()

    def wait(self) -> None:
        try:
            self._stream.wait()
        finally:
            self._give_back()

    def close(self) -> None:
        self._contexts.clear()
        self._release()

    def _release(self) -> None:
        self._context = self._engine = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers = {}
        self._stream.close()
        self.images = np.empty((0, *self._image_shape), np.uint8)
        self.outputs = {}
