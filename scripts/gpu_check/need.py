"""What a check needs to run at all; NotRun says what is missing."""

import os
from functools import cache
from importlib import import_module
from types import ModuleType

from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun
from trtjob.config import Settings
from trtjob.converters.registry import RegisteredModel
from trtjob.engines.choice import EngineKind, choose
from trtjob.engines.cuda.device import gpus
from trtjob.engines.cuda.interface import GpuInfo
from trtjob.engines.protocol import Engine
from trtjob.errors import TrtjobError
from trtjob.worker.engine_choice import open_engine, plans_of, tf32_in_plans

ON_GPU: tuple[EngineKind, ...] = ("cuda", "tensorrt")
BATCHES = (1, 8, 32, 64)
# One plan for every batch that is measured, made fast for the one that is compared.
PLAN_BATCHES = "1:32:64"


def gpu() -> GpuInfo:
    """Return the first GPU. Raises NotRun where there is no driver, no package for it or no GPU."""
    try:
        found = gpus()
    except TrtjobError as err:
        raise NotRun(str(err)) from err
    if not found:
        raise NotRun("there is no GPU")
    return found[0]


def module(name: str, package: str) -> ModuleType:
    """Import an optional package's module. Raises NotRun."""
    try:
        return import_module(name)
    except ImportError as err:
        raise NotRun(f"{package} cannot be imported: {err}") from err


@cache
def engine(kind: EngineKind) -> str:
    """Return what an engine is and where it runs, in words. Raises NotRun where it cannot be used here."""
    try:
        return choose(kind, "all").reason
    except TrtjobError as err:
        raise NotRun(str(err)) from err


def settings(options: CheckOptions, kind: EngineKind, **more: object) -> Settings:
    """Return the settings of a worker process with an engine."""
    return Settings.model_validate(
        {"home": options.home, "engine": kind, "plan_batches": PLAN_BATCHES, "plan_cache_gib": 200, **more}
    )


def opened(model: RegisteredModel, options: CheckOptions, kind: EngineKind, **more: object) -> Engine:
    """Open a model as a worker process would. Raises NotRun, EngineError."""
    engine(kind)
    number = None if kind == "cpu" else 0
    told = settings(options, kind, **more)
    if kind == "tensorrt" and options.is_built and not has_plan(model, told):
        raise NotRun("its plan is not built")
    return open_engine(told, model.path, model.sha256, kind, number, on_build=lambda *_: True)


def has_plan(model: RegisteredModel, told: Settings) -> bool:
    """Tell whether a model's plan for these settings is built."""
    wanted = (model.sha256, told.plan_batches, told.plan_level, tf32_in_plans(told))
    return any((p.model, p.batches, p.optimization_level, p.tf32) == wanted for p in plans_of(told).list())


def workers() -> int:
    """Return how many processes of one thread may work side by side."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
