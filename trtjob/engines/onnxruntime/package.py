"""Which distribution the folder `onnxruntime` comes from.

`onnxruntime` and `onnxruntime-gpu` both install into it, and nothing in Python's packaging can say "one of these two".
The one that is installed last overwrites the other's files in silence, and removing either then damages both. So every
import of ONNX Runtime goes through `onnxruntime`, and `trtjob doctor` looks at what `find` tells.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trtjob.child_environment import environment, python
from trtjob.errors import EngineError, MissingDependencyError

CPU_NAME = "onnxruntime"
GPU_NAME = "onnxruntime-gpu"
_FOLDER = "onnxruntime"
# cuDNN's packages share a folder too, whichever CUDA they are for.
_CUDNN = "nvidia-cudnn-cu"
_PROBE_TIMEOUT_S = 60
LOG_FATAL_ONLY = 4  # ONNX Runtime's severities: 0 verbose .. 4; what fails is raised as well


@dataclass(frozen=True, slots=True)
class Package:
    """What is installed, and whose files they are.

    installed: each distribution that claims the folder, with its version; name: the one whose files are there, empty
    where files are missing; cuda: the version of CUDA that they were built for, empty for the CPU's.
    """

    installed: Mapping[str, str]
    name: str
    version: str
    cuda: str

    @property
    def is_mixed(self) -> bool:
        return len(self.installed) > 1

    @property
    def is_damaged(self) -> bool:
        """Tell whether files are missing, as they are after one of two was removed."""
        return not self.name

    @property
    def cuda_major(self) -> int:
        """CUDA's major version; 0 for the CPU's files."""
        return int(self.cuda.split(".")[0]) if self.cuda else 0

    def mending_command(self, keep: str) -> str:
        """Return the command that leaves one distribution, whole, in the version that it has here."""
        # What both need is there already: --no-deps keeps pip from changing anything else.
        return replacing(self.installed, f"{keep}=={self.installed[keep]}", options=("--no-deps",))


def onnxruntime() -> Any:
    """Return the package onnxruntime, which tells Microsoft nothing.

    Raises MissingDependencyError where it is not installed, EngineError where it is damaged or does not load.
    """
    # From 1.32 on the import itself keeps an identity of this machine, before it can be told not to.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        package: Any = import_module(_FOLDER)
    except ImportError as err:
        if err.name == _FOLDER:
            raise MissingDependencyError(CPU_NAME, extra="cpu", gpu_extra="cuda") from err
        raise EngineError(f"ONNX Runtime cannot be loaded: {err}. trtjob doctor says what is installed") from err
    # Python makes a package even of a folder whose files are gone.
    if not hasattr(package, "InferenceSession"):
        raise EngineError(
            f"ONNX Runtime is damaged: files are missing in {_folder()}. trtjob doctor has the command that mends it"
        )
    package.disable_telemetry_events()
    package.set_default_logger_severity(LOG_FATAL_ONLY)
    return package


def find() -> Package | None:
    """Return what is installed, without importing it; None: nothing."""
    folder = _folder()
    if folder is None:
        return None
    installed = {found.name: found.version for found in distributions() if _owns(found, folder)}
    told = _build_information(folder)
    if not installed and not told:
        return None
    return Package(installed, told.get("package_name", ""), told.get("__version__", ""), told.get("cuda_version", ""))


def missing_libraries(package: Package) -> list[str]:
    """Return the libraries of CUDA that the GPU's files need and the loader does not find; needs no GPU.

    Another process loads them: they are a gigabyte, and this one may not want them.
    """
    call = f"from {__name__} import _tell_missing; _tell_missing({_libraries(package.cuda_major)!r})"
    try:
        told = subprocess.run(
            python("-c", call),
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # it does not even import: whoever loads it says why
        return []
    return [str(name) for name in json.loads(told.stdout)]


def installed_cudnn() -> dict[str, str]:
    """Return the packages of cuDNN that are installed, with their versions. More than one is one too many."""
    return {found.name: found.version for found in distributions() if found.name.startswith(_CUDNN)}


def changing(extra: str) -> str:
    """Return the command that puts an extra's ONNX Runtime in the place of what is here.

    `pip install trtjob[cuda]` alone would install a second one over the first.
    """
    package = find()
    cudnn = installed_cudnn()
    fitting = {"cuda": f"{_CUDNN}13", "cuda12": f"{_CUDNN}12"}.get(extra)
    unfit = list(cudnn) if fitting and set(cudnn) - {fitting} else []
    return replacing([*(package.installed if package else ()), *unfit], f"trtjob[{extra}]")


def mending_cudnn(cuda_major: int) -> str:
    """Return the command that leaves one cuDNN of several, whole: the one for this CUDA, in its version here."""
    installed = installed_cudnn()
    keep = f"{_CUDNN}{cuda_major}"
    version = f"=={installed[keep]}" if keep in installed else ""
    return replacing(installed, f"{keep}{version}", options=("--no-deps",))


def installing(*requirements: str) -> str:
    """Return the command that installs something into this environment, for a person to copy."""
    return f"{_pip('install')} {shlex.join(requirements)}"


def replacing(names: Sequence[str] | Mapping[str, str], requirement: str, options: Sequence[str] = ()) -> str:
    """Return the command that removes distributions, where there are any, and then installs another one."""
    if not names:
        return installing(*options, requirement)
    return f"{_pip('uninstall')} {shlex.join(sorted(names))} && {_pip('install')} {shlex.join([*options, requirement])}"


def _pip(verb: str) -> str:
    if find_spec("pip"):
        return shlex.join([sys.executable, "-m", "pip", verb, *(["--yes"] if verb == "uninstall" else [])])
    # An environment that uv made has no pip.
    return shlex.join(["uv", "pip", verb, "--python", sys.executable])


def _folder() -> Path | None:
    spec = find_spec(_FOLDER)
    # A source tree of trtjob's own folders is no ONNX Runtime: what counts is where Python would import it from.
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _owns(distribution: Any, folder: Path) -> bool:
    """Tell whether a distribution has put files into a folder; one in another place of sys.path has not."""
    listed = distribution.read_text("top_level.txt") or ""
    return _FOLDER in listed.split() and Path(distribution.locate_file(_FOLDER)) == folder


def _build_information(folder: Path) -> dict[str, str]:
    """Read what the files say of themselves; nothing where they or the library are missing."""
    capi = folder / "capi"
    file = capi / "build_and_package_info.py"
    if not file.is_file() or not any(capi.glob("onnxruntime_pybind11_state*")):
        return {}
    return dict(re.findall(r"^(\w+) = '([^']*)'", file.read_text(), re.MULTILINE))


def _libraries(cuda_major: int) -> list[str]:
    major = cuda_major
    # cuFFT counts one behind CUDA since 12, cuRAND stands still at 10, and every build since 1.20 is for cuDNN 9.
    toolkit = [f"libcudart.so.{major}", f"libcublasLt.so.{major}", f"libcublas.so.{major}", f"libcufft.so.{major - 1}"]
    return [*toolkit, "libcurand.so.10", "libcudnn.so.9"]


def _tell_missing(names: Sequence[str]) -> None:
    import contextlib
    import ctypes

    with contextlib.redirect_stdout(sys.stderr):  # it prints what it does not find
        onnxruntime().preload_dlls()
    missing = []
    for name in names:
        try:
            ctypes.CDLL(name)
        except OSError:
            missing.append(name)
    sys.stdout.write(json.dumps(missing))
