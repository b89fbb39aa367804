"""Memory of others, page-locked by CUDA's driver itself, whichever package the rest goes through.

pycuda 2026.1 cannot: its `register_host_memory` locks an array and then raises, since it would give its own a second
base (wrap_cudadrv.cpp, line 630).
"""

import ctypes
from mmap import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.cuda.survey import error_text
from trtjob.errors import DeviceLostError, EngineError

_PORTABLE = 1  # CU_MEMHOSTREGISTER_PORTABLE, cuda.h


class PageLockedMemory:
    """A mapping that is page-locked until `unlock`, and cannot go before: both in the context that is then current."""

    def __init__(self, memory: mmap) -> None:
        """Raises EngineError where it cannot be locked."""
        self._library = ctypes.CDLL("libcuda.so.1")
        self._bytes: NDArray[np.uint8] | None = np.frombuffer(memory, np.uint8)
        self._start, self._size = self._bytes.ctypes.data, self._bytes.nbytes
        size, flags = ctypes.c_size_t(self._size), ctypes.c_uint(_PORTABLE)
        if code := self._library.cuMemHostRegister_v2(ctypes.c_void_p(self._start), size, flags):
            raise EngineError(f"CUDA does not page-lock {self._size:,} bytes: {error_text(self._library, code)}")

    def holds(self, array: NDArray[Any]) -> bool:
        """Tell whether an array lies in this memory, in one piece."""
        at = array.ctypes.data - self._start
        return array.flags.c_contiguous and 0 <= at <= self._size - array.nbytes

    def unlock(self) -> None:
        """Raises DeviceLostError."""
        code = self._library.cuMemHostUnregister(ctypes.c_void_p(self._start))
        self._bytes = None
        if code:
            raise DeviceLostError(f"CUDA failed: {error_text(self._library, code)}")
