"""Every name that we use of TensorRT exists in the real Python modules of 8.6 to 11, and in TensorRT-RTX's.

`scripts/tensorrt_bindings.sh` brings the modules; the libraries that they are linked to are empty ones, made here.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from conftest import missing_service
from engines.tensorrt import api_uses
from terminal import ROOT

pytestmark = pytest.mark.extra

BINDINGS = Path(sys.prefix) / "tensorrt-bindings"
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser", "libnvparsers")  # the last of 8.6 alone


@dataclass(frozen=True)
class Expected:
    """What is known of a version. named: of the names that are not in all versions, those that it has."""

    version: str
    is_weakly_typed: bool
    network_flags: int
    has_monitor: bool
    lowest: tuple[int, int]
    named: frozenset[str]

    @property
    def soname(self) -> str:
        return self.version.split(".")[0]


_OF_WEAK = {"BuilderFlag.FP16", "BuilderFlag.INT8", "BuilderFlag.PREFER_PRECISION_CONSTRAINTS"}
_SINCE_10 = {
    *("IBuilderConfig.progress_monitor", "IProgressMonitor", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"),
    *("ParserError.node_name", "ParserError.node_operator"),
}
_OF_LAYERS = {"ILayer.precision", "ILayer.set_output_type"}
_SHARING = "PreviewFeature.PROFILE_SHARING_0806"
_EXPLICIT = "NetworkDefinitionCreationFlag.EXPLICIT_BATCH"

OF_8 = frozenset({*_OF_WEAK, *_OF_LAYERS, _SHARING, _EXPLICIT})
OF_10 = frozenset({*_OF_WEAK, *_OF_LAYERS, _SHARING, _EXPLICIT, *_SINCE_10})
OF_11 = frozenset(_SINCE_10)
VERSIONS = [
    Expected("8.6.1", True, 1, False, (6, 0), OF_8),
    Expected("10.0.1", False, 2, True, (7, 0), OF_10),
    Expected("10.3.0", False, 2, True, (7, 0), OF_10),
    Expected("10.9.0.34", False, 2, True, (7, 5), OF_10),
    Expected("10.16.1.11", False, 2, True, (7, 5), OF_10),
    Expected("11.0.0.114", False, 1, True, (7, 5), OF_11),
    Expected("11.4.0.106", False, 1, True, (7, 5), OF_11),
]
# The first versions have no modules for the newest Pythons.
NEWEST_PYTHON = {"8.6.1": (3, 11), "10.0.1": (3, 12), "10.3.0": (3, 12)}
ON_THIS_PYTHON = [
    version for version in VERSIONS if sys.version_info[:2] <= NEWEST_PYTHON.get(version.version, (3, 99))
]
every_version = pytest.mark.parametrize("expected", ON_THIS_PYTHON, ids=lambda expected: expected.version)


@pytest.fixture(scope="session")
def stubs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the libraries that the full TensorRT's modules are linked to, empty as they are."""
    compiler = which("cc") or which("gcc")
    if compiler is None:
        missing_service("a C compiler is needed to check our use of TensorRT: apt install gcc")
        raise AssertionError
    folder = tmp_path_factory.mktemp("stubs")
    source = Path(__file__).with_name("nvinfer_stub.c")
    for name in (f"{library}.so.{major}" for library in LIBRARIES for major in (8, 10, 11)):
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", folder / name, source], check=True
        )
    return folder


def look(module: str, libraries: Path | None, bindings: Path | None = None) -> dict[str, Any]:
    """Have another process import a TensorRT and look for what we use of it."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*([bindings] if bindings else []), ROOT)))}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    done = subprocess.run(
        [sys.executable, api_uses.__file__, module], env=environment, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="session")
def answers(stubs: Path) -> dict[str, dict[str, Any]]:
    """What was looked at already: the tests come in random order."""
    return {}


@pytest.fixture
def answer(expected: Expected, stubs: Path, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a version says of our use of it."""
    if expected.version not in answers:
        folder = BINDINGS / expected.version
        if not folder.is_dir():
            missing_service(f"TensorRT's module {expected.version} is not there: make test brings it")
        answers[expected.version] = look("tensorrt_bindings", stubs, folder)
    return answers[expected.version]


@every_version
def test_a_version_knows_every_name_that_we_use(expected: Expected, answer: dict[str, Any]) -> None:
    assert answer["version"] == expected.version
    assert answer["looked_at"] > 60
    assert answer["calls"] > 25
    assert answer["unknown"] == []


@every_version
def test_names_that_not_all_versions_have_are_where_we_take_them(expected: Expected, answer: dict[str, Any]) -> None:
    assert {name for name, is_there in answer["behind_traits"].items() if is_there} == expected.named


@every_version
def test_the_traits_of_a_version_are_known(expected: Expected, answer: dict[str, Any]) -> None:
    assert answer["traits"] == {
        "is_weakly_typed": expected.is_weakly_typed,
        "network_flags": expected.network_flags,
        "has_monitor": expected.has_monitor,
        "keeps_timing_cache": not expected.is_weakly_typed,
        "reads_old_opsets_only": expected.is_weakly_typed,
        "lowest": list(expected.lowest),
    }


@every_version
def test_a_weak_version_has_the_flags_of_precisions(expected: Expected, answer: dict[str, Any]) -> None:
    """They are set on no other: those that have them and are typed strongly refuse them."""
    if answer["traits"]["is_weakly_typed"]:
        assert {*_OF_WEAK, *_OF_LAYERS} <= {name for name, is_there in answer["behind_traits"].items() if is_there}


@every_version
def test_our_logger_and_our_monitor_are_classes_of_a_versions_own(expected: Expected, answer: dict[str, Any]) -> None:
    assert answer["works"] == {"logger": "", "monitor": ""}


@every_version
def test_every_name_behind_a_trait_is_used(expected: Expected, answer: dict[str, Any]) -> None:
    assert answer["unused"] == []


@pytest.mark.slow
def test_tensorrt_rtx_knows_every_name_that_we_use() -> None:
    answer = look("tensorrt_rtx", None)
    assert answer["unknown"] == []
    assert answer["works"] == {"logger": "", "monitor": ""}
    assert answer["traits"]["is_weakly_typed"] is answer["traits"]["keeps_timing_cache"] is False


def test_the_script_brings_the_versions_that_are_looked_at() -> None:
    script = (ROOT / "scripts" / "tensorrt_bindings.sh").read_text()
    for version in VERSIONS:
        assert f"=={version.version}" in script


def test_a_name_that_is_gone_from_tensorrt_is_found(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text("flag = trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH\nengine.num_bindings\n")
    uses = {chain for _, _, chain in api_uses.uses_in(tmp_path / "old.py")}
    assert ("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH") in uses
    assert ("ICudaEngine", "num_bindings") in uses
    import tensorrt_rtx

    assert [chain for chain in sorted(uses) if not api_uses.is_known(tensorrt_rtx, chain)] == [
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
