"""One GPU for one engine: its context, and all that the engine takes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import DTypeLike, NDArray

from trtjob.engines.cuda.driver import Driver, GpuInfo, Memory, Stream, driver
from trtjob.errors import EngineError


def gpus() -> list[GpuInfo]:
    """Return the GPUs that this process may use. Raises as `driver` does."""
    return driver().gpus()


def gpu_of(index: int) -> GpuInfo:
    """Return a GPU. Raises as `driver` does, and EngineError where there is no such GPU."""
    found = {gpu.index: gpu for gpu in gpus()}
    if index not in found:
        raise EngineError(f"there is no GPU {index}: this process sees {len(found)}, numbered from 0")
    return found[index]


class Device:
    """A GPU's primary context, current in the thread that makes this until that leaves it."""

    def __init__(self, index: int, by: Driver | None = None) -> None:
        """by: what to use the GPU through; None: what `driver` returns."""
        self._driver = by or driver()
        self._pinned: list[NDArray[Any]] = []
        self._context = self._driver.retain(index)
        self.enter()

    def enter(self) -> None:
        """Make the context current in this thread."""
        self._context.push()

    def leave(self) -> None:
        """Undo an `enter`, in the same thread."""
        self._context.pop()

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make the context current in this thread, for the length of a block."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return an array in page-locked memory: the GPU copies it while the CPU does other things.

        After `close` it is ordinary memory, or must not be used any more, as the driver's package has it.
        """
        array = self._driver.pinned(shape, dtype)
        self._pinned.append(array)
        return array

    def alloc(self, size_bytes: int) -> Memory:
        """Return memory of the GPU, which must be freed before `close`."""
        return self._driver.alloc(size_bytes)

    def stream(self) -> Stream:
        return self._driver.stream()

    def free_bytes(self) -> int:
        """Return how much of the GPU's memory nobody has."""
        return self._driver.memory_bytes()[0]

    def synchronize(self) -> None:
        """Wait for all work in the context, also that of other libraries."""
        self._driver.synchronize()

    def close(self) -> None:
        """Leave the context, current in this thread, and unlock what was page-locked; all else must have been freed."""
        while self._pinned:
            self._driver.unpin(self._pinned.pop())
        self.leave()
        self._context.release()
