"""One kernel, loaded from PTX and launched by CUDA's driver itself, whichever package the rest goes through."""

import ctypes
from collections.abc import Sequence

from trtjob.engines.cuda.interface import Stream
from trtjob.engines.cuda.survey import error_text
from trtjob.errors import DeviceLostError, EngineError

Dim3 = tuple[int, int, int]  # x, y, z, as CUDA's own
Argument = ctypes.c_int | ctypes.c_uint64


class Kernel:
    """A kernel, in the context that is current when it is made, launched and closed."""

    def __init__(self, ptx: str, name: str) -> None:
        """Raises EngineError where the driver does not take it."""
        self._library = ctypes.CDLL("libcuda.so.1")
        self._module, self._function = ctypes.c_void_p(), ctypes.c_void_p()
        if code := self._library.cuModuleLoadData(ctypes.byref(self._module), ptx.encode()):
            raise EngineError(f"CUDA does not load the kernel {name!r}: {error_text(self._library, code)}")
        if code := self._library.cuModuleGetFunction(ctypes.byref(self._function), self._module, name.encode()):
            raise EngineError(f"CUDA does not find the kernel {name!r}: {error_text(self._library, code)}")

    def launch(self, stream: Stream, grid: Dim3, block: Dim3, arguments: Sequence[Argument]) -> None:
        """Begin it on a stream: `grid` blocks of `block` threads each. Raises DeviceLostError."""
        places = [ctypes.cast(ctypes.pointer(argument), ctypes.c_void_p) for argument in arguments]
        packed = (ctypes.c_void_p * len(places))(*places)
        on = ctypes.c_void_p(stream.handle)
        if code := self._library.cuLaunchKernel(self._function, *grid, *block, 0, on, packed, None):
            raise DeviceLostError(f"CUDA failed to launch a kernel: {error_text(self._library, code)}")

    def close(self) -> None:
        self._library.cuModuleUnload(self._module)
