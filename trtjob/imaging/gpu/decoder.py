"""Files of JPEG -> rows of the network's input, without their pixels ever being on the host."""

import ctypes
import queue
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from math import prod

import numpy as np

from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.cuda.interface import Memory
from trtjob.engines.cuda.kernel import Kernel
from trtjob.engines.protocol import DeviceImage, UInt8Array
from trtjob.engines.spec import ModelSpec
from trtjob.errors import DeviceMemoryError
from trtjob.imaging.gpu.nvjpeg import CHANNELS, BatchFiles, NvJpeg
from trtjob.imaging.resampling import Resampling

MOST_PIXEL_BYTES = 256 << 20  # decoded at once by one caller; one image has less (gpu_jpeg.MOST_PIXELS)
_BLOCK = (32, 8, 1)
_COLORS = {"rgb": 0, "bgr": 1, "gray": 2}
# As `struct Row` in resample.cu: where the pixels are, and the bytes of a line; their width, height, channels and the
# image's number; left, top, right, bottom; the first pixel, step and reach, in x and y.
_ROW = struct.Struct("<Qq8i6f")


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A JPEG file, uint8 [bytes], and how it comes into the network's input.

    pixels: RGB [H, W, 3], where they are wanted on the host too; None: nowhere.
    """

    data: UInt8Array
    resampling: Resampling
    pixels: UInt8Array | None = None


class GpuDecoder:
    """Decodes on one GPU, for so many callers at once.

    Raises MissingDependencyError, EngineError where it cannot be had; title: what decodes, for a person; busy_s: how
    long nvJPEG has worked on the host, all its turns together as one.
    """

    def __init__(self, gpu: int, spec: ModelSpec, *, batch: int, callers: int) -> None:
        self._device = Device(gpu, threaded_driver())
        self._device.leave()
        self._free: queue.SimpleQueue[_Lane] = queue.SimpleQueue()
        self._lanes: list[_Lane] = []
        self.busy_s = 0.0
        self._adding = threading.Lock()
        self._kernel: Kernel | None = None
        self._nvjpeg: NvJpeg | None = None
        try:
            with self._device.current():
                self._nvjpeg = NvJpeg(callers=callers)
                self.title, self._turns = self._nvjpeg.title, threading.Semaphore(self._nvjpeg.calls)
                self._kernel = Kernel(files(__package__).joinpath("resample.ptx").read_text(), "resample")
                for _ in range(callers):
                    self._lanes.append(_Lane(self._device, self._nvjpeg, self._kernel, spec, batch))
        except BaseException:
            self.close()
            raise
        for lane in self._lanes:
            self._free.put(lane)

    @contextmanager
    def decoded(self, images: Sequence[EncodedImage]) -> Iterator[list[DeviceImage | None]]:
        """Decode and resize images, which lie on the GPU for the length of the block; None for one that cannot be.

        The pixels of the others are where they are wanted. Raises EngineError.
        """
        lane = self._free.get()
        try:
            with self._device.current():
                try:
                    found = self._begin(images, lane)
                finally:
                    lane.finish()  # also what was begun before an error
            yield found
        finally:
            self._free.put(lane)

    def _begin(self, images: Sequence[EncodedImage], lane: "_Lane") -> list[DeviceImage | None]:
        """Begin to decode and resize images. Returns where they will lie."""
        found: list[DeviceImage | None] = []
        for part in _parts(images):
            if found:
                lane.finish()  # the pixels of the part before make room
            try:
                files = lane.files(part)
            except DeviceMemoryError:
                if len(images) > 1:  # a half of them may find room
                    raise
                return [None]
            with self._turns:
                start = time.perf_counter()
                places = lane.decode(files)
                self._note_busy(time.perf_counter() - start)
            found += lane.fill(part, places, len(found))
        return found

    def _note_busy(self, seconds: float) -> None:
        assert self._nvjpeg is not None
        with self._adding:
            self.busy_s += seconds / self._nvjpeg.calls

    def close(self) -> None:
        """Free everything; nobody may be decoding."""
        with self._device.current():
            for lane in self._lanes:
                lane.close()
            if self._kernel is not None:
                self._kernel.close()
            if self._nvjpeg is not None:
                self._nvjpeg.close()
        self._lanes = []
        self._device.enter()
        self._device.close()


class _Lane:
    """A caller's part of the GPU: where its images are decoded to, the rows of the network's input that are made of
    them, and a stream for both."""

    def __init__(self, device: Device, nvjpeg: NvJpeg, kernel: Kernel, spec: ModelSpec, batch: int) -> None:
        self._device, self._kernel, self._spec = device, kernel, spec
        self._shape = (*spec.input_hw, spec.channels)
        self._pixels: Memory | None = None
        self._pixel_bytes = 0
        self._told = device.pinned((batch, _ROW.size), np.uint8)
        with ExitStack() as undo:
            undo.callback(self._free_pixels)
            self._device_told = device.alloc(self._told.nbytes)
            undo.callback(self._device_told.free)
            self._rows = device.alloc(batch * prod(self._shape))
            undo.callback(self._rows.free)
            self.stream = device.stream()
            undo.callback(self.stream.close)
            self._decoder = nvjpeg.decoder()
            undo.callback(self._decoder.close)
            self._undo = undo.pop_all()
        self.stream.mark()

    def files(self, images: Sequence[EncodedImage]) -> BatchFiles:
        """Return images as they are to be decoded, in place of those before.

        Raises DeviceMemoryError where there is no room for their pixels.
        """
        *starts, size_bytes = accumulate((_pixel_bytes(image) for image in images), initial=0)
        if self._pixels is None or self._pixel_bytes < size_bytes:
            self._free_pixels()
            self._pixels, self._pixel_bytes = self._device.alloc(size_bytes), size_bytes
        at = int(self._pixels)
        return BatchFiles.of(
            [image.data for image in images],
            [at + start for start in starts],
            [image.resampling.width for image in images],
        )

    def decode(self, files: BatchFiles) -> Sequence[int | None]:
        """Begin to decode files. Returns where each one's pixels will be, None for one that cannot be decoded.

        Raises EngineError.
        """
        if self._decoder.decode(files, self.stream):
            return files.places
        if len(files) == 1:
            return [None]
        return [place for one in files.apart() for place in self.decode(one)]

    def fill(
        self, images: Sequence[EncodedImage], places: Sequence[int | None], first: int
    ) -> list[DeviceImage | None]:
        """Begin to resize images into rows, from the number `first` on. Returns those that will be filled."""
        found: list[DeviceImage | None] = []
        count, told, row_bytes = 0, self._told.data.cast("B"), prod(self._shape)
        for number, (image, place) in enumerate(zip(images, places, strict=True), first):
            if place is None:
                found.append(None)
                continue
            height, width, *at = image.resampling
            row = (place, width * CHANNELS, width, height, CHANNELS, number, *at)
            _ROW.pack_into(told, (first + count) * _ROW.size, *row)
            if image.pixels is not None:
                self.stream.copy_out(image.pixels, place)
            found.append(DeviceImage(int(self._rows) + number * row_bytes, self._shape))
            count += 1
        if count:
            self._resample(first, count)
        return found

    def finish(self) -> None:
        """Wait for all that was begun: files and pixels are not needed any more."""
        self.stream.mark()
        self.stream.wait()

    def _resample(self, first: int, count: int) -> None:
        height, width, channels = self._shape
        told = int(self._device_told) + first * _ROW.size
        self.stream.copy_in(told, self._told[first : first + count])
        self._kernel.launch(
            self.stream,
            (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), count),
            _BLOCK,
            [
                ctypes.c_uint64(told),
                ctypes.c_uint64(int(self._rows)),
                ctypes.c_int(width),
                ctypes.c_int(height),
                ctypes.c_int(channels),
                ctypes.c_int(_COLORS[self._spec.color]),
                ctypes.c_int(self._spec.pad_value),
            ],
        )

    def _free_pixels(self) -> None:
        if self._pixels is not None:
            self._pixels.free()
        self._pixels = None

    def close(self) -> None:
        self._undo.close()


def _parts(images: Sequence[EncodedImage]) -> Iterator[Sequence[EncodedImage]]:
    """Yield the images in pieces whose pixels fit into the GPU's memory beside all else."""
    start, size_bytes = 0, 0
    for number, image in enumerate(images):
        of_one = _pixel_bytes(image)
        if size_bytes and size_bytes + of_one > MOST_PIXEL_BYTES:
            yield images[start:number]
            start, size_bytes = number, 0
        size_bytes += of_one
    yield images[start:]


def _pixel_bytes(image: EncodedImage) -> int:
    return CHANNELS * image.resampling.height * image.resampling.width
