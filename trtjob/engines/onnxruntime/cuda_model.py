"""A model in ONNX Runtime on a GPU: its session, and lanes that bring batches of one size there and back."""

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.cuda.interface import GpuInfo, Memory
from trtjob.engines.cuda.staging import copy_in, copy_out, deliver, to_fill, to_send
from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.engines.onnxruntime.session import CPU_PROVIDER, Provider, open_session, spec_of
from trtjob.engines.pool import LANES, RUNS
from trtjob.engines.protocol import AnyImage, FloatArray, UInt8Array, Wanted, all_names
from trtjob.engines.spec import INPUT_NAME, ModelSpec, Precision, load_spec
from trtjob.errors import DeviceMemoryError, EngineError

log = logging.getLogger(__name__)

CUDA_PROVIDER = "CUDAExecutionProvider"

# What ONNX Runtime, CUDA, cuBLAS and cuDNN say where memory is short; all of them raise the same class.
_SHORT_OF_MEMORY = (
    "failed to allocate memory",
    "out of memory",
    "alloc_failed",
    "allocation failed",
    "smaller than requested bytes",
)
_LEAST_MIB = 512  # with less, cuDNN and cuBLAS do not start, and call it an internal error
_TENSOR_CORES = {"fp16": (7, 0), "bf16": (8, 0), "tf32": (8, 0)}  # the first compute capability that has them


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """batch: images in every call; memory_mib: of the GPU, that the model may take, 0: all; tf32: float32 products
    with ten bits of mantissa, where the GPU can."""

    gpu: int = 0
    batch: int = 32
    memory_mib: int = 0
    tf32: bool = False


class CudaModel:
    """All of a model that lives on the GPU. Its memory is taken at once, and freed by `close`.

    Raises ModelError, EngineError; DeviceMemoryError where the GPU has too little memory for such batches.
    """

    def __init__(self, path: Path, gpu: GpuInfo, options: CudaOptions, batch: int, *, is_fused: bool) -> None:
        """is_fused: whether a convolution and what is added to it are one kernel, where tensor cores take halves."""
        self.batch = batch
        self._is_fused = is_fused
        self.lanes: list[Lane] = []
        self._session: Any = None
        self._device = Device(gpu.index, threaded_driver())
        self._device.leave()
        turns = threading.BoundedSemaphore(RUNS)
        try:
            self._session = self._opened(path, gpu, options)
            self.spec = spec_of(self._session, path)
            for _ in range(LANES):
                self.lanes.append(Lane(self._device, self._session, self.spec, gpu.index, batch, turns))
            self._warm_up()
        except BaseException:
            self.close()
            raise

    def _opened(self, path: Path, gpu: GpuInfo, options: CudaOptions) -> Any:
        try:
            return session_of(path, gpu, options, is_fused=self._is_fused)
        except EngineError as err:
            with self._device.current():
                free_mib = self._device.free_bytes() >> 20
            if free_mib >= _LEAST_MIB:
                raise
            raise DeviceMemoryError(f"the GPU's memory is full, {free_mib} MiB are left: {err}") from err

    def _warm_up(self) -> None:
        """Run all lanes at once, as callers will: ONNX Runtime takes now what it needs of the GPU's memory."""
        image = np.zeros((*self.spec.input_hw, self.spec.channels), np.uint8)
        with ThreadPoolExecutor(len(self.lanes)) as pool:
            for done in [pool.submit(lane.run, [image], {}) for lane in self.lanes]:
                done.result()

    def lock(self, memory: mmap) -> None:
        """Page-lock memory, in place of what was locked before, while no lane runs."""
        with self._device.current():
            self._device.lock(memory)

    def close(self) -> None:
        with self._device.current():
            for lane in self.lanes:
                lane.close()
        self.lanes = []
        self._session = None  # its memory goes with it, in the context that the device still holds
        self._device.enter()
        self._device.close()


class Lane:
    """One stream with its buffers, and one batch of a fixed size at a time; for one thread at a time."""

    def __init__(
        self,
        device: Device,
        session: Any,
        spec: ModelSpec,
        gpu: int,
        batch: int,
        turns: threading.BoundedSemaphore,
    ) -> None:
        """turns: the runs that may be on the GPU at once. Raises as `CudaModel` does."""
        self.batch = batch
        self._device, self._session, self._gpu, self._turns = device, session, gpu, turns
        self._buffers: dict[str, Memory] = {}
        self._outputs: dict[str, FloatArray] = {}
        with device.current(), ExitStack() as undo:
            self._stream = device.stream()
            undo.callback(self.close)
            self._images: UInt8Array = device.pinned((batch, *spec.input_hw, spec.channels), np.uint8)
            self._images[:] = 0
            self._binding = session.io_binding()
            self._bind(INPUT_NAME, self._images, self._binding.bind_input)
            self._stream.copy_in(self._buffers[INPUT_NAME], self._images)
            for name, shape in self._output_shapes(spec).items():
                self._outputs[name] = device.pinned(shape, np.float32)
                self._bind(name, self._outputs[name], self._binding.bind_output)
            undo.pop_all()

    def _output_shapes(self, spec: ModelSpec) -> dict[str, tuple[int, ...]]:
        """Return the outputs' shapes, by a run whose outputs ONNX Runtime allocates: graphs need not state them."""
        names = all_names(spec)
        for name in names:
            self._binding.bind_output(name, "cuda", self._gpu)
        self.compute()
        found = {name: tuple(value.shape()) for name, value in zip(names, self._binding.get_outputs(), strict=True)}
        self._binding.clear_binding_outputs()
        return found

    def _bind(self, name: str, host: NDArray[Any], bind: Any) -> None:
        """Have ONNX Runtime read or write a buffer of ours on the GPU, with room for a page-locked array."""
        buffer = self._buffers[name] = self._device.alloc(host.nbytes)
        bind(name, "cuda", self._gpu, host.dtype.type, list(host.shape), int(buffer))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The outputs' shapes, of one image."""
        return {name: values.shape[1:] for name, values in self._outputs.items()}

    def run(self, images: Sequence[AnyImage], wanted: Wanted) -> None:
        """Run at most `batch` images, and bring what is wanted of them; the rest stays on the GPU."""
        reaches = self._device.reaches
        sent = to_send(images, self._images, reaches)
        filled = {name: to_fill(arrays, self._outputs[name], reaches) for name, arrays in wanted.items()}
        with self._device.current():
            copy_in(self._stream, self._buffers[INPUT_NAME], sent)
            self.compute()
            for name, arrays in filled.items():
                copy_out(self._stream, arrays, self._buffers[name])
            self._sync()
        for name, arrays in wanted.items():
            deliver(filled[name], arrays)

    def compute(self) -> None:
        """Run what lies in the lane's images, and wait for it."""
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
        """Free everything, in the device's context."""
        self._binding = self._session = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers, self._outputs = {}, {}
        self._images = np.empty((0, 0, 0, 0), np.uint8)
        self._stream.close()


def session_of(path: Path, gpu: GpuInfo, options: CudaOptions, *, is_fused: bool) -> Any:
    """Load a model on a GPU. Raises EngineError where ONNX Runtime fell back to the CPU, of which it only logs."""
    _load_libraries()
    precision = load_spec(path).precision
    session = open_session(path, [_provider(options, gpu, precision, is_fused=is_fused), (CPU_PROVIDER, {})])
    if (found := session.get_providers()[0]) != CUDA_PROVIDER:
        raise EngineError(
            f"ONNX Runtime {onnxruntime().__version__} cannot use {gpu.name}: it fell back to {found}. Its CUDA "
            "libraries or the driver do not fit. See what is missing with: trtjob doctor"
        )
    return session


def _provider(options: CudaOptions, gpu: GpuInfo, precision: Precision, *, is_fused: bool) -> Provider:
    kind = "tf32" if precision == "fp32" and options.tf32 else precision
    has_tensor_cores = gpu.compute_capability >= _TENSOR_CORES.get(kind, (99, 0))
    chosen = {
        "device_id": str(options.gpu),
        "arena_extend_strategy": "kSameAsRequested",
        # By rule, not by timing, which would choose other kernels, and give other bits, from one start to the next.
        "cudnn_conv_algo_search": "HEURISTIC",
        # Without it no convolution is fused, in half either, where it makes no other difference.
        "use_tf32": str(int(options.tf32 or precision == "fp16")),
        "prefer_nhwc": str(int(has_tensor_cores)),  # as tensor cores take images
        # cuDNN's kernels of their own may sum in another order at the end of a batch; those that it fuses do not.
        "fuse_conv_bias": str(int(is_fused and has_tensor_cores and precision == "fp16")),
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
