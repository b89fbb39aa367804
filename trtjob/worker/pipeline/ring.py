"""Memory that an engine process shares with its image processes: slots, and a board for each process.

A slot holds one image's input of the network, or its file, and the engine's answer; beside the slots lies what the GPU
must know of each file. A board is written by its image process alone: in which slot it works, at which stage, how many
steps it has made, and its seconds of work by stage.
"""

import errno
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod

import numpy as np

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.imaging.gpu.encoded import CHANNELS, ENCODED, NOWHERE, EncodedImages, pixel_bytes
from trtjob.imaging.resampling import RESAMPLING, Resampling
from trtjob.memory import usable_bytes
from trtjob.worker.pipeline.prestart import shared_memory

# The stages of an image process, in the order in which an image goes through them.
STAGES = ("fetch", "read", "decode", "resize", "thumbnail", "nms", "draw", "encode", "write", "store")
# Those that wait for a place: who stands still there says nothing of the image.
READING = frozenset({"fetch", "read"})
WAITING = READING | {"write", "store"}

IDLE = -1
_LINE = 64
_MOST_SHARE = 0.5  # of the memory that a ring may take
_PAGE = 4096
_BOARD_BYTES = 256
_STEPS, _SLOT, _STAGE, _FIRST_SECONDS = 0, 1, 2, 4  # places of eight bytes each
_FILE = np.dtype([("size_bytes", "<i8"), ("are_pixels_wanted", "<i8"), ("resampling", RESAMPLING)])


@dataclass(frozen=True, slots=True)
class Layout:
    """How a ring is divided. tensor: (H, W, channels), bytes; answer: the shape of float32; file_bytes: of the largest
    file that lies where a tensor would, for the GPU to decode."""

    processes: int
    slots: int
    tensor: tuple[int, int, int]
    answer: tuple[int, ...]
    file_bytes: int = 0

    @property
    def boards_bytes(self) -> int:
        return _up(self.processes * _BOARD_BYTES)

    @property
    def slots_at(self) -> int:
        """Where the first slot begins."""
        return self.boards_bytes + _up(self.slots * _FILE.itemsize)

    @property
    def answer_at(self) -> int:
        """Where the answer begins in a slot."""
        return _up(max(prod(self.tensor), self.file_bytes), _LINE)

    @property
    def slot_bytes(self) -> int:
        return _up(self.answer_at + 4 * prod(self.answer))

    @property
    def size_bytes(self) -> int:
        return self.slots_at + self.slots * self.slot_bytes


def _up(size: int, step: int = _PAGE) -> int:
    return -(-size // step) * step


def room_for_pixels(area: UInt8Array, size_bytes: int, hw: tuple[int, int]) -> UInt8Array | None:
    """Return where the pixels of a file may lie, (height, width, channels), behind it in a slot; None where they find
    no room.

    area: for the file, of size_bytes.

    >>> area = np.zeros(1000, np.uint8)
    >>> [None if room is None else room.shape for room in (room_for_pixels(area, 100, hw) for hw in ((4, 5), (20, 20)))]
    [(4, 5, 3), None]
    """
    shape = (*hw, CHANNELS)
    room = area[_up(size_bytes, _LINE) :][: prod(shape)]
    return room.reshape(shape) if len(room) == prod(shape) else None


class Ring:
    """The shared memory, as one process sees it. fd: what a child must inherit."""

    def __init__(self, layout: Layout, fd: int) -> None:
        self.layout = layout
        self.fd = fd
        self.memory = mmap.mmap(fd, layout.size_bytes)
        self.tensors: list[UInt8Array] = []
        self.files: list[UInt8Array] = []
        self.answers: list[FloatArray] = []
        self._bytes = np.frombuffer(self.memory, np.uint8)
        self._told = np.frombuffer(self.memory, _FILE, layout.slots, layout.boards_bytes)
        self._starts = layout.slots_at + layout.slot_bytes * np.arange(layout.slots)
        for at in self._starts.tolist():
            tensor = np.frombuffer(self.memory, np.uint8, prod(layout.tensor), at)
            self.files.append(np.frombuffer(self.memory, np.uint8, layout.file_bytes, at))
            answer = np.frombuffer(self.memory, np.float32, prod(layout.answer), at + layout.answer_at)
            self.tensors.append(tensor.reshape(layout.tensor))
            self.answers.append(answer.reshape(layout.answer))
        self.boards = [Board(self.memory, number) for number in range(layout.processes)]

    @classmethod
    def create(cls, layout: Layout, fd: int = -1) -> "Ring":
        """Make a ring, of shared memory that there is already (`shared_memory`), or of its own.

        Its memory is taken at once, so that it cannot be missing later. Raises OSError.
        """
        if layout.size_bytes > usable_bytes() * _MOST_SHARE:  # the kernel would end processes rather than refuse it
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        fd = shared_memory() if fd < 0 else fd
        try:
            os.ftruncate(fd, layout.size_bytes)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(fd, 0, layout.size_bytes)
            return cls(layout, fd)
        except BaseException:
            os.close(fd)
            raise

    def tell_file(self, slot: int, size_bytes: int, resampling: Resampling, *, are_pixels_wanted: bool) -> None:
        """Say what the file is that lies in a slot. are_pixels_wanted: where `room_for_pixels` has room for them."""
        self._told[slot] = (size_bytes, are_pixels_wanted, resampling)

    def encoded(self, slots: list[int]) -> EncodedImages:
        """Return the files in slots, none of which reaches out of its own, whatever an image process has said.

        How large an image is, is taken on trust: nvJPEG writes as many pixels as the file says.
        """
        told, starts, room = self._told[slots], self._starts[slots], self.layout.file_bytes
        sizes, how = told["size_bytes"].clip(0, room), told["resampling"]
        for side in ("height", "width"):
            how[side] = how[side].clip(1)
        pixels_at = -(-sizes // _LINE) * _LINE
        is_wanted = (told["are_pixels_wanted"] != 0) & (pixels_at + pixel_bytes(how) <= room)
        found = np.empty(len(slots), ENCODED)
        found["at"], found["size_bytes"], found["resampling"] = starts, sizes, how
        found["pixels_at"] = np.where(is_wanted, starts + pixels_at, NOWHERE)
        return EncodedImages(self._bytes, found)

    def close(self) -> None:
        """Give the memory back as soon as nobody uses its arrays, at once where nobody does. May be called twice."""
        for board in self.boards:
            board.leave()
        self.tensors, self.files, self.answers, self.boards = [], [], [], []
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            del self.memory, self._bytes, self._told  # this ring may live on in a circle of references


class Board:
    """What one image process says of itself while it works, readable by the engine process whatever becomes of it."""

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        at = number * _BOARD_BYTES
        self._numbers = np.frombuffer(memory, np.int64, _FIRST_SECONDS, at)
        self._seconds = np.frombuffer(memory, np.float64, len(STAGES), at + 8 * _FIRST_SECONDS)

    def leave(self) -> None:
        """Keep what it says, and no more of the memory."""
        self._numbers, self._seconds = self._numbers.copy(), self._seconds.copy()

    def clear(self) -> None:
        """Make a new process's board; the seconds of its predecessor go with it."""
        self._numbers[:] = 0
        self._numbers[_SLOT] = IDLE
        self._seconds[:] = 0

    @contextmanager
    def working(self, slot: int) -> Iterator[None]:
        """Say that an image is worked on, for the length of the block."""
        self._numbers[_SLOT] = slot
        self._numbers[_STEPS] += 1
        try:
            yield
        finally:
            self._numbers[_SLOT] = IDLE

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count a stage's seconds, and say that it is under way."""
        index = STAGES.index(name)
        before = self._numbers[_STAGE]
        self._numbers[_STAGE] = index
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[index] += time.perf_counter() - start
            self._numbers[_STAGE] = before

    @contextmanager
    def beside(self, name: str) -> Iterator[None]:
        """Count the seconds of what waits beside other work."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[STAGES.index(name)] += time.perf_counter() - start

    def step(self) -> None:
        """Say that something moves: who waits for a place, and asks again and again, does not stand still."""
        self._numbers[_STEPS] += 1

    @property
    def steps(self) -> int:
        return int(self._numbers[_STEPS])

    @property
    def slot(self) -> int:
        """The slot of the image that is worked on, IDLE for none."""
        return int(self._numbers[_SLOT])

    @property
    def stage_now(self) -> str:
        return STAGES[int(self._numbers[_STAGE])]

    def busy_s(self) -> dict[str, float]:
        return {name: float(self._seconds[index]) for index, name in enumerate(STAGES) if self._seconds[index]}
