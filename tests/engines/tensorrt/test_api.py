"""Every name that we use of TensorRT exists in the real Python module of 11.x, and in TensorRT-RTX's."""

import json
import os
import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from conftest import missing_service
from engines.tensorrt import api_uses

pytestmark = pytest.mark.extra

LIBRARIES = ("libnvinfer.so.11", "libnvinfer_plugin.so.11", "libnvonnxparser.so.11")


@pytest.fixture(scope="module")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libraries that the full TensorRT's module is linked to, empty as they are."""
    compiler = which("cc") or which("gcc")
    if compiler is None:
        missing_service("a C compiler is needed to check our use of TensorRT: apt install gcc")
        raise AssertionError
    folder = tmp_path_factory.mktemp("stubs")
    for name in LIBRARIES:
        source = Path(__file__).with_name("nvinfer_stub.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True
        )
    return folder


def look(module: str, libraries: Path | None) -> dict[str, Any]:
    """Have another process import a TensorRT and look for what we use of it."""
    environment = dict(os.environ) if libraries is None else {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    done = subprocess.run(
        [sys.executable, api_uses.__file__, module], env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_full_tensorrt_11_knows_every_name_that_we_use(stubs: Path) -> None:
    answer = look("tensorrt_bindings", stubs)
    assert answer["version"].startswith("11.")
    assert answer["looked_at"] > 40
    assert answer["calls"] > 20
    assert answer["unknown"] == []


def test_tensorrt_rtx_knows_every_name_that_we_use() -> None:
    assert look("tensorrt_rtx", None)["unknown"] == []


def test_a_name_that_is_gone_from_tensorrt_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("flag = trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH\nengine.num_bindings\n")
    uses = {chain for _, _, chain in api_uses.uses_in(tmp_path / "old.py")}
    assert ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH") in uses
    assert ("ICudaEngine", "num_bindings") in uses
    import tensorrt_rtx

    assert [chain for chain in sorted(uses) if not api_uses._is_known(tensorrt_rtx, chain)] == [
        ("ICudaEngine", "num_bindings"),
        ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH"),
    ]


@pytest.mark.parametrize(
    ("line", "is_taken"),
    [
        pytest.param("builder.create_network(0)", True, id="as it is"),
        pytest.param("builder.create_network(flags=0)", True, id="by its keyword"),
        pytest.param("builder.create_network(flag=0)", False, id="a wrong keyword"),
        pytest.param("builder.create_network(0, 1)", False, id="one too many"),
        pytest.param("profile.set_shape('images', min=1, opt=2, max=3)", True, id="all keywords"),
        pytest.param("profile.set_shape('images', 1, 2)", False, id="one too few"),
        pytest.param("profile.set_shape('images', min=1, best=2, max=3)", False, id="an unknown one"),
    ],
)
def test_the_arguments_of_a_call_are_checked(tmp_path: Path, line: str, is_taken: bool) -> None:
    import tensorrt_rtx

    (tmp_path / "use.py").write_text(line)
    (call,) = api_uses.calls_in(tmp_path / "use.py")
    assert api_uses.is_taken(tensorrt_rtx, call) is is_taken
