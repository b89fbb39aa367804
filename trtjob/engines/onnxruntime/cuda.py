"""ONNX Runtime on an NVIDIA GPU: no plan to build, and every model that the CPU runs."""

import logging
import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from trtjob.engines.cuda import Device, GpuInfo, Memory, Stream
from trtjob.engines.cuda.device import gpu_of
from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.engines.onnxruntime.session import CPU_PROVIDER, Provider, open_session, output_names, spec_of
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array, check_batch
from trtjob.engines.spec import BOXES_NAME, INPUT_NAME, SCORES_NAME, ModelSpec, Precision, load_spec
from trtjob.errors import DeviceMemoryError, EngineError, MissingDependencyError

log = logging.getLogger(__name__)

CUDA_PROVIDER = "CUDAExecutionProvider"
RUNS = 2  # at once on the GPU: while one ends and the next begins, the other computes
LANES = 4  # two more callers copy meanwhile: at a GPU's speed, that takes a core as long as the GPU computes

# What ONNX Runtime, CUDA, cuBLAS and cuDNN say where memory is short; all of them raise the same class.
_SHORT_OF_MEMORY = (
    "failed to allocate memory",
    "out of memory",
    "alloc_failed",
    "allocation failed",
    "smaller than requested bytes",
)
_TENSOR_CORES = {"fp16": (7, 0), "bf16": (8, 0), "tf32": (8, 0)}  # the first compute capability that has them


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """batch: images in every call; memory_mib: of the GPU, that the model may take, 0: all; tf32: float32 products
    with ten bits of mantissa, where the GPU can."""

    gpu: int = 0
    batch: int = 32
    memory_mib: int = 0
    tf32: bool = True


def check_usable() -> str:
    """Return what runs models on CUDA here, by name and version. Raises MissingDependencyError, EngineError."""
    ort = onnxruntime()
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise MissingDependencyError("onnxruntime-gpu", extra="cuda")
    return f"ONNX Runtime {ort.__version__} with CUDA"


def open_engine(path: Path, options: CudaOptions) -> "CudaEngine":
    """Load a self-describing ONNX model on a GPU; with smaller batches where its memory is short.

    Raises ModelError where the file is missing or is none of ours, EngineError where the GPU cannot be used or the
    model does not run on it, MissingDependencyError.
    """
    return CudaEngine(path, options)


class CudaEngine:
    """One session on one GPU; as many callers at once as there are lanes keep it busy.

    Every call has the same shape, the rows that a smaller batch leaves over being computed for nothing: kernels are
    chosen by the shape, so that an image's result would else depend on how many others came with it.
    """

    name = "cuda"

    def __init__(self, path: Path, options: CudaOptions) -> None:
        title = check_usable()
        gpu = gpu_of(options.gpu)
        self._path, self._options = path, options
        self._free: queue.SimpleQueue[_Lane | None] = queue.SimpleQueue()
        self._gate = threading.Lock()  # between who closes the lanes and who opens others
        self._is_closed = False
        self._model = _open(path, gpu, options, options.batch)
        self._gpu = gpu
        self.spec = self._model.spec
        self.device = f"{gpu.name} (GPU {gpu.index}), {title}"
        self.max_batch = self._model.batch
        self.concurrency = LANES
        self._offer()

    def infer(self, images: UInt8Array) -> Outputs:
        check_batch(images, self.spec)
        parts: list[dict[str, FloatArray]] = []
        done = 0
        while done < len(images):
            with self._lane() as lane:
                try:
                    parts.append(lane.run(images[done : done + lane.batch]))
                    done += lane.batch
                    continue
                except DeviceMemoryError as err:
                    batch, failure = lane.batch, err
            self._shrink(batch, failure)
        outputs = (
            parts[0] if len(parts) == 1 else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        )
        return Outputs(outputs.get(BOXES_NAME), outputs[SCORES_NAME])

    @contextmanager
    def _lane(self) -> "Iterator[_Lane]":
        lane = None if self._is_closed else self._free.get()
        if lane is None:
            self._free.put(None)  # for whoever else waits
            raise EngineError("the engine is closed")
        try:
            yield lane
        finally:
            self._free.put(lane)

    def _offer(self) -> None:
        for lane in self._model.lanes:
            self._free.put(lane)

    def _withdraw(self) -> None:
        """Wait for all lanes: nobody computes any more."""
        for _ in self._model.lanes:
            self._free.get()

    def _shrink(self, batch: int, failure: DeviceMemoryError) -> None:
        """Open the model again with half of a batch that was too large, unless another caller has done so."""
        with self._gate:
            if self._is_closed or self.max_batch < batch:
                return
            if batch == 1:
                raise failure
            self._withdraw()
            self._model.close()
            log.warning("too little GPU memory: smaller batches", extra={"batch": batch, "instead": batch // 2})
            try:
                self._model = _open(self._path, self._gpu, self._options, batch // 2)
            except BaseException:
                self._is_closed = True
                self._free.put(None)
                raise
            self.max_batch = self._model.batch
            self._offer()

    def close(self) -> None:
        """Finish what is under way, then free everything. May be called twice."""
        with self._gate:
            if self._is_closed:
                return
            self._is_closed = True
            self._withdraw()
            self._free.put(None)
            self._model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: Path, gpu: GpuInfo, options: CudaOptions, batch: int) -> "_Model":
    """Load a model for batches of a size, or of a half, a quarter, ... of it where the GPU's memory is short."""
    while True:
        model = _Model(path, gpu, options, batch)
        try:
            model.warm_up()
        except DeviceMemoryError as err:
            model.close()
            if batch == 1:
                raise
            log.warning(
                "too little GPU memory: smaller batches",
                extra={"batch": batch, "instead": batch // 2, "error": str(err)},
            )
            batch //= 2
        except BaseException:
            model.close()
            raise
        else:
            return model


class _Model:
    """A session and its lanes, for batches of one size; all that lives on the GPU."""

    def __init__(self, path: Path, gpu: GpuInfo, options: CudaOptions, batch: int) -> None:
        self.batch = batch
        self._session = _session(path, gpu, options)
        self.spec = spec_of(self._session, path)
        self._device = Device(gpu.index)
        self._device.leave()
        turns = threading.BoundedSemaphore(RUNS)
        self.lanes = [_Lane(self._device, self._session, self.spec, gpu.index, batch, turns) for _ in range(LANES)]

    def warm_up(self) -> None:
        """Run all lanes at once, as callers will: what they need of the GPU's memory is taken now.

        Raises DeviceMemoryError.
        """
        image = np.zeros((1, *self.spec.input_hw, self.spec.channels), np.uint8)
        for lane in self.lanes:
            lane.open()
        with ThreadPoolExecutor(len(self.lanes)) as pool:
            for answer in [pool.submit(lane.run, image) for lane in self.lanes]:
                answer.result()

    def close(self) -> None:
        with self._device.current():
            for lane in self.lanes:
                lane.close()
        self.lanes = []
        self._session = None  # its memory goes with it, in the context that the device still holds
        self._device.enter()
        self._device.close()


class _Lane:
    """One stream with its buffers, and one batch of a fixed size at a time."""

    def __init__(
        self,
        device: Device,
        session: Any,
        spec: ModelSpec,
        gpu: int,
        batch: int,
        turns: threading.BoundedSemaphore,
    ) -> None:
        """turns: the runs that the GPU's memory is to hold at once."""
        self.batch = batch
        self._device, self._session, self._spec, self._gpu, self._turns = device, session, spec, gpu, turns
        self._buffers: dict[str, Memory] = {}
        self._outputs: dict[str, FloatArray] = {}
        self._stream: Stream | None = None
        self._binding: Any = None

    def open(self) -> None:
        """Take the memory of the GPU. Raises DeviceMemoryError, EngineError."""
        spec = self._spec
        with self._device.current():
            self._stream = self._device.stream()
            self._images: UInt8Array = self._device.pinned((self.batch, *spec.input_hw, spec.channels), np.uint8)
            self._images[:] = 0
            self._binding = self._session.io_binding()
            self._bind(INPUT_NAME, self._images, self._binding.bind_input)
            self._stream.copy_in(self._buffers[INPUT_NAME], self._images)
            for name, shape in self._output_shapes().items():
                self._outputs[name] = self._device.pinned(shape, np.float32)
                self._bind(name, self._outputs[name], self._binding.bind_output)

    def _output_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the outputs' shapes, by a run whose outputs ONNX Runtime allocates: graphs need not state them."""
        names = output_names(self._spec)
        for name in names:
            self._binding.bind_output(name, "cuda", self._gpu)
        self._compute()
        found = {name: tuple(value.shape()) for name, value in zip(names, self._binding.get_outputs(), strict=True)}
        self._binding.clear_binding_outputs()
        return found

    def _bind(self, name: str, host: np.ndarray[Any, Any], bind: Any) -> None:
        """Have ONNX Runtime read or write a buffer of ours on the GPU, with room for a page-locked array."""
        buffer = self._buffers[name] = self._device.alloc(host.nbytes)
        bind(name, "cuda", self._gpu, host.dtype.type, list(host.shape), int(buffer))

    def run(self, images: UInt8Array) -> dict[str, FloatArray]:
        """Run at most `batch` images and return their outputs, which the caller owns."""
        count = len(images)
        self._images[:count] = images
        with self._device.current():
            self._stream.copy_in(self._buffers[INPUT_NAME], self._images[:count])
            self._compute()
            for name, values in self._outputs.items():
                self._stream.copy_out(values[:count], self._buffers[name])
            self._sync()
        return {name: np.array(values[:count]) for name, values in self._outputs.items()}

    def _compute(self) -> None:
        self._sync()  # ONNX Runtime works on a stream of its own
        try:
            with self._turns:
                self._session.run_with_iobinding(self._binding)
        except Exception as err:
            reason = " ".join(str(err).split())
            if any(text in reason.lower() for text in _SHORT_OF_MEMORY):
                raise DeviceMemoryError(f"the GPU's memory is full: {reason}") from err
            self._device.synchronize()  # raises DeviceLostError where nothing in this process can use the GPU again
            raise EngineError(f"ONNX Runtime failed on the GPU: {reason}") from err

    def _sync(self) -> None:
        self._stream.mark()
        self._stream.wait()

    def close(self) -> None:
        self._binding = self._session = None
        for buffer in self._buffers.values():
            buffer.free()
        if self._stream is not None:
            self._stream.close()
        self._stream, self._buffers, self._outputs = None, {}, {}
        self._images = np.empty((0, *self._spec.input_hw, self._spec.channels), np.uint8)


def _session(path: Path, gpu: GpuInfo, options: CudaOptions) -> Any:
    """Load a model on a GPU. Raises EngineError where ONNX Runtime fell back to the CPU, of which it only logs."""
    _load_libraries()
    precision = load_spec(path).precision
    session = open_session(path, [_provider(options, gpu, precision), (CPU_PROVIDER, {})])
    if (found := session.get_providers()[0]) != CUDA_PROVIDER:
        raise EngineError(
            f"ONNX Runtime {onnxruntime().__version__} cannot use {gpu.name}: it fell back to {found}. Its CUDA "
            "libraries or the driver do not fit. See what is missing with: trtjob doctor"
        )
    return session


def _provider(options: CudaOptions, gpu: GpuInfo, precision: Precision) -> Provider:
    kind = "tf32" if precision == "fp32" and options.tf32 else precision
    has_tensor_cores = gpu.compute_capability >= _TENSOR_CORES.get(kind, (99, 0))
    chosen = {
        "device_id": str(options.gpu),
        "arena_extend_strategy": "kSameAsRequested",
        # By rule, not by timing, which would choose other kernels, and give other bits, from one start to the next.
        "cudnn_conv_algo_search": "HEURISTIC",
        "use_tf32": str(int(options.tf32)),
        "prefer_nhwc": str(int(has_tensor_cores)),  # as tensor cores take images
    }
    if options.memory_mib:
        chosen["gpu_mem_limit"] = str(options.memory_mib << 20)
    return CUDA_PROVIDER, chosen


def _load_libraries() -> None:
    """Load CUDA and cuDNN out of NVIDIA's wheels, where they are; it prints what it does not find."""
    said = StringIO()
    with redirect_stdout(said):
        onnxruntime().preload_dlls()
    if text := " ".join(said.getvalue().split()):
        log.debug("CUDA libraries", extra={"said": text})
