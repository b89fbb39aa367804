"""What a check needs to run at all; NotRun says what is missing."""

from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from scripts.gpu_check.rows import NotRun
from scripts.gpu_check.wishes import SAMPLE
from trtjob.config import Settings
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.engines.protocol import Engine
from trtjob.engines.tensorrt.cuda import GpuInfo, gpus
from trtjob.errors import TrtjobError
from trtjob.worker.convert import resolve_model
from trtjob.worker.engine import open_engine


def gpu() -> GpuInfo:
    """Return the first GPU. Raises NotRun where there is no pycuda, no driver or no GPU."""
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
def tensorrt(home: Path) -> str:
    """Return TensorRT's name and version once it has run the sample model. Raises NotRun with its own words."""
    from trtjob.engines.tensorrt.flavour import flavour

    gpu()
    try:
        title = flavour().title
        with opened(model(SAMPLE, home), home, "tensorrt"):
            return title
    except TrtjobError as err:
        raise NotRun(str(err)) from err


def model(path: Path, home: Path) -> RegisteredModel:
    """Return a model, converted on first use."""
    return resolve_model(str(path), registry=ModelRegistry(home / "models"))


def opened(model: RegisteredModel, home: Path, engine: str) -> Engine:
    """Open a model as a worker process would."""
    settings = Settings.model_validate({"home": home, "engine": engine})
    number = 0 if engine == "tensorrt" else None
    return open_engine(settings, model.path, model.sha256, number, on_build=lambda *_: True)
