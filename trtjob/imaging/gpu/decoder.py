"""Files of JPEG -> rows of the network's input, without their pixels ever being on the host."""

import ctypes
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.resources import files
from math import prod

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.cuda.interface import Memory
from trtjob.engines.cuda.kernel import Kernel
from trtjob.engines.protocol import DeviceImage
from trtjob.engines.spec import ModelSpec
from trtjob.errors import DeviceMemoryError
from trtjob.imaging.gpu.encoded import CHANNELS, NOWHERE, EncodedImages, pixel_bytes
from trtjob.imaging.gpu.nvjpeg import BatchFiles, NvJpeg
from trtjob.imaging.resampling import RESAMPLING

MOST_PIXEL_BYTES = 256 << 20  # decoded at once by one caller; one image has less (gpu_jpeg.MOST_PIXELS)
_BLOCK = (32, 8, 1)
_COLORS = {"rgb": 0, "bgr": 1, "gray": 2}
_AREA = [name for name in RESAMPLING.names or () if name not in ("height", "width")]  # and what lies there
# As `struct Row` in resample.cu: where the pixels are, and the bytes of a line; their width, height, channels and the
# image's number; then as in a resampling.
_SIDES = [("width", "<i4"), ("height", "<i4"), ("channels", "<i4"), ("number", "<i4")]
_ROW = np.dtype([("pixels", "<u8"), ("pitch", "<i8"), *_SIDES, *((name, RESAMPLING[name]) for name in _AREA)])


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
    def decoded(self, images: EncodedImages) -> Iterator[list[DeviceImage | None]]:
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

    def _begin(self, images: EncodedImages, lane: "_Lane") -> list[DeviceImage | None]:
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
        self._told = device.pinned((batch, _ROW.itemsize), np.uint8)
        self._told_rows = self._told.view(_ROW)[:, 0]
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
        row_bytes = prod(self._shape)
        self._images = [DeviceImage(int(self._rows) + number * row_bytes, self._shape) for number in range(batch)]
        self.stream.mark()

    def files(self, images: EncodedImages) -> BatchFiles:
        """Return images as they are to be decoded, in place of those before.

        Raises DeviceMemoryError where there is no room for their pixels.
        """
        ends = pixel_bytes(images.told["resampling"]).cumsum()
        size_bytes = int(ends[-1])
        if self._pixels is None or self._pixel_bytes < size_bytes:
            self._free_pixels()
            self._pixels, self._pixel_bytes = self._device.alloc(size_bytes), size_bytes
        told = images.told
        return BatchFiles.of(
            images.memory.ctypes.data + told["at"],
            told["size_bytes"],
            int(self._pixels) + np.append(0, ends[:-1]),
            told["resampling"]["width"],
        )

    def decode(self, files: BatchFiles) -> NDArray[np.uint64]:
        """Begin to decode files. Returns where each one's pixels will be, 0 for one that cannot be decoded.

        Raises EngineError.
        """
        if self._decoder.decode(files, self.stream):
            return files.places
        if len(files) == 1:
            return np.zeros(1, np.uint64)
        return np.concatenate([self.decode(one) for one in files.apart()])

    def fill(self, images: EncodedImages, places: NDArray[np.uint64], first: int) -> list[DeviceImage | None]:
        """Begin to resize images into rows, from the number `first` on. Returns those that will be filled."""
        (there,) = places.nonzero()
        if len(there):
            told = images.told[there]
            how, rows = told["resampling"], self._told_rows[first : first + len(there)]
            rows["pixels"], rows["pitch"] = places[there], CHANNELS * how["width"]
            rows["width"], rows["height"], rows["channels"] = how["width"], how["height"], CHANNELS
            rows["number"] = first + there
            rows[_AREA] = how[_AREA]
            for number in there[told["pixels_at"] != NOWHERE]:
                if (pixels := images.pixels(number)) is not None:
                    self.stream.copy_out(pixels, int(places[number]))
            self._resample(first, len(there))
        return [self._images[number] if place else None for number, place in enumerate(places.tolist(), first)]

    def finish(self) -> None:
        """Wait for all that was begun: files and pixels are not needed any more."""
        self.stream.mark()
        self.stream.wait()

    def _resample(self, first: int, count: int) -> None:
        height, width, channels = self._shape
        told = int(self._device_told) + first * _ROW.itemsize
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


def _parts(images: EncodedImages) -> Iterator[EncodedImages]:
    """Yield the images in pieces whose pixels fit into the GPU's memory beside all else."""
    ends = pixel_bytes(images.told["resampling"]).cumsum()
    start, before = 0, 0
    while start < len(images):
        end = max(start + 1, int(ends.searchsorted(before + MOST_PIXEL_BYTES, "right")))
        yield images[start:end]
        start, before = end, int(ends[end - 1])
