"""nvJPEG, of which one call decodes a batch of JPEG files: by the card's JPEG engine, where it has one."""

import ctypes
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trtjob.engines.cuda.interface import Stream
from trtjob.errors import DeviceMemoryError, EngineError, MissingDependencyError
from trtjob.imaging.gpu.encoded import CHANNELS

log = logging.getLogger(__name__)

# By number, as in nvjpeg.h, the best first. One of them decodes all files of a GPU: they round differently.
HARDWARE, HYBRID = 3, 1
BACKENDS = {HARDWARE: "the JPEG engine", HYBRID: "CUDA cores and the CPU"}

_PACKAGES = ("nvidia-nvjpeg", "nvidia-nvjpeg-cu12")
_LIBRARY = "libnvjpeg.so"
_INTERPOLATED = 1 << 5  # NVJPEG_FLAGS_UPSAMPLING_WITH_INTERPOLATION: of chroma, as libjpeg has it
_RGB_INTERLEAVED = 5
_CPU_THREADS = 1  # of a call
_OUT_OF_MEMORY = 5
_STATUSES = {
    1: "not initialized",
    2: "invalid parameter",
    3: "bad JPEG",
    4: "JPEG not supported",
    _OUT_OF_MEMORY: "allocator failure",
    6: "execution failed",
    7: "architecture mismatch",
    8: "internal error",
    9: "implementation not supported",
    10: "incomplete bitstream",
}
_FAILED = frozenset({6, 8})  # by a file that is damaged, as far as is known; where the GPU is lost, its stream says so
_OF_A_FILE = frozenset({2, 3, 4, 9, 10}) | _FAILED


def installed_package() -> str:
    """Return nvJPEG's package and version, without loading it; nothing where it is not installed."""
    found = _distribution()
    return "" if found is None else f"{found.metadata['Name']} {found.version}"


def _distribution() -> Distribution | None:
    for package in _PACKAGES:
        try:
            return distribution(package)
        except PackageNotFoundError:
            continue
    return None


def _library_path() -> Path:
    found = _distribution()
    for file in (found.files or ()) if found else ():
        if file.name.startswith(_LIBRARY):
            return Path(str(file.locate()))
    raise MissingDependencyError(_PACKAGES[0], extra="nvjpeg")


class NvJpeg:
    """The library, for the GPU whose context is current wherever it is made, used and closed.

    title: its version and what decodes, for a person; calls: how many for a batch pay at once: the JPEG engine's wait
    for each other in the driver, of the others each takes a core. Raises MissingDependencyError, EngineError.
    """

    def __init__(self, backends: Sequence[int] = tuple(BACKENDS), *, callers: int = 1) -> None:
        """backends: the first one that this GPU has is used; callers: at once, at most."""
        try:
            self._library = ctypes.CDLL(str(_library_path()))
        except OSError as err:
            raise EngineError(f"nvJPEG cannot be loaded: {err}") from err
        self._handle = ctypes.c_void_p()
        for backend in backends:
            code = self._library.nvjpegCreateEx(backend, None, None, _INTERPOLATED, ctypes.byref(self._handle))
            if not code:
                break
        else:
            raise _error("makes no decoder for this GPU", code)
        self.title = f"nvJPEG {self._version()}, {BACKENDS[backend]}"
        self.calls = 1 if backend == HARDWARE else callers

    def _version(self) -> str:
        values = []
        for which in range(2):  # MAJOR_VERSION, MINOR_VERSION
            value = ctypes.c_int()
            self._library.nvjpegGetProperty(which, ctypes.byref(value))
            values.append(value.value)
        return ".".join(map(str, values))

    def decoder(self) -> "BatchDecoder":
        """Return a decoder, to be closed before this. Raises EngineError."""
        return BatchDecoder(self._library, self._handle)

    def close(self) -> None:
        self._library.nvjpegDestroy(self._handle)


@dataclass(frozen=True, slots=True)
class BatchFiles:
    """Files that are decoded in one call, as nvJPEG takes them.

    addresses, lengths: of the files, uint64 [files]; images: uint64 [files, 8], an nvjpegImage_t for each, which is
    four addresses of the GPU's and the bytes of a line of each; the first is for RGB, [H, W, 3].
    """

    addresses: NDArray[np.uint64]
    lengths: NDArray[np.uint64]
    images: NDArray[np.uint64]

    @classmethod
    def of(cls, addresses: ArrayLike, lengths: ArrayLike, places: ArrayLike, widths: ArrayLike) -> Self:
        """places: addresses of the GPU's; widths: of the images, in pixels."""
        images = np.zeros((np.size(addresses), 8), np.uint64)
        images[:, 0] = places
        images[:, 4] = np.multiply(widths, CHANNELS)
        return cls(np.array(addresses, np.uint64), np.array(lengths, np.uint64), images)

    @property
    def places(self) -> NDArray[np.uint64]:
        """The addresses of the GPU's, uint64 [files]."""
        return self.images[:, 0]

    def __len__(self) -> int:
        return len(self.images)

    def apart(self) -> Iterator[Self]:
        """Yield each file as a batch of its own."""
        for one in (slice(number, number + 1) for number in range(len(self))):
            yield type(self)(self.addresses[one], self.lengths[one], self.images[one])


class BatchDecoder:
    """Decodes one batch after another: the next one only when the host has waited for the GPU's work on this one."""

    def __init__(self, library: ctypes.CDLL, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle
        self._state = ctypes.c_void_p()
        self._count = 0  # of the files that it is made ready for
        self._open()

    def _open(self) -> None:
        if not self._state and (code := self._library.nvjpegJpegStateCreate(self._handle, ctypes.byref(self._state))):
            self._state = ctypes.c_void_p()
            raise _error("makes no decoder", code)

    def decode(self, files: BatchFiles, stream: Stream) -> bool:
        """Begin to decode files. Returns whether they can be.

        They stay as they are until the stream is done. Where False is returned, one of them cannot be decoded, and some
        may have been. Raises EngineError; DeviceMemoryError where the GPU's memory is short.
        """
        self._open()
        code = 0
        if len(files) != self._count:
            code = self._library.nvjpegDecodeBatchedInitialize(
                self._handle, self._state, len(files), _CPU_THREADS, _RGB_INTERLEAVED
            )
            self._count = len(files)
        if not code:
            told = [ctypes.c_void_p(array.ctypes.data) for array in (files.addresses, files.lengths, files.images)]
            code = self._library.nvjpegDecodeBatched(self._handle, self._state, *told, ctypes.c_void_p(stream.handle))
        if not code:
            return True
        stream.mark()
        stream.wait()
        self.close()  # it may have stopped anywhere; the next call has another state
        if code not in _OF_A_FILE:
            raise _error("fails", code)
        if code in _FAILED and len(files) == 1:
            log.warning("nvJPEG fails with a file: the CPU decodes it", extra={"status": _STATUSES[code]})
        return False

    def close(self) -> None:
        """Free what it has. May be called twice."""
        if self._state:
            self._library.nvjpegJpegStateDestroy(self._state)
        self._state, self._count = ctypes.c_void_p(), 0


def _error(what: str, code: int) -> EngineError:
    kind = DeviceMemoryError if code == _OUT_OF_MEMORY else EngineError
    return kind(f"nvJPEG {what}: {_STATUSES.get(code, f'status {code}')}")
