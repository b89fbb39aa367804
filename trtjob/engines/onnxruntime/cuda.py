"""ONNX Runtime on an NVIDIA GPU: no plan to build, and every model that the CPU runs."""

import logging
import threading
from collections.abc import Sequence
from mmap import mmap
from pathlib import Path

from trtjob.engines.answers import answer_shape_of
from trtjob.engines.cuda.device import gpu_of
from trtjob.engines.cuda.interface import GpuInfo
from trtjob.engines.lane_engine import LaneEngine
from trtjob.engines.onnxruntime.compatibility import advice_for, expect_gpus
from trtjob.engines.onnxruntime.cuda_model import CUDA_PROVIDER, CudaModel, CudaOptions, Lane
from trtjob.engines.onnxruntime.package import onnxruntime
from trtjob.engines.pool import LANES, LanePool
from trtjob.engines.protocol import (
    AnyImage,
    Wanted,
    slice_of,
)
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError

__all__ = ["CudaEngine", "CudaOptions", "check_usable", "open_engine"]

log = logging.getLogger(__name__)

_CONVOLUTION = "running Conv node"  # in what ONNX Runtime says where one fails


def check_usable(gpus: Sequence[GpuInfo] = ()) -> str:
    """Return what runs models on CUDA here, by name and version. gpus: those that it is for; none: not compared.

    Raises MissingDependencyError, EngineError.
    """
    ort = onnxruntime()
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise EngineError(f"the installed ONNX Runtime {ort.__version__} is the one for the CPU. {advice_for(gpus)}")
    if gpus:
        expect_gpus(ort.__version__, gpus)
    return f"ONNX Runtime {ort.__version__} with CUDA"


def open_engine(path: Path, options: CudaOptions) -> "CudaEngine":
    """Load a self-describing ONNX model on a GPU; with smaller batches where its memory is short.

    Raises ModelError where the file is missing or is none of ours, EngineError where the GPU cannot be used or the
    model does not run on it, MissingDependencyError.
    """
    return CudaEngine(path, options)


class CudaEngine(LaneEngine):
    """One session on one GPU. Kernels are chosen by the shape, so that with other shapes an image's result would depend
    on how many others came with it.
    """

    name = "cuda"

    def __init__(self, path: Path, options: CudaOptions) -> None:
        title = check_usable()
        gpu = gpu_of(options.gpu)
        self._path, self._options = path, options
        self._pool: LanePool[Lane] = LanePool()
        self._memory: mmap | None = None  # that is pinned
        self._gate = threading.Lock()  # between who closes the lanes and who opens others
        self._model = _open(path, gpu, options, options.batch)
        self._gpu = gpu
        self.spec = self._model.spec
        self.device = f"{gpu.name}, {title}"
        self.max_batch = self._model.batch
        self.concurrency = LANES
        self._shapes = self._model.lanes[0].shapes
        self.answer_shape = answer_shape_of(self._shapes, self.spec)
        self._pool.offer(self._model.lanes)

    def _run(self, images: Sequence[AnyImage], wanted: Wanted) -> None:
        done = 0
        while done < len(images):
            with self._pool.taken() as lane:
                try:
                    end = done + lane.batch
                    lane.run(images[done:end], slice_of(wanted, done, end))
                    done = end
                    continue
                except DeviceMemoryError as err:
                    batch, failure = lane.batch, err
            self._shrink(batch, failure)

    def _shrink(self, batch: int, failure: DeviceMemoryError) -> None:
        """Open the model again with half of a batch that was too large, unless another caller has done so.

        Raises DeviceLostError where no batch is small enough: others have taken the memory. This engine is of no use
        any more, and no image is to blame.
        """
        with self._gate:
            if self._pool.is_closed or self.max_batch < batch:
                return
            self._pool.withdraw(len(self._model.lanes))
            self._model.close()
            try:
                if batch == 1:
                    raise failure
                log.warning("too little GPU memory: smaller batches", extra={"batch": batch, "instead": batch // 2})
                self._model = _open(self._path, self._gpu, self._options, batch // 2)
                if self._memory is not None:
                    self._model.lock(self._memory)
            except EngineError as err:
                lost = DeviceLostError(f"the model cannot go on on this GPU: {err}")
                self._pool.end(lost)
                raise lost from err
            self.max_batch = self._model.batch
            self._pool.offer(self._model.lanes)

    def pin(self, memory: mmap) -> None:
        with self._gate:
            self._pool.check()
            self._memory = memory
            self._pool.withdraw(len(self._model.lanes))  # nothing is under way
            try:
                self._model.lock(memory)
            finally:
                self._pool.offer(self._model.lanes)

    def close(self) -> None:
        """Finish what is under way, then free everything. May be called twice."""
        with self._gate:
            if self._pool.is_closed:
                return
            self._pool.refuse()
            self._pool.withdraw(len(self._model.lanes))
            self._pool.end()
            self._model.close()
            self._memory = None


def _open(path: Path, gpu: GpuInfo, options: CudaOptions, batch: int) -> "CudaModel":
    """Load a model for batches of a size, or of a half, a quarter, ... of it where the GPU's memory is short; without
    fused convolutions where cuDNN has none for it."""
    is_fused = True
    while True:
        try:
            return CudaModel(path, gpu, options, batch, is_fused=is_fused)
        except DeviceMemoryError as err:
            if batch == 1:
                raise
            smaller = {"batch": batch, "instead": batch // 2, "error": str(err)}
            log.warning("too little GPU memory: smaller batches", extra=smaller)
            batch //= 2
        except DeviceLostError:
            raise
        except EngineError as err:
            if not is_fused or _CONVOLUTION not in str(err):
                raise
            log.warning("cuDNN cannot fuse this model's convolutions", extra={"error": str(err)})
            is_fused = False
