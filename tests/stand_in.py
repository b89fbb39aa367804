"""Libraries that call themselves NVIDIA's, compiled from C: for child processes alone."""

import subprocess
from pathlib import Path
from shutil import which

from conftest import missing_service

SOURCE = Path(__file__).parent / "engines" / "cuda_stand_in.c"


def compile_driver(folder: Path) -> Path:
    """Return the folder, which an LD_LIBRARY_PATH may name; skips the test where there is no compiler."""
    compile_library(SOURCE, folder / "libcuda.so.1")
    return folder


def compile_library(source: Path, library: Path) -> None:
    """Compile a stand-in; skips the test where there is no compiler."""
    compiler = which("cc") or which("gcc")
    if compiler is None:
        missing_service("a C compiler is needed for a stand-in of NVIDIA's libraries: apt install gcc")
        raise AssertionError
    options = ["-shared", "-fPIC", f"-Wl,-soname,{library.name}", "-o", str(library)]
    subprocess.run([compiler, *options, str(source), "-lpthread"], check=True)
