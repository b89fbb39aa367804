"""Open a TensorRT engine: its plan is taken from the cache, or built first in a process of its own."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from trtjob.child_process import Allowance
from trtjob.engines.cuda.device import gpu_of
from trtjob.engines.cuda.interface import GpuInfo
from trtjob.engines.spec import ModelSpec
from trtjob.engines.tensorrt.build_process import build_in_child
from trtjob.engines.tensorrt.builder import BuildOptions, BuildProgress
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.engines.tensorrt.plans import Gpu, PlanCache, PlanKey, SingleFlight
from trtjob.engines.tensorrt.runtime import LoadedPlan, TensorRtEngine
from trtjob.errors import DeviceMemoryError

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


def open_engine(path: Path, spec: ModelSpec, model_sha256: str, options: TensorRtOptions) -> TensorRtEngine:
    """Load a model's plan for a GPU, building it where there is none; with smaller batches where memory is short.

    Raises EngineError where there is no GPU or no TensorRT, or the plan cannot be built or loaded.
    """
    gpu = gpu_of(options.gpu)
    batches = options.build.profile
    while True:
        try:
            plan = plan_of(path, model_sha256, gpu, replace(options, build=replace(options.build, profile=batches)))
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
    plan_of(path, model_sha256, gpu_of(options.gpu), options)


def layer_report(path: Path, model_sha256: str, options: TensorRtOptions) -> str:
    """Return what TensorRT made of each layer, as JSON: kernels, formats, precisions. Raises as `open_engine` does."""
    plan = plan_of(path, model_sha256, gpu_of(options.gpu), options)
    loaded = LoadedPlan(plan, options.gpu)
    try:
        engine = loaded.load()
        report = str(engine.create_engine_inspector().get_engine_information(flavour().trt.LayerInformationFormat.JSON))
        del engine
        return report
    finally:
        loaded.close()


def plan_of(path: Path, model_sha256: str, gpu: GpuInfo, options: TensorRtOptions) -> bytes:
    """Return a model's plan for a GPU, from the cache or built now. Raises as `open_engine` does."""
    build = options.build
    found = flavour()
    found.expect_gpu(gpu.name, gpu.compute_capability)
    key = PlanKey(
        model_sha256,
        str(build.profile),
        build.optimization_level,
        found.name,
        found.version,
        Gpu(gpu.name, gpu.compute_capability),
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
