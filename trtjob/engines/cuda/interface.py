"""What our engines ask of CUDA's driver, whichever package answers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, SupportsInt

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """A GPU of this machine."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


class Memory(Protocol):
    """Memory of a GPU. `int()` of it is its address."""

    def __int__(self) -> int: ...

    def free(self) -> None:
        """Give it back, in the context that it was taken in."""
        ...


class Stream(Protocol):
    """Work in order, beside that of other streams; `handle` is its address. Every call may raise DeviceLostError."""

    @property
    def handle(self) -> int: ...

    def copy_in(self, device: SupportsInt, host: "NDArray[Any]") -> None:
        """Begin to copy all of a page-locked array to an address of the GPU's."""
        ...

    def copy_within(self, device: SupportsInt, source: SupportsInt, size_bytes: int) -> None:
        """Begin to copy bytes from one address of the GPU's to another."""
        ...

    def copy_out(self, host: "NDArray[Any]", device: SupportsInt) -> None:
        """Begin to fill a page-locked array from an address of the GPU's."""
        ...

    def mark(self) -> None:
        """Remember this point for `wait`."""
        ...

    def is_done(self) -> bool:
        """Tell whether the work before the last mark is done."""
        ...

    def wait(self) -> None:
        """Sleep until the work before the last mark is done."""
        ...

    def close(self) -> None: ...


class Context(Protocol):
    """A GPU's primary context, which every library in this process shares. Current in a thread between push and pop."""

    def push(self) -> None: ...

    def pop(self) -> None: ...

    def release(self) -> None:
        """Let go of it; nothing that was taken in it may be used any more."""
        ...


class Driver(Protocol):
    """CUDA's driver. All but `gpus` and `retain` work in the context that is current in the calling thread.

    Raises DeviceMemoryError where the GPU's memory is full, DeviceLostError for every other error of CUDA.
    """

    name: str

    def gpus(self) -> list[GpuInfo]:
        """Return the GPUs that CUDA_VISIBLE_DEVICES shows to this process."""
        ...

    def retain(self, index: int) -> Context:
        """Return a GPU's primary context, which stays until its `release`."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: "DTypeLike") -> "NDArray[Any]":
        """Return an array in page-locked memory, with any contents, which `unpin` gives back."""
        ...

    def unpin(self, array: "NDArray[Any]") -> None:
        """Give back what `pinned` has returned."""
        ...

    def alloc(self, size_bytes: int) -> Memory:
        """Return memory of the GPU, with any contents."""
        ...

    def stream(self) -> Stream: ...

    def memory_bytes(self) -> tuple[int, int]:
        """Return how many bytes of the GPU's memory are free, and how many there are."""
        ...

    def synchronize(self) -> None:
        """Wait for all work of the context."""
        ...

    def version(self) -> tuple[int, int]:
        """Return the newest CUDA that the installed driver can run."""
        ...


def version_of(number: int) -> tuple[int, int]:
    """Return CUDA's version of the driver's number for it: 13000 is 13.0."""
    return number // 1000, number % 1000 // 10
