"""CUDA's driver as we use it, and the choice of an engine where there is a GPU, on any machine: with a stand-in for it.

The library keeps account of contexts, memory and streams as NVIDIA's does (cuda_stand_in.c). It is put before the real
one for child processes alone.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stand_in import compile_driver
from wheels import install

from trtjob.worker.exit_codes import DEVICE_LOST
from trtjob.worker.worker_config import WorkerConfig

pytestmark = pytest.mark.extra

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a library that calls itself libcuda.so.1."""
    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def gpu_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ONNX Runtime for GPUs and CUDA 13 in it."""
    return install(tmp_path_factory.mktemp("gpu-wheel"), "onnxruntime-gpu")


def run(driver: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    told = {**os.environ, "LD_LIBRARY_PATH": str(driver), **environment}
    return subprocess.run([sys.executable, *command], env=told, capture_output=True, text=True, check=False)


# Each question is answered by a fork of a process that has imported what takes long, and looked at no GPU.
CHOOSE = """
import json, os, sys
from dataclasses import asdict
import trtjob.config, trtjob.engines.cuda.bindings, trtjob.engines.cuda.device
from trtjob.engines.choice import choose
from trtjob.errors import TrtjobError
for question in sys.stdin:
    if os.fork():
        os.wait()
        print(flush=True)  # the end of the answer
        continue
    environment, wish, asked, hidden = json.loads(question)
    os.environ.clear()
    os.environ.update(environment)
    for name in hidden.split():
        sys.modules[name] = None  # as if it were not installed
    for gpus in asked.split():
        try:
            choice = choose(wish, gpus)
            print(json.dumps(asdict(choice) | {"called": [gpu.called for gpu in choice.gpus]}))
        except TrtjobError as err:
            print(json.dumps({"error": str(err)}))
    break
"""

Chooser = subprocess.Popen[str]


@pytest.fixture(scope="module", autouse=True)
def _choosers() -> Iterator[None]:
    """Whoever was asked ends with the last test."""
    yield
    while _started:
        _, chooser = _started.popitem()
        chooser.communicate()
        assert chooser.returncode == 0


_started: dict[tuple[str, str], Chooser] = {}


def _chooser(environment: dict[str, str]) -> Chooser:
    """Return who finds these libraries and packages."""
    where = environment["LD_LIBRARY_PATH"], environment.get("PYTHONPATH", "")
    if where not in _started:
        command = [sys.executable, "-c", CHOOSE]
        _started[where] = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    return _started[where]


def choices(driver: Path, wish: str, gpus: str, hidden: str = "", **environment: str) -> list[dict[str, Any]]:
    """Return the choices of a process that sees the stand-in's GPUs.

    gpus: of one choice each, separated by spaces; hidden: packages that it does not have.
    """
    told = {**os.environ, "LD_LIBRARY_PATH": str(driver), **environment}
    chooser = _chooser(told)
    assert chooser.stdin is not None
    assert chooser.stdout is not None
    chooser.stdin.write(json.dumps([told, wish, gpus, hidden]) + "\n")
    chooser.stdin.flush()
    answers = [json.loads(line) for line in iter(chooser.stdout.readline, "\n")]
    assert len(answers) == len(gpus.split())
    return answers


def chosen(driver: Path, wish: str, gpus: str = "all", hidden: str = "", **environment: str) -> dict[str, Any]:
    (choice,) = choices(driver, wish, gpus, hidden, **environment)
    return choice


@pytest.mark.slow
@pytest.mark.timeout(180)  # it runs other tests
def test_the_tests_of_cuda_pass_with_cuda_bindings(driver: Path) -> None:
    which_ones = "(cuda-bindings or another_thread) and not graph and not other_libraries"
    options = ("-q", "-m", "gpu", "-k", which_ones, "-p", "no:cacheprovider", "-p", "no:randomly")
    ended = run(driver, "-m", "pytest", *options, str(HERE / "test_cuda.py"))
    assert ended.returncode == 0, ended.stdout
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    assert int(passed[1]) >= 6


@pytest.mark.slow
def test_the_engines_for_gpus_do_what_every_engine_must_do(driver: Path) -> None:
    tests = [str(HERE / name) for name in ("test_protocol.py", "test_pinned.py")]
    options = ("-q", "-m", "gpu", "-p", "engines.on_host", "-p", "no:cacheprovider", "-p", "no:randomly")
    ended = run(driver, "-m", "pytest", *options, *tests, PYTHONPATH=str(HERE.parent))
    assert ended.returncode == 0, ended.stdout
    passed = re.search(r"(\d+) passed", ended.stdout)
    assert passed is not None
    assert int(passed[1]) >= 130


@pytest.mark.slow
def test_auto_takes_tensorrt_where_it_is_installed(driver: Path) -> None:
    choice = chosen(driver, "auto", hidden="tensorrt", CUDA_STAND_IN_CAPABILITY="89")
    assert (choice["engine"], choice["called"], choice["is_wanting"]) == ("tensorrt", ["GPU 0"], False)
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


@pytest.mark.slow
def test_who_asks_for_an_engine_is_told_why_it_cannot_be(driver: Path) -> None:
    assert "is the one for the CPU" in chosen(driver, "cuda")["error"]
    told = chosen(driver, "tensorrt", hidden="tensorrt tensorrt_rtx")["error"]
    assert told.startswith("the package 'tensorrt' is not installed")


def test_a_driver_without_a_gpu_is_told_apart_from_none(driver: Path) -> None:
    told = chosen(driver, "tensorrt", hidden="tensorrt", CUDA_STAND_IN_GPUS="0")["error"]
    assert told.startswith("CUDA cannot be used: ")
    assert told.endswith("Does nvidia-smi show a GPU?")


TWO = {"CUDA_STAND_IN_GPUS": "2", "CUDA_STAND_IN_CAPABILITY": "89"}
FIRST, SECOND = "GPU-11111111-1111-1111-1111-111111111111", "GPU-22222222-2222-2222-2222-222222222222"
PARTS = tuple(f"MIG-{byte * 4}-{byte * 2}-{byte * 2}-{byte * 2}-{byte * 6}" for byte in ("a0", "a1"))


@pytest.mark.slow
def test_gpus_are_chosen_by_their_numbers_and_known_by_name_and_place(driver: Path) -> None:
    both, neither, all_there = choices(driver, "auto", "1,0 2 all", "tensorrt", **TWO)
    assert both["called"] == ["GPU 1", "GPU 0"]
    assert "there is no GPU 2; this machine has 2" in neither["error"]
    assert places(all_there) == [(FIRST, "0000:3B:00.0"), (SECOND, "0000:3C:00.0")]


def places(choice: dict[str, Any]) -> list[tuple[str, str]]:
    return [(gpu["place"]["visible_as"], gpu["place"]["pci_bus_id"]) for gpu in choice["gpus"]]


@pytest.mark.slow
@pytest.mark.parametrize("visible", ["1", SECOND, "GPU-2222"])
def test_cuda_visible_devices_says_which_gpus_there_are(driver: Path, visible: str) -> None:
    all_there, hidden = choices(driver, "auto", f"all {FIRST}", "tensorrt", **TWO, CUDA_VISIBLE_DEVICES=visible)
    assert (places(all_there), all_there["called"]) == ([(SECOND, "0000:3C:00.0")], ["GPU 0"])
    assert f"there is no GPU {FIRST}; this machine has {SECOND}" in hidden["error"]


@pytest.mark.slow
def test_the_order_of_cuda_visible_devices_is_that_of_the_numbers(driver: Path) -> None:
    first, *_ = choices(driver, "auto", "0", "tensorrt", **TWO, CUDA_VISIBLE_DEVICES="1,0")
    assert (places(first), first["called"]) == ([(SECOND, "0000:3C:00.0")], ["GPU 0"])


@pytest.mark.slow
def test_an_empty_cuda_visible_devices_hides_all_gpus(driver: Path) -> None:
    choice = chosen(driver, "auto", "all", "tensorrt", **TWO, CUDA_VISIBLE_DEVICES="")
    assert (choice["engine"], choice["gpus"]) == ("cpu", [])


@pytest.mark.slow
def test_all_parts_of_gpus_are_taken_that_cuda_visible_devices_names(driver: Path) -> None:
    """A process sees only the first of them."""
    shown = {"CUDA_STAND_IN_PARTS": "2", "CUDA_VISIBLE_DEVICES": ",".join(PARTS), "CUDA_STAND_IN_CAPABILITY": "89"}
    choice, second, third = choices(driver, "auto", "all 1 2", "tensorrt", **shown)
    assert [place for place, _ in places(choice)] == list(PARTS)
    assert choice["called"] == list(PARTS)
    assert [gpu["is_here"] for gpu in choice["gpus"]] == [True, False]
    assert "Stand-in MIG 1g.1gb" in choice["reason"]
    assert second["called"] == [PARTS[1]]
    assert "there is no GPU 2; CUDA_VISIBLE_DEVICES names 2, from 0 on" in third["error"]


@pytest.mark.slow
def test_a_part_of_a_gpu_is_chosen_by_its_name(driver: Path) -> None:
    parts = {"CUDA_STAND_IN_PARTS": "2", "CUDA_STAND_IN_CAPABILITY": "89"}
    assert places(chosen(driver, "auto", PARTS[1], "tensorrt", **parts)) == [(PARTS[1], "0000:3C:00.0")]
    told = chosen(driver, "auto", PARTS[1], "tensorrt", **parts, CUDA_VISIBLE_DEVICES=PARTS[0])["error"]
    assert f"there is no GPU {PARTS[1]}; this machine has {PARTS[0]}" in told


def test_auto_does_not_go_on_to_the_cpu_where_a_gpu_is_named_that_is_not_there(driver: Path) -> None:
    told = chosen(driver, "auto", "7", "tensorrt tensorrt_rtx")["error"]
    assert "there is no GPU 7; this machine has 1" in told


@pytest.mark.slow
def test_a_process_whose_gpu_has_gone_ends_before_it_takes_any_work(driver: Path, tmp_path: Path) -> None:
    """Else the CPU would do it, or a GPU that is another process's."""
    settings = {"home": str(tmp_path), "redis_url": "redis://127.0.0.1:1/0"}
    config = WorkerConfig("worker-1", "cuda", 0, "GPU 1", settings, 0, 1, None, [])
    ended = subprocess.run(
        [sys.executable, "-m", "trtjob.worker.process"],
        env={**os.environ, "LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": SECOND},
        input=json.dumps(config._asdict()) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == DEVICE_LOST
    assert "the GPU is not there: the worker process ends" in ended.stderr
    assert "gpu=GPU 1" in ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "extra"), [pytest.param("61", "cuda12", id="GTX 1070"), pytest.param("90", "cuda", id="H200")]
)
def test_the_advice_names_the_extra_that_fits_the_card(driver: Path, capability: str, extra: str) -> None:
    told = chosen(driver, "cuda", CUDA_STAND_IN_CAPABILITY=capability)["error"]
    assert told.endswith(f" 'trtjob[{extra}]'")


def test_a_card_that_is_too_old_for_all_is_told_so(driver: Path) -> None:
    told = chosen(driver, "cuda", CUDA_STAND_IN_CAPABILITY="52")["error"]
    assert told.endswith("needs driver 525 and compute capability 6.0. Use --engine cpu")


@pytest.mark.slow
def test_without_tensorrt_an_old_card_is_told_which_version_is_for_it(driver: Path) -> None:
    reason = chosen(driver, "auto", hidden="tensorrt tensorrt_rtx", CUDA_STAND_IN_CAPABILITY="61")["reason"]
    assert (
        "TensorRT: it is not installed. NVIDIA Stand-in has compute capability 6.1. Install TensorRT 8.6, or" in reason
    )
    assert "trtjob[tensorrt]" not in reason


@pytest.mark.slow
def test_auto_goes_on_to_cuda_where_tensorrt_rtx_refuses_the_card(driver: Path, gpu_wheel: Path) -> None:
    choice = chosen(driver, "auto", hidden="tensorrt", PYTHONPATH=str(gpu_wheel))
    assert (choice["engine"], choice["called"]) == ("cuda", ["GPU 0"])
    assert "serves 8.0 to 8.x and 12.0 to 12.x" in choice["reason"]


@pytest.mark.slow
def test_a_card_that_the_installed_cuda_does_not_serve_is_not_taken(driver: Path, gpu_wheel: Path) -> None:
    choice = chosen(driver, "auto", PYTHONPATH=str(gpu_wheel), CUDA_STAND_IN_CAPABILITY="61")
    assert (choice["engine"], choice["is_wanting"]) == ("cpu", True)
    assert "is for CUDA 13, which needs compute capability 7.5: NVIDIA Stand-in has 6.1" in choice["reason"]
    assert choice["reason"].endswith(" 'trtjob[cuda12]'")
