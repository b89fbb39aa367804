"""What the doctor says of ONNX Runtime and GPUs: of real packages, beside an nvidia-smi that names any card."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import features
from stand_in import compile_driver
from terminal import ROOT, Terminal
from wheels import install

from trtjob.cli.doctor_checks import check_images, check_package, check_pictures, check_videos, check_workers
from trtjob.cli.nvidia import Card, Cards
from trtjob.config import Settings
from trtjob.engines.onnxruntime.extras import cuda_major_of_driver, extra_for
from trtjob.engines.onnxruntime.package import Package
from trtjob.imaging import scripts
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.job_store import JobStore

H200 = "NVIDIA H200, 143771 MiB, 580.105.08, 9.0"
GTX_1070 = "NVIDIA GeForce GTX 1070, 8192 MiB, 580.95.05, 6.1"
GTX_970 = "NVIDIA GeForce GTX 970, 4096 MiB, 535.183.01, 5.2"
WITH_AN_OLD_DRIVER = "NVIDIA GeForce RTX 3090, 24576 MiB, 550.54.14, 8.6"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    folder = tmp_path / "tools"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def gpu_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ONNX Runtime for GPUs in it, but none of the libraries that it needs."""
    return install(tmp_path_factory.mktemp("gpu-wheel"), "onnxruntime-gpu")


@pytest.fixture(scope="session")
def cuda_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a library that answers as CUDA's driver does, for one GPU."""
    return compile_driver(tmp_path_factory.mktemp("driver"))


def answer(tools: Path, script: str) -> None:
    """Put an nvidia-smi in place."""
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tools / "nvidia-smi").chmod(0o755)


def doctor(
    terminal: Terminal, tools: Path, *cards: str, packages: Path | None = None, **settings: str
) -> dict[str, Any]:
    """Return the doctor's findings by name, for a machine with these cards."""
    if cards:
        answer(tools, f"cat <<'END'\n{chr(10).join(cards)}\nEND")
    terminal.environment |= {"PATH": f"{tools}:{os.environ['PATH']}", **settings}
    if packages is not None:
        terminal.environment["PYTHONPATH"] = str(packages)
    # Of a process of its own is only what packages and libraries there are.
    is_as_here = packages is None and all(name.startswith("TRTJOB_") for name in settings)
    outcome = (terminal.here if is_as_here else terminal.run)("doctor", "--json")
    return {check["name"]: check for check in json.loads(outcome.out)}


@pytest.mark.slow
def test_a_gpu_is_named_with_what_decides_which_packages_it_can_use(terminal: Terminal, tools: Path) -> None:
    found = doctor(terminal, tools, H200, GTX_1070)["gpu"]["found"]
    assert "NVIDIA H200, 143771 MiB, driver 580.105.08, compute capability 9.0; NVIDIA GeForce GTX 1070" in found


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo No luck; exit 9", "nvidia-smi fails: No luck (exit code 9)", id="fails"),
        pytest.param("echo Lost >&2; exit 1", "nvidia-smi fails: Lost (exit code 1)", id="fails with an error"),
        pytest.param(r"printf 'GeForce \377, 1 MiB\n'", "does not understand: GeForce \ufffd, 1 MiB", id="no UTF-8"),
        pytest.param("echo No devices were found", "does not understand: No devices were found", id="no card"),
        pytest.param("echo 'Some, 1 MiB, 470.1, [N/A]'", "does not understand: Some, 1 MiB", id="an old one"),
    ],
)
def test_an_nvidia_smi_that_names_no_card_is_no_gpu(terminal: Terminal, tools: Path, script: str, said: str) -> None:
    answer(tools, script)
    checks = doctor(terminal, tools)
    assert checks["gpu"]["state"] == "note"
    assert said in checks["gpu"]["found"]
    assert checks["runtime"]["state"] == "ok"


@pytest.mark.parametrize(
    ("cards", "extra"),
    [
        pytest.param([H200], "cuda", id="a card and a driver of today"),
        pytest.param([GTX_1070], "cuda12", id="an old card"),
        pytest.param([WITH_AN_OLD_DRIVER], "cuda12", id="an old driver"),
        pytest.param([H200, GTX_1070], "cuda12", id="one card of two is old"),
        pytest.param([GTX_970], "cpu", id="a card that is too old"),
        pytest.param([], "cpu", id="none"),
    ],
)
def test_the_doctor_and_the_setup_choose_the_same_extra(tools: Path, cards: list[str], extra: str) -> None:
    parts = [line.rsplit(", ", 2) for line in cards]
    found = Cards(
        [Card(name, "", driver, _capability(number), cuda_major_of_driver(driver)) for name, driver, number in parts]
    )
    assert found.fitting_extra() == extra
    asked = "\n".join(f"{driver}, {number}" for _, driver, number in parts)
    answer(tools, f"cat <<'END'\n{asked}\nEND")
    assert _setup_chooses(tools) == extra


def _capability(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


def _setup_chooses(tools: Path, **environment: str) -> str:
    return _setup(tools, **environment).stdout.strip()


def _setup(tools: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Ask a copy of the script, in a folder without a .venv, which would tell what was chosen before."""
    (tools / "scripts").mkdir()
    script = tools / "scripts" / "setup.sh"
    script.write_text((ROOT / "scripts" / "setup.sh").read_text())
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "TRTJOB_SETUP": "", **environment}
    return subprocess.run(["bash", script, "which"], env=environment, capture_output=True, text=True, check=True)


def test_the_setup_takes_what_is_asked_for(tools: Path) -> None:
    answer(tools, "exit 9")
    assert _setup_chooses(tools, TRTJOB_SETUP="cuda12") == "cuda12"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        pytest.param("echo No luck; exit 9", "It says: No luck", id="fails"),
        pytest.param("echo Lost >&2; exit 1", "It says: Lost", id="fails with an error"),
        pytest.param("echo '470.1, [N/A]'", "It says: 470.1, [N/A]", id="an old one"),
        pytest.param("echo No devices were found", "It says: No devices were found", id="no card"),
    ],
)
def test_where_nvidia_smi_does_not_help_the_setup_says_how_to_choose(tools: Path, script: str, said: str) -> None:
    answer(tools, script)
    told = _setup(tools)
    assert told.stdout.strip() == "cpu"
    assert said in told.stderr
    assert "TRTJOB_SETUP=cuda, or TRTJOB_SETUP=cuda12 for Pascal and Volta" in told.stderr


def test_a_package_for_cuda_12_belongs_to_the_extra_for_it() -> None:
    assert [extra_for(12), extra_for(13), extra_for(14)] == ["cuda12", "cuda", "cuda"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("card", "extra"),
    [
        pytest.param(H200, "cuda", id="a card of today"),
        pytest.param(GTX_1070, "cuda12", id="an old card"),
    ],
)
def test_a_gpu_beside_the_package_for_the_cpu_is_noted(terminal: Terminal, tools: Path, card: str, extra: str) -> None:
    runtime = doctor(terminal, tools, card, PYTHONPATH=_without_tensorrt(tools))["runtime"]
    assert runtime["state"] == "note"
    assert "uses no GPU, and there is one" in runtime["found"]
    assert " uninstall " in runtime["fix"]
    assert runtime["fix"].endswith(f" 'trtjob[{extra}]'")


def _without_tensorrt(tools: Path) -> str:
    """Return a folder that hides what of TensorRT the development packages bring."""
    hidden = "import sys\nsys.modules['tensorrt'] = sys.modules['tensorrt_rtx'] = None\n"
    (tools / "sitecustomize.py").write_text(hidden)
    return str(tools)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("card", "extra"),
    [pytest.param(H200, "nvjpeg", id="a card of today"), pytest.param(GTX_1070, "nvjpeg12", id="an old card")],
)
def test_what_decodes_on_a_gpu_is_named_or_how_to_get_it(
    terminal: Terminal, tools: Path, tmp_path: Path, card: str, extra: str
) -> None:
    decode = doctor(terminal, tools, card)["decode"]
    assert decode["state"] == "note"
    assert decode["fix"].endswith(f"'trtjob[{extra}]'")
    there = tmp_path / "nvidia_nvjpeg-13.3.2.dist-info"
    there.mkdir()
    (there / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-nvjpeg\nVersion: 13.3.2\n")
    decode = doctor(terminal, tools, card, packages=tmp_path)["decode"]
    assert (decode["state"], decode["fix"]) == ("ok", "")
    assert "nvidia-nvjpeg 13.3.2" in decode["found"]


def test_a_user_who_wants_the_cpu_is_not_told_of_the_gpu(terminal: Terminal, tools: Path) -> None:
    assert doctor(terminal, tools, H200, TRTJOB_ENGINE="cpu")["runtime"]["state"] == "ok"


@pytest.mark.slow
def test_a_gpu_that_is_too_old_needs_nothing(terminal: Terminal, tools: Path) -> None:
    runtime = doctor(terminal, tools, GTX_970, PYTHONPATH=_without_tensorrt(tools))["runtime"]
    assert (runtime["state"], runtime["fix"]) == ("ok", "")
    assert "too old" in runtime["found"]


@pytest.mark.slow
def test_the_package_for_gpus_without_one_is_noted(terminal: Terminal, tools: Path, gpu_wheel: Path) -> None:
    answer(tools, "exit 9")
    runtime = doctor(terminal, tools, packages=gpu_wheel)["runtime"]
    assert runtime["state"] == "note"
    assert "there is no GPU here" in runtime["found"]
    assert runtime["fix"].endswith(" 'trtjob[cpu]'")


@pytest.mark.slow
def test_libraries_that_are_missing_are_named_and_packages_in_two_folders_are_no_mixture(
    terminal: Terminal, tools: Path, gpu_wheel: Path
) -> None:
    """The first on the path is the one that is imported, and the other one's files are untouched."""
    runtime = doctor(terminal, tools, H200, packages=gpu_wheel)["runtime"]
    assert runtime["state"] == "note"
    assert runtime["found"].startswith("onnxruntime-gpu ")
    assert "libcudnn.so.9" in runtime["found"]
    assert " 'onnxruntime-gpu[cuda,cudnn]==" in runtime["fix"]


@pytest.mark.slow
def test_a_package_that_is_too_new_for_the_card_is_noted(terminal: Terminal, tools: Path, gpu_wheel: Path) -> None:
    runtime = doctor(terminal, tools, GTX_1070, packages=gpu_wheel)["runtime"]
    assert "not every GPU or driver here can use" in runtime["found"]
    assert runtime["fix"].endswith(" 'trtjob[cuda12]'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "order",
    [
        pytest.param(["onnxruntime", "onnxruntime-gpu"], id="that for GPUs last"),
        pytest.param(["onnxruntime-gpu", "onnxruntime"], id="that for the CPU last"),
    ],
)
def test_both_packages_in_one_folder_are_a_fault_and_the_gpu_decides_which_stays(
    terminal: Terminal, tools: Path, tmp_path: Path, order: list[str]
) -> None:
    both = install(tmp_path / "both", *order)
    runtime = doctor(terminal, tools, H200, packages=both)["runtime"]
    assert runtime["state"] == "broken"
    assert f"the files are those of {order[-1]} " in runtime["found"]
    assert " --no-deps onnxruntime-gpu==" in runtime["fix"]
    answer(tools, "exit 9")
    assert " --no-deps onnxruntime==" in doctor(terminal, tools, packages=both)["runtime"]["fix"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo broken; exit 9", id="fails"),
        pytest.param(
            """echo 'Field "compute_cap" is not a valid field to query.'; exit 2""",
            id="an old one",
            marks=pytest.mark.chaos,
        ),
        pytest.param("echo 'Some, 1 MiB, 470.1, [N/A]'", id="does not know it"),
        pytest.param("exec sleep 60", id="hangs", marks=pytest.mark.slow),
    ],
)
def test_cuda_s_driver_names_the_cards_where_nvidia_smi_does_not(
    terminal: Terminal, tools: Path, cuda_driver: Path, script: str
) -> None:
    answer(tools, script)
    checks = doctor(terminal, tools, LD_LIBRARY_PATH=str(cuda_driver), CUDA_STAND_IN_CAPABILITY="61")
    found = checks["gpu"]["found"]
    assert found.startswith("NVIDIA Stand-in, 2048 MiB, driver for CUDA up to 13.0, compute capability 6.1: ")
    assert "so says CUDA's driver, but nvidia-smi " in found
    assert checks["runtime"]["fix"].endswith(" 'trtjob[cuda12]'")


@pytest.mark.slow
def test_the_package_for_gpus_stays_where_only_nvidia_smi_fails(
    terminal: Terminal, tools: Path, cuda_driver: Path, gpu_wheel: Path
) -> None:
    answer(tools, "exit 9")
    runtime = doctor(terminal, tools, packages=gpu_wheel, LD_LIBRARY_PATH=str(cuda_driver))["runtime"]
    assert "libraries of CUDA are missing" in runtime["found"]
    assert "uninstall" not in runtime["fix"]


@pytest.mark.slow
def test_a_card_that_tensorrt_refuses_is_not_tensorrt_s(terminal: Terminal, tools: Path, cuda_driver: Path) -> None:
    """Whichever TensorRT the development packages bring: none of them serves it."""
    checks = doctor(terminal, tools, GTX_1070, LD_LIBRARY_PATH=str(cuda_driver), CUDA_STAND_IN_CAPABILITY="61")
    assert checks["runtime"]["state"] == "note"
    assert checks["runtime"]["fix"].endswith(" 'trtjob[cuda12]'")
    assert checks["engine"]["state"] == "note"
    assert "trtjob[cuda12]" in checks["engine"]["found"]
    assert "trtjob[cuda]" not in checks["engine"]["found"]
    assert "Install TensorRT 8.6" in checks["engine"]["found"]


@pytest.mark.slow
def test_the_engine_is_not_ok_where_the_installed_cuda_does_not_serve_the_card(
    terminal: Terminal, tools: Path, cuda_driver: Path, gpu_wheel: Path
) -> None:
    environment = {"LD_LIBRARY_PATH": str(cuda_driver), "CUDA_STAND_IN_CAPABILITY": "61"}
    engine = doctor(terminal, tools, GTX_1070, packages=gpu_wheel, **environment)["engine"]
    assert engine["state"] == "note"
    assert "needs compute capability 7.5" in engine["found"]


@pytest.mark.parametrize(
    ("driver", "capability", "end"),
    [
        pytest.param("580.1", (9, 0), " --no-deps onnxruntime-gpu==1.31.1", id="a card of today keeps it"),
        pytest.param("580.1", (6, 1), " 'trtjob[cuda12]'", id="too new for the card"),
        pytest.param("550.1", (8, 6), " 'trtjob[cuda12]'", id="too new for the driver"),
        pytest.param("535.1", (5, 2), " --no-deps onnxruntime==1.32.0", id="no card for CUDA"),
    ],
)
def test_the_mixture_is_mended_to_what_the_next_look_accepts(
    driver: str, capability: tuple[int, int], end: str
) -> None:
    both = Package({"onnxruntime": "1.32.0", "onnxruntime-gpu": "1.31.1"}, "onnxruntime", "1.32.0", "")
    cards = Cards([Card("a card", "", driver, capability, cuda_major_of_driver(driver))])
    assert check_package(both, cards).fix.endswith(end)


def test_what_is_left_without_any_package_is_mended_by_an_install() -> None:
    assert check_package(Package({}, "", "", ""), Cards()).fix.endswith(" 'trtjob[cpu]'")


@pytest.mark.slow
@pytest.mark.parametrize("gpus", ["7", "banana"])
def test_a_wrong_setting_of_gpus_is_mended_by_its_fix(terminal: Terminal, tools: Path, gpus: str) -> None:
    engine = doctor(terminal, tools, TRTJOB_GPUS=gpus)["engine"]
    assert engine["state"] == "missing"
    name, _, value = engine["fix"].removeprefix("set ").partition("=")
    assert doctor(terminal, tools, **{name: value})["engine"]["state"] == "ok"


@pytest.mark.parametrize("gpus", ["7", "banana"])
def test_gpus_that_cannot_be_are_wrong_usage_also_without_a_driver(terminal: Terminal, gpus: str) -> None:
    outcome = terminal.here("worker", "--gpus", gpus)
    assert outcome.code == 2
    assert f"--gpus '{gpus}'" in outcome.err


@pytest.mark.parametrize(("is_there", "state"), [(True, "ok"), (False, "note")])
def test_whether_videos_are_read_is_said(monkeypatch: pytest.MonkeyPatch, is_there: bool, state: str) -> None:
    monkeypatch.setattr("trtjob.imaging.video_package.find_spec", lambda _name: object() if is_there else None)
    finding = check_videos()
    assert (finding.state, "trtjob[video]" in finding.fix) == (state, not is_there)


@pytest.mark.parametrize(
    ("shapes", "said"),
    [(False, "Pillow finds no FriBiDi"), (True, "no font for Arabic, Devanagari, Hebrew")],
)
def test_scripts_that_pictures_cannot_show_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: bool, said: str
) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    monkeypatch.setattr(features, "check", lambda _name: shapes)  # as where the system has no FriBiDi
    caches = (scripts.system_fonts, scripts.font_runs, scripts.can_shape)
    for cached in caches:
        cached.cache_clear()
    found = check_pictures()
    for cached in caches:
        cached.cache_clear()
    assert (found.name, found.state) == ("pictures", "note")
    assert said in found.found


def test_images_that_need_an_extra_are_named_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, module, None)
    finding = check_images()
    assert (finding.state, finding.fix) == ("note", "pip install 'trtjob[heif,jxl]'")
    assert "HEIC and JPEG XL" in finding.found


def test_what_a_daemon_of_this_machine_has_trouble_with_is_told(server: EmbeddedServer, store: JobStore) -> None:
    settings = Settings.model_validate({"redis_url": server.url})
    report = {"pid": 1, "queue": "trtjob", "engine": "cuda", "processes": 2, "restarts": "{}"}
    pause = "GPU 1: its worker process died 3 times in a row, last of its GPU failed; pause of 2 s"
    store.report_daemon("here-1", report | {"host": socket.gethostname(), "trouble": ""})
    check = check_workers(settings)
    assert (check.state, check.found) == ("ok", "2 worker processes on this machine")
    store.report_daemon("elsewhere-1", report | {"host": "elsewhere", "trouble": "no room"})
    store.report_daemon("here-2", report | {"host": socket.gethostname(), "trouble": pause})
    check = check_workers(settings)
    assert (check.state, check.found) == ("note", pause)
