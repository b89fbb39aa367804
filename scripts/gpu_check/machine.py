"""What is there: the GPU, its driver, and the versions of what matters."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from scripts.gpu_check import need
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from trtjob.engines.choice import EngineKind
from trtjob.engines.cuda.driver import driver

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-bindings",
    "opencv-python-headless",
    "pycuda",
    "cuda-bindings",
    "nvidia-nvjpeg",
)
_ASKED = "name,driver_version,memory.total"


def check(_options: CheckOptions) -> Iterator[Row]:
    yield Row("date", figure=f"{datetime.now(UTC):%Y-%m-%d}")
    yield Row("trtjob", figure=version("trtjob"), note=f"Python {platform.python_version()}, {platform.platform()}")
    yield Row("processor", figure=f"{len(os.sched_getaffinity(0))} cores", note=_processor())
    yield _gpu()
    yield _driver()
    for kind in need.ON_GPU:
        yield _engine(kind)
    yield Row("packages", figure=", ".join(filter(None, map(_package, PACKAGES))))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123 - no path of ours
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


def _gpu() -> Row:
    try:
        found = need.gpu()
    except NotRun as err:
        return Row("GPU", State.NOT_RUN, note=str(err))
    capability, cuda = (".".join(map(str, pair)) for pair in (found.compute_capability, driver().version()))
    return Row(
        "GPU",
        figure=f"{found.name}, {found.memory_bytes / 2**30:.1f} GiB",
        note=f"compute capability {capability}; CUDA {cuda}, by {driver().name}",
    )


def _driver() -> Row:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Row("driver", State.NOT_RUN, note="there is no nvidia-smi")
    command = [tool, f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode:
        return Row("driver", State.NOT_RUN, note=f"nvidia-smi fails: {answer.stdout or answer.stderr}")
    return Row("driver", figure="; ".join(answer.stdout.strip().splitlines()), note="nvidia-smi: " + _ASKED)


def _engine(kind: EngineKind) -> Row:
    try:
        return Row(kind, figure=need.engine(kind))
    except NotRun as err:
        return Row(kind, State.NOT_RUN, note=str(err))


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""
