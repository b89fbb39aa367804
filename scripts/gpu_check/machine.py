"""What is there: the GPU, its driver, and the versions of what matters."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from scripts.gpu_check import need
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.wishes import Wishes
from trtjob.engines.tensorrt.flavour import flavour
from trtjob.errors import TrtjobError

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "opencv-python-headless",
    "pycuda",
    "cuda-bindings",
    "torch",
    "nvidia-nvimgcodec-cu13",
    "nvidia-nvimgcodec-cu12",
    "nvidia-nvjpeg",
    "nvidia-ml-py",
)
INSTALLED, RUNS = "TensorRT or TensorRT-RTX", "it runs the sample model"
_ASKED = "name,driver_version,memory.total"


def check(wishes: Wishes) -> Iterator[Row]:
    yield Row("date", figure=f"{datetime.now(UTC):%Y-%m-%d}")
    yield Row("trtjob", figure=version("trtjob"), note=f"Python {platform.python_version()}, {platform.platform()}")
    yield Row("processor", figure=f"{len(os.sched_getaffinity(0))} cores", note=_processor())
    yield _gpu()
    yield _driver()
    yield _tensorrt()
    yield _tensorrt_runs(wishes)
    yield from map(_package, PACKAGES)


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
        return Row("GPU through pycuda", State.NOT_RUN, note=str(err))
    capability = ".".join(map(str, found.compute_capability))
    return Row(
        "GPU through pycuda",
        figure=f"{found.name}, {found.memory_bytes / 2**30:.1f} GiB",
        note=f"compute capability {capability}; CUDA driver API {_cuda_version()}",
    )


def _cuda_version() -> str:
    from trtjob.engines.tensorrt.cuda import driver

    number = driver().get_driver_version()  # 13000 for 13.0
    return f"{number // 1000}.{number % 1000 // 10}"


def _driver() -> Row:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Row("driver", State.NOT_RUN, note="there is no nvidia-smi")
    command = [tool, f"--query-gpu={_ASKED}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if answer.returncode:
        return Row("driver", State.NOT_RUN, note=f"nvidia-smi fails: {answer.stdout or answer.stderr}")
    return Row("driver", figure="; ".join(answer.stdout.strip().splitlines()), note="nvidia-smi: " + _ASKED)


def _tensorrt() -> Row:
    try:
        return Row(INSTALLED, figure=flavour().title)
    except TrtjobError as err:
        return Row(INSTALLED, State.NOT_RUN, note=str(err))


def _tensorrt_runs(wishes: Wishes) -> Row:
    try:
        return Row(RUNS, figure=need.tensorrt(wishes.home))
    except NotRun as err:
        return Row(RUNS, State.NOT_RUN, note=str(err))


def _package(name: str) -> Row:
    try:
        return Row(name, figure=version(name))
    except PackageNotFoundError:
        return Row(name, State.NOT_RUN, note="not installed")
