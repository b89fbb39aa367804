"""A library that calls itself CUDA's driver, compiled from engines/cuda_stand_in.c: for child processes alone."""

import subprocess
from pathlib import Path
from shutil import which

from conftest import missing_service

SOURCE = Path(__file__).parent / "engines" / "cuda_stand_in.c"


def compile_driver(folder: Path) -> Path:
    """Return the folder, which an LD_LIBRARY_PATH may name; skips the test where there is no compiler."""
    compiler = which("cc") or which("gcc")
    if compiler is None:
        missing_service("a C compiler is needed for a stand-in of CUDA's driver: apt install gcc")
        raise AssertionError
    options = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", str(folder / "libcuda.so.1")]
    subprocess.run([compiler, *options, str(SOURCE), "-lpthread"], check=True)
    return folder
