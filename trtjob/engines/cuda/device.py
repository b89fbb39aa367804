"""One GPU for one engine: its context, and all that the engine takes of it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import mmap
from typing import Any

from numpy.typing import DTypeLike, NDArray

from trtjob.engines.cuda.driver import driver
from trtjob.engines.cuda.interface import Driver, GpuInfo, Memory, Stream
from trtjob.engines.cuda.page_locked import PageLockedMemory
from trtjob.engines.cuda.staging import Arrays
from trtjob.errors import EngineError

log = logging.getLogger(__name__)


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
        self._locked: PageLockedMemory | None = None
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

    def lock(self, memory: mmap) -> None:
        """Page-lock memory of others, in place of what was locked before, of which nothing may be under way.

        It stays locked, and mapped, until the next call or `close`. Where that cannot be, the log says so.
        """
        try:
            self._unlock()
            self._locked = PageLockedMemory(memory)
        except EngineError as err:
            log.warning("shared memory is not page-locked: images are copied once more", extra={"error": str(err)})

    def _unlock(self) -> None:
        locked, self._locked = self._locked, None
        if locked is not None:
            locked.unlock()

    def reaches(self, arrays: Arrays) -> bool:
        """Tell whether all arrays lie in memory that `lock` has locked, each in one piece."""
        locked = self._locked
        return locked is not None and all(locked.holds(array) for array in arrays)

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
        self._unlock()
        while self._pinned:
            self._driver.unpin(self._pinned.pop())
        self.leave()
        self._context.release()
