"""From the settings to TensorRT's options."""

from trtjob.config import Settings
from trtjob.engines.tensorrt.builder import BatchProfile, BuildOptions, BuildProgress
from trtjob.engines.tensorrt.engine import TensorRtOptions, alone
from trtjob.engines.tensorrt.plans import PlanCache, SingleFlight


def plans_of(settings: Settings) -> PlanCache:
    """Return the plans of this machine."""
    return PlanCache(settings.plans_dir, max_bytes=settings.plan_cache_gib << 30)


def tensorrt_options(
    settings: Settings, gpu: int, on_progress: BuildProgress, single_flight: SingleFlight = alone
) -> TensorRtOptions:
    """Return how to build and keep plans. Raises ConfigError for batch sizes that cannot be."""
    return TensorRtOptions(
        plans=plans_of(settings),
        gpu=gpu,
        build=BuildOptions(
            BatchProfile.parse(settings.plan_batches), settings.plan_workspace_mib or None, settings.plan_level
        ),
        single_flight=single_flight,
        on_progress=on_progress,
    )
