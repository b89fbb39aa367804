"""Lanes that send bytes to the GPU and take them back: the port at work, without TensorRT."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.engines.tensorrt.cuda import Device
from trtjob.engines.tensorrt.lanes import Lane, Lanes

LANES = 2


class EchoLane:
    """A stream with buffers of a size; its outputs are its images, copied there and back many times for one batch."""

    def __init__(self, device: Device, size_bytes: int, copies: int) -> None:
        self._copies = copies
        self._stream = device.stream()
        self.images: UInt8Array = device.pinned((1, size_bytes), np.uint8)
        self.outputs: dict[str, NDArray[Any]] = {"echo": device.pinned((1, size_bytes), np.uint8)}
        self._buffer = device.alloc(size_bytes)

    def launch(self, batch: int) -> None:
        for _ in range(self._copies):
            self._stream.copy_in(self._buffer, self.images[:batch])
            self._stream.copy_out(self.outputs["echo"][:batch], self._buffer)
        self._stream.mark()

    def wait(self) -> None:
        self._stream.wait()

    def close(self) -> None:
        self._buffer.free()
        self.images = np.empty((0, 0), np.uint8)
        self.outputs = {}


def echo_lanes(size_bytes: int, *, copies: int = 1) -> Lanes:
    """Return lanes on the first GPU that take uint8 [1, size_bytes] and return it."""
    opened: list[Device] = []

    def open_lanes() -> list[Lane]:
        opened.append(Device(0))
        return [EchoLane(opened[0], size_bytes, copies) for _ in range(LANES)]

    return Lanes(open_lanes, lambda: opened[0].close())
