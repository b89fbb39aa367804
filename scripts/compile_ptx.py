"""Compile the package's CUDA sources to PTX, which the driver translates for the card it finds.

    python scripts/compile_ptx.py --nvrtc libnvrtc.so.12          # write the .ptx files
    python scripts/compile_ptx.py --nvrtc libnvrtc.so.12 --check  # exit code 1 where they are another's

NVRTC 12 is wanted: it is the last that compiles for Pascal. It comes in the package nvidia-cuda-nvrtc-cu12.
"""

import argparse
import ctypes
import hashlib
import re
import sys
from pathlib import Path

SOURCES = [Path("trtjob/imaging/gpu/resample.cu")]
OPTIONS = [b"--gpu-architecture=compute_60", b"--std=c++14"]
# Each compiler writes its own version, which older drivers refuse; nothing here needs more than this one.
VERSION = ".version 7.0"


def main() -> int:
    """Compile, or compare. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvrtc", default="libnvrtc.so.12", help="the library (default: libnvrtc.so.12)")
    parser.add_argument("--check", action="store_true", help="write nothing")
    wanted = parser.parse_args()
    nvrtc, is_same = ctypes.CDLL(wanted.nvrtc), True
    for source in SOURCES:
        ptx, target = compiled(nvrtc, source), source.with_suffix(".ptx")
        if not wanted.check:
            target.write_text(ptx)
        elif target.read_text() != ptx:
            is_same = False
            print(f"{target} is not what {source} becomes", file=sys.stderr)
    return 0 if is_same else 1


def compiled(nvrtc: ctypes.CDLL, source: Path) -> str:
    """Return a source's PTX. Raises RuntimeError with the compiler's words."""
    program = ctypes.c_void_p()
    code = nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    if code:
        raise RuntimeError(f"NVRTC gives error {code}")
    options = (ctypes.c_char_p * len(OPTIONS))(*OPTIONS)
    if nvrtc.nvrtcCompileProgram(program, len(OPTIONS), options):
        raise RuntimeError(_text(nvrtc, program, "nvrtcGetProgramLog"))
    ptx = _text(nvrtc, program, "nvrtcGetPTX")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    return f"// {source.name} {digest}\n" + re.sub(r"\.version [\d.]+", VERSION, ptx[ptx.index(".version") :])


def _text(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, name: str) -> str:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"{name}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, name)(program, text)
    return text.value.decode()


if __name__ == "__main__":
    sys.exit(main())
