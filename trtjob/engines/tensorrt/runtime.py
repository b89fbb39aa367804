"""TensorRT's runtime: a plan, loaded onto one GPU and run on the GPU's lanes."""

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from mmap import mmap
from typing import Any

import numpy as np

from trtjob.engines.answers import answer_shape_of
from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.interface import GpuInfo, Memory, Stream
from trtjob.engines.cuda.staging import Arrays, copy_in, copy_out
from trtjob.engines.lane_engine import LaneEngine
from trtjob.engines.pool import LANES, RUNS
from trtjob.engines.protocol import (
    AnyImage,
    UInt8Array,
    Wanted,
    all_names,
    slice_of,
)
from trtjob.engines.spec import INPUT_NAME, ModelSpec
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.lanes import Lanes
from trtjob.engines.tensorrt.messages import logger
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError

log = logging.getLogger(__name__)


class TensorRtEngine(LaneEngine):
    """One plan on one GPU."""

    name = "tensorrt"

    def __init__(self, plan: bytes, spec: ModelSpec, gpu: GpuInfo, max_batch: int) -> None:
        self.spec = spec
        self.device = f"{gpu.name}, {flavour().title}"
        self.max_batch = max_batch
        loaded = self._loaded = LoadedPlan(plan, gpu.index)
        self._lanes = Lanes(lambda: loaded.lanes(spec, max_batch), loaded.close, runs=RUNS)
        self.concurrency = self._lanes.count
        self._shapes = loaded.shapes
        self.answer_shape = answer_shape_of(self._shapes, spec)

    def _run(self, images: Sequence[AnyImage], wanted: Wanted) -> None:
        for start in range(0, len(images), self.max_batch):
            end = start + self.max_batch
            self._lanes.run(images[start:end], slice_of(wanted, start, end))

    def pin(self, memory: mmap) -> None:
        self._lanes.do(partial(self._loaded.lock, memory))

    def close(self) -> None:
        self._lanes.close()


class LoadedPlan:
    """All that a plan has on the GPU, made and freed in one thread."""

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
