"""Open the engine that was chosen, or the next best where it does not take the model."""

import logging
from dataclasses import replace
from pathlib import Path

from trtjob.child_process import Allowance
from trtjob.config import Settings
from trtjob.cpus import usable_cpus
from trtjob.engines.choice import ON_GPU, TITLES, EngineKind
from trtjob.engines.onnxruntime.cuda_model import CudaOptions
from trtjob.engines.protocol import Engine
from trtjob.engines.tensorrt.builder import BatchProfile, BuildOptions, BuildProgress
from trtjob.engines.tensorrt.engine import TensorRtOptions, alone
from trtjob.engines.tensorrt.plans import PlanCache, SingleFlight
from trtjob.errors import DeviceLostError, EngineError, MissingDependencyError
from trtjob.imaging.gpu.decoder import GpuDecoder
from trtjob.imaging.gpu.nvjpeg import installed_package
from trtjob.storage import open_storage

log = logging.getLogger(__name__)


def open_engine(
    settings: Settings,
    model: Path,
    sha256: str,
    kind: EngineKind,
    gpu: int | None,
    *,
    on_build: BuildProgress,
    single_flight: SingleFlight = alone,
    model_name: str = "",
) -> Engine:
    """Open a model with an engine; with the next one where that cannot run it, if the settings leave the choice.

    gpu: its number, None for the CPU; model_name: for messages; on_build: told how the build of a plan goes on, and
    asked whether it should.
    Raises EngineError, MissingDependencyError, ModelError; BuildCancelled where `on_build` said no.
    """
    if kind == "cpu" or gpu is None:
        return _cpu(model, settings)
    for engine in ON_GPU[ON_GPU.index(kind) :]:
        try:
            if engine == "tensorrt":
                options = tensorrt_options(settings, gpu, on_build, single_flight)
                return _tensorrt(model, sha256, replace(options, model_name=model_name))
            return _cuda(model, cuda_options(settings, gpu))
        except DeviceLostError:
            raise
        except (EngineError, MissingDependencyError) as err:
            if settings.engine != "auto":
                raise
            log.warning(
                "an engine cannot run the model; the next one does",
                extra={"engine": TITLES[engine], "reason": str(err)},
            )
    return _cpu(model, settings)


def _cpu(model: Path, settings: Settings) -> Engine:
    from trtjob.engines.onnxruntime import cpu

    return cpu.open_engine(model, threads=threads_of(settings))


def _tensorrt(model: Path, sha256: str, options: TensorRtOptions) -> Engine:
    from trtjob.engines.spec import load_spec
    from trtjob.engines.tensorrt.engine import open_engine as open_tensorrt

    return open_tensorrt(model, load_spec(model), sha256, options)


def _cuda(model: Path, options: CudaOptions) -> Engine:
    from trtjob.engines.onnxruntime import cuda

    return cuda.open_engine(model, options)


def can_decode(engine: Engine, gpu: int | None) -> bool:
    """Tell whether an engine's GPU may decode images: it has one, gpu, and nvJPEG is installed."""
    return engine.name != "cpu" and gpu is not None and bool(installed_package())


def open_decoder(engine: Engine, gpu: int | None, batch: int, callers: int) -> GpuDecoder:
    """Return what decodes images for an engine, on its GPU, for so many batches at once.

    Raises EngineError, MissingDependencyError.
    """
    if engine.name == "cpu" or gpu is None:
        raise EngineError(
            "the job wants its images decoded on a GPU (--decode gpu), and this worker uses none. "
            "`trtjob doctor` says why; --decode cpu needs none"
        )
    return GpuDecoder(gpu, engine.spec, batch=batch, callers=callers)


def threads_of(settings: Settings) -> int:
    """Return how many threads a worker process uses: one for each core unless told."""
    return settings.threads or usable_cpus()


def plans_of(settings: Settings, *, on_wait: BuildProgress = lambda *_: True, is_ahead: bool = False) -> PlanCache:
    """Return the plans of this machine, with those that it shares with others where the settings name a place."""
    shared = PlansInStorage(settings.plan_store) if settings.plan_store else None
    most = settings.plan_cache_gib << 30
    return PlanCache(settings.plans_dir, max_bytes=most, shared=shared, is_ahead=is_ahead, on_wait=on_wait)


class PlansInStorage:
    """Plans in a folder or a bucket, opened when one is asked for."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def read(self, name: str) -> bytes | None:
        try:
            return open_storage(self._uri).read(name)
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        storage = open_storage(self._uri)
        storage.make_root()
        storage.write(name, data)


def tf32_in_plans(settings: Settings) -> bool:
    """Tell whether TensorRT may use TF32: it does so the same way at each place of a batch."""
    return settings.tf32 is not False


def cuda_options(settings: Settings, gpu: int) -> CudaOptions:
    """Return how ONNX Runtime uses a GPU."""
    options = CudaOptions(gpu, memory_mib=settings.gpu_memory_mib, tf32=bool(settings.tf32))
    return replace(options, batch=settings.batch) if settings.batch else options


def tensorrt_options(
    settings: Settings,
    gpu: int,
    on_build: BuildProgress,
    single_flight: SingleFlight = alone,
    *,
    is_ahead: bool = False,
) -> TensorRtOptions:
    """Return how to build and keep plans. is_ahead: for later, so that one that cannot be kept is an error."""
    profile = BatchProfile.parse(settings.plan_batches)
    return TensorRtOptions(
        plans=plans_of(settings, on_wait=on_build, is_ahead=is_ahead),
        gpu=gpu,
        batch=settings.batch,
        build=BuildOptions(
            replace(profile, largest=max(profile.largest, settings.batch)),
            settings.plan_workspace_mib or None,
            settings.plan_level,
            tf32=tf32_in_plans(settings),
        ),
        single_flight=single_flight,
        on_progress=on_build,
        allowance=Allowance(settings.plan_limit_s, settings.convert_memory_mib << 20),
    )
