"""The Dockerfile: what its linter and we ask of it, and its commands for Python's packages, run outside of a build."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from terminal import ROOT

DOCKER = ROOT / "docker"
Stages = dict[str, list[tuple[str, str]]]
TARGETS = ("cpu", "gpu")


def of(stages: Stages, stage: str, keyword: str) -> list[str]:
    """Return what a stage gives to an instruction, each time that it stands there."""
    return [rest for name, rest in stages[stage] if name == keyword]


def test_the_linter_finds_nothing(tool: Callable[[str], str]) -> None:
    command = [tool("hadolint"), "--config", str(DOCKER / "hadolint.yaml"), str(DOCKER / "Dockerfile")]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_image_from_outside_is_pinned_by_its_digest(stages: Stages) -> None:
    arguments = dict(rest.split("=", 1) for rest in of(stages, "", "ARG"))
    bases = [of(stages, stage, "FROM")[0].split()[0] for stage in stages if stage]
    outside = [base for base in bases if base not in stages]
    assert outside == ["${BASE}"]
    assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", arguments["BASE"])


def test_every_version_that_can_be_chosen_has_a_default(stages: Stages) -> None:
    for stage in filter(None, stages):
        for argument in of(stages, stage, "ARG"):
            name, _, default = argument.partition("=")
            default = default or dict(rest.split("=", 1) for rest in of(stages, "", "ARG")).get(name, "")
            is_optional = name in {"EXTRA", "ONNXRUNTIME", "TENSORRT", "TENSORRT_INDEX"}
            assert is_optional or re.search(r"\d+\.\d+", default), argument


def test_the_index_of_nvidia_has_no_default(stages: Stages) -> None:
    assert "TENSORRT_INDEX" in of(stages, "gpu-dependencies", "ARG")


@pytest.mark.parametrize("target", TARGETS)
def test_the_user_is_not_root_and_a_number_so_that_kubernetes_can_see_it(stages: Stages, target: str) -> None:
    assert of(stages, target, "USER") == ["10001:10001"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("keyword", ["ENTRYPOINT", "CMD"])
def test_no_shell_stands_between_a_signal_and_trtjob(stages: Stages, target: str, keyword: str) -> None:
    (given,) = of(stages, target, keyword)
    assert isinstance(json.loads(given), list)


@pytest.mark.parametrize("target", TARGETS)
def test_the_health_check_asks_where_the_worker_answers(stages: Stages, target: str) -> None:
    (check,) = of(stages, target, "HEALTHCHECK")
    port = re.search(r"TRTJOB_HTTP=0\.0\.0\.0:(\d+)", " ".join(of(stages, target, "ENV")))
    assert port is not None
    assert f"http://127.0.0.1:{port[1]}/readyz" in check
    assert of(stages, target, "EXPOSE") == [port[1]]


def test_what_is_copied_is_there_and_nothing_else_can_get_in(stages: Stages) -> None:
    copied = {
        source
        for stage in stages
        for rest in of(stages, stage, "COPY")
        if "--from=" not in rest
        for source in rest.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all(any(ROOT.glob(source)) for source in copied)


def _files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "docker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_names_a_server_on_the_internet() -> None:
    """Which registry and which mirror is for those who build to say."""
    for path in _files():
        hosts = re.findall(r"https?://([\w.-]+)", path.read_text())
        assert all(host == "127.0.0.1" or host.endswith(".example") or "." not in host for host in hosts), path


def _as_plain_processes(stages: Stages, tmp_path: Path, uv: str) -> Path:
    """Run the commands of the stages that install Python's packages, with folders of a test's own. Returns /opt."""
    opt, source = tmp_path / "opt", tmp_path / "src"
    source.mkdir()
    for stage in ("dependencies", "package"):
        for keyword, rest in stages[stage]:
            if keyword == "COPY":
                *patterns, target = rest.split()
                names = [name for pattern in patterns for name in ROOT.glob(pattern)]
                if target.endswith("/"):
                    (source / target).mkdir(exist_ok=True)
                subprocess.run(["cp", "-r", *names, source / target.rstrip("/")], check=True)
            if keyword == "RUN":
                command = re.sub(r"--mount=\S+ ", "", rest).replace("/opt/", f"{opt}/")
                command = command.replace("/tmp/wheel", f"{tmp_path}/wheel").replace("python${PYTHON}", sys.executable)
                environment = {**os.environ, "PATH": f"{Path(uv).parent}:{os.environ['PATH']}"}
                subprocess.run(["sh", "-ec", command], cwd=source, env=environment, check=True, capture_output=True)
    return opt


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_stages_make_an_environment_in_which_trtjob_runs(
    stages: Stages, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    opt = _as_plain_processes(stages, tmp_path, tool("uv"))
    (copies,) = [[rest.split() for rest in of(stages, "cpu", "COPY") if "--from=" in rest]]
    for _, source, target in copies:
        assert target == "/opt/trtjob"
        if source != target:
            layer = opt / Path(source).relative_to("/opt")
            subprocess.run(["cp", "-r", f"{layer}/.", opt / "trtjob"], check=True)
    command = opt / "trtjob" / "bin" / "trtjob"
    assert command.read_text().splitlines()[0] == f"#!{opt}/trtjob/bin/python"
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, cwd=tmp_path)
    assert shown.stdout.startswith("trtjob ")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("arguments", "installed"),
    [
        pytest.param(
            {"TENSORRT": "tensorrt-rtx-cu13==1.7.1.116"},
            ["onnxruntime-gpu==1.", "nvidia-cudnn-cu13==", "cuda-bindings==13.", "tensorrt-rtx-cu13==1.7.1.116"],
            id="for CUDA 13 with TensorRT-RTX",
        ),
        pytest.param(
            {"ONNXRUNTIME": "cuda12"},
            ["onnxruntime-gpu==1.26.", "nvidia-cudnn-cu12==9.10.", "cuda-bindings==12."],
            id="for old cards",
        ),
    ],
)
def test_the_image_for_gpus_gets_one_onnx_runtime_and_what_it_needs(
    stages: Stages, tmp_path: Path, tool: Callable[[str], str], arguments: dict[str, str], installed: list[str]
) -> None:
    """Only found out, not downloaded: it would be gigabytes."""
    (command,) = of(stages, "gpu-dependencies", "RUN")
    command = (
        re.sub(r"--mount=\S+ ", "", command).replace("/opt/", f"{tmp_path}/").replace("python${PYTHON}", sys.executable)
    )
    (*names, _) = of(stages, "gpu-dependencies", "COPY")[0].split()
    subprocess.run(["cp", *names, tmp_path], cwd=ROOT, check=True)
    defaults = dict(argument.split("=", 1) for argument in of(stages, "gpu-dependencies", "ARG") if "=" in argument)
    environment = {**os.environ, **defaults, **arguments, "PATH": f"{Path(tool('uv')).parent}:{os.environ['PATH']}"}
    found = subprocess.run(["sh", "-ec", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(f" + {package}" in found.stderr for package in installed), found.stderr
    assert " + onnxruntime==" not in found.stderr


@pytest.mark.parametrize(
    ("tensorrt", "index", "refused"),
    [
        pytest.param("tensorrt-cu13==11.4.0.106", "", True, id="the full TensorRT needs the index"),
        pytest.param("tensorrt-cu13==11.4.0.106", "https://index.example", False, id="and is content with one"),
        pytest.param("tensorrt-rtx-cu13==1.7.1.116", "", False, id="TensorRT-RTX does not"),
        pytest.param("", "", False, id="nor does an image without TensorRT"),
    ],
)
def test_a_build_without_the_index_of_nvidia_says_what_is_missing(
    stages: Stages, tensorrt: str, index: str, refused: bool
) -> None:
    (command,) = of(stages, "gpu-dependencies", "RUN")
    guard = command[command.index("case ") : command.index("esac") + 4]
    environment = {**os.environ, "TENSORRT": tensorrt, "TENSORRT_INDEX": index}
    checked = subprocess.run(["sh", "-c", guard], env=environment, capture_output=True, text=True)
    assert (checked.returncode != 0) is refused
    assert ("docker/README.md" in checked.stderr) is refused
