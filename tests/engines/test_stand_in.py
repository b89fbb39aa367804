"""CUDA's driver as we use it, and the choice of an engine where there is a GPU, on any machine: with a stand-in for it.

The library keeps account of contexts, memory and streams as NVIDIA's does (cuda_stand_in.c). It is put before the real
one for child processes alone.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from conftest import missing_service

pytestmark = pytest.mark.extra

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a library that calls itself libcuda.so.1."""
    compiler = which("cc") or which("gcc")
    if compiler is None:
        missing_service("a C compiler is needed for a stand-in of CUDA's driver: apt install gcc")
        raise AssertionError
    folder = tmp_path_factory.mktemp("driver")
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([compiler, *options, str(HERE / "cuda_stand_in.c"), "-lpthread"], check=True)
    return folder


def run(driver: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {**os.environ, "LD_LIBRARY_PATH": str(driver), **environment}
    return subprocess.run([sys.executable, *command], env=told, capture_output=True, text=True, check=False)


CHOOSE = """
import json, sys
from dataclasses import asdict
for name in sys.argv[3:]:
    sys.modules[name] = None  # as if it were not installed
from trtjob.engines.choice import choose
from trtjob.errors import TrtjobError
try:
    print(json.dumps(asdict(choose(sys.argv[1], sys.argv[2]))))
except TrtjobError as err:
    print(json.dumps({"error": str(err)}))
"""


def chosen(driver: Path, wish: str, gpus: str = "all", hidden: str = "", **environment: str) -> dict[str, Any]:
    """Return the choice of a process that sees the stand-in's GPU. hidden: packages that it does not have."""
    ended = run(driver, "-c", CHOOSE, wish, gpus, *hidden.split(), **environment)
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


@pytest.mark.slow
def test_the_tests_of_cuda_pass_with_cuda_bindings(driver: Path) -> None:
    which_ones = "(cuda-bindings or another_thread) and not graph and not other_libraries"
    options = ("-q", "-m", "gpu", "-k", which_ones, "-p", "no:cacheprovider", "-p", "no:randomly")
    ended = run(driver, "-m", "pytest", *options, str(HERE / "test_cuda.py"))
    assert ended.returncode == 0, ended.stdout
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    assert int(passed[1]) >= 6


def test_auto_takes_tensorrt_where_it_is_installed(driver: Path) -> None:
    choice = chosen(driver, "auto", hidden="tensorrt")
    assert (choice["engine"], choice["gpus"], choice["is_wanting"]) == ("tensorrt", [0], False)
    assert re.fullmatch(r"TensorRT-RTX [\d.]+ on GPU 0 \(NVIDIA Stand-in\)", choice["reason"])


def test_a_gpu_that_nothing_installed_can_use_is_said_to_be_there_with_what_to_install(driver: Path) -> None:
    choice = chosen(driver, "auto", hidden="tensorrt tensorrt_rtx")
    assert (choice["engine"], choice["gpus"], choice["is_wanting"]) == ("cpu", [], True)
    assert choice["reason"].startswith("ONNX Runtime on the CPU, though NVIDIA's driver is installed. TensorRT: ")
    assert "pip install 'trtjob[tensorrt]'" in choice["reason"]
    assert "is the one for the CPU. Put the one for GPUs in its place: " in choice["reason"]


def test_a_card_that_tensorrt_does_not_serve_is_named_with_the_version_that_does(driver: Path) -> None:
    choice = chosen(driver, "auto", hidden="tensorrt", CUDA_STAND_IN_CAPABILITY="61")
    assert choice["engine"] == "cpu"
    assert "NVIDIA Stand-in has compute capability 6.1" in choice["reason"]
    assert "Install TensorRT 8.6, or run it with --engine cuda" in choice["reason"]


def test_who_asks_for_an_engine_is_told_why_it_cannot_be(driver: Path) -> None:
    assert "is the one for the CPU" in chosen(driver, "cuda")["error"]
    told = chosen(driver, "tensorrt", hidden="tensorrt tensorrt_rtx")["error"]
    assert told.startswith("the package 'tensorrt' is not installed")


def test_a_driver_without_a_gpu_is_told_apart_from_none(driver: Path) -> None:
    told = chosen(driver, "tensorrt", hidden="tensorrt", CUDA_STAND_IN_GPUS="0")["error"]
    assert told.startswith("CUDA cannot be used: ")
    assert told.endswith("Does nvidia-smi show a GPU?")


def test_gpus_are_chosen_by_their_numbers(driver: Path) -> None:
    assert chosen(driver, "auto", "1,0", "tensorrt", CUDA_STAND_IN_GPUS="2")["gpus"] == [1, 0]
    assert (
        "there is no GPU 2; this machine has 2"
        in chosen(driver, "auto", "2", "tensorrt", CUDA_STAND_IN_GPUS="2")["error"]
    )
