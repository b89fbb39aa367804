"""Files of JPEG -> rows of the network's input, without their pixels ever being on the host."""

import ctypes
import logging
import queue
import struct
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from itertools import count
from math import prod
from typing import Any

import numpy as np

from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.cuda.interface import Memory, Stream
from trtjob.engines.cuda.kernel import Kernel
from trtjob.engines.protocol import DeviceImage, UInt8Array
from trtjob.engines.spec import ModelSpec
from trtjob.errors import EngineError, MissingDependencyError
from trtjob.imaging.resampling import Resampling
from trtjob.library_output import as_remark, library_output

log = logging.getLogger(__name__)

# The JPEG engine of data-centre cards; elsewhere Huffman codes are the CPU's part. One of them alone: two that share a
# batch would share it differently each time, and they round differently.
_BACKENDS = {"HW_GPU_ONLY": "the JPEG engine", "HYBRID_CPU_GPU": "CUDA cores and the CPU"}
MOST_PIXEL_BYTES = 512 << 20  # decoded at once by one caller
DECODER_THREADS = 2
_CHANNELS = 3
_BLOCK = (32, 8, 1)
_COLORS = {"rgb": 0, "bgr": 1, "gray": 2}
# As `struct Row` in resample.cu: where the pixels are, and the bytes of a line; their width, height, channels and the
# image's number; left, top, right, bottom; the first pixel, step and reach, in x and y.
_ROW = struct.Struct("<Qq8i6f")
_CANVASES = 2  # one is filled while the other is resized


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A JPEG file, uint8 [bytes], and how it comes into the network's input.

    pixels: RGB [H, W, 3], where they are wanted on the host too; None: nowhere.
    """

    data: UInt8Array
    resampling: Resampling
    pixels: UInt8Array | None = None


def nvimgcodec() -> Any:
    """Return nvImageCodec. Raises MissingDependencyError."""
    try:
        with _quiet():
            from nvidia import nvimgcodec as found
    except ImportError as err:
        raise MissingDependencyError("nvidia-nvimgcodec", extra="nvimgcodec") from err
    return found


def installed_package() -> str:
    """Return nvImageCodec's package and version, without loading it; nothing where it is not installed."""
    for package in ("nvidia-nvimgcodec-cu13", "nvidia-nvimgcodec-cu12"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return ""


class GpuDecoder:
    """Decodes on one GPU, for so many callers at once: their batches one after another, in a thread of its own. Two at
    a time are no faster, and cost three times the CPU's time.

    Raises MissingDependencyError, EngineError where it cannot be had; title: what decodes, for a person; busy_s: how
    long that thread has worked.
    """

    def __init__(self, gpu: int, spec: ModelSpec, *, batch: int, callers: int, threads: int = DECODER_THREADS) -> None:
        """threads: of nvImageCodec."""
        codec = nvimgcodec()
        self._device = Device(gpu, threaded_driver())
        self._device.leave()
        self._thread = ThreadPoolExecutor(1, "trtjob-decode")
        self._free: queue.SimpleQueue[_Rows] = queue.SimpleQueue()
        self._rows: list[_Rows] = []
        self._canvases: list[_Canvas] = []
        self._turns = count()
        self.busy_s = 0.0
        self._kernel: Kernel | None = None
        try:
            with self._device.current():
                self._kernel = Kernel(files(__package__).joinpath("resample.ptx").read_text(), "resample")
                kind = _backend(codec, gpu, threads)
                self.title = f"nvImageCodec {codec.__version__}, {_BACKENDS[kind]}"
                decoder = _decoder(codec, gpu, kind, threads)
                self._canvases = [_Canvas(codec, decoder, self._device) for _ in range(_CANVASES)]
                for _ in range(callers):
                    self._rows.append(_Rows(self._device, self._kernel, spec, batch))
        except BaseException:
            self.close()
            raise
        for rows in self._rows:
            self._free.put(rows)

    @contextmanager
    def decoded(self, images: Sequence[EncodedImage]) -> Iterator[list[DeviceImage | None]]:
        """Decode and resize images, which lie on the GPU for the length of the block; None for one that cannot be.

        The pixels of the others are where they are wanted. Raises EngineError.
        """
        rows = self._free.get()
        try:
            try:
                found = self._thread.submit(self._decode, images, rows).result()
            finally:
                with self._device.current():
                    rows.wait()
            yield found
        finally:
            self._free.put(rows)

    def _decode(self, images: Sequence[EncodedImage], rows: "_Rows") -> list[DeviceImage | None]:
        """Begin to fill rows. Returns those that will be."""
        start = time.perf_counter()
        found: list[DeviceImage | None] = []
        with self._device.current():
            for part in _parts(images):
                canvas = self._canvases[next(self._turns) % _CANVASES]
                found += rows.fill(part, canvas.decoded(part), len(found), canvas.stream)
        self.busy_s += time.perf_counter() - start
        return found

    def close(self) -> None:
        """Free everything; nobody may be decoding."""
        self._thread.shutdown()
        with self._device.current():
            for canvas in self._canvases:
                canvas.close()
            for rows in self._rows:
                rows.close()
            if self._kernel is not None:
                self._kernel.close()
        self._canvases, self._rows = [], []
        self._device.enter()
        self._device.close()


class _Canvas:
    """Where images are decoded to, of any size; the next ones as soon as these are resized. stream: for both."""

    def __init__(self, codec: Any, decoder: Any, device: Device) -> None:
        self._codec, self._decoder = codec, decoder
        self._params = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)
        self._images: list[Any] = []  # whose memory is used again
        self.stream = device.stream()
        self.stream.mark()

    def decoded(self, images: Sequence[EncodedImage]) -> list[Any]:
        """Return each image's pixels, None for one that cannot be decoded. Raises EngineError."""
        self.stream.wait()
        again = self._images[: len(images)] if len(self._images) >= len(images) else None
        try:
            streams = [self._codec.CodeStream(image.data) for image in images]
            decoded = list(
                self._decoder.decode(streams, images=again, params=self._params, cuda_stream=self.stream.handle)
            )
        except RuntimeError as err:
            raise EngineError(f"nvImageCodec failed: {err}") from err
        if again is None or None in decoded:
            self._images = [] if None in decoded else decoded
        return decoded

    def close(self) -> None:
        self._images = []
        self._decoder = None
        self.stream.close()


class _Rows:
    """A batch's rows of the network's input on the GPU, and how each is made of an image's pixels."""

    def __init__(self, device: Device, kernel: Kernel, spec: ModelSpec, batch: int) -> None:
        self._kernel, self._spec = kernel, spec
        self._shape = (*spec.input_hw, spec.channels)
        self._told = device.pinned((batch, _ROW.size), np.uint8)
        self._buffers: list[Memory] = []
        self._batch = self._alloc(device, batch * prod(self._shape))
        self._device_told = self._alloc(device, self._told.nbytes)
        self._streams: dict[int, Stream] = {}  # on which they are filled, by handle

    def _alloc(self, device: Device, size_bytes: int) -> Memory:
        self._buffers.append(device.alloc(size_bytes))
        return self._buffers[-1]

    def fill(
        self, images: Sequence[EncodedImage], decoded: Sequence[Any], first: int, stream: Stream
    ) -> list[DeviceImage | None]:
        """Begin to resize images into rows, from the number `first` on. Returns those that will be filled."""
        found: list[DeviceImage | None] = []
        count, told, row_bytes = 0, self._told.data.cast("B"), prod(self._shape)
        for number, (image, pixels) in enumerate(zip(images, decoded, strict=True), first):
            if pixels is None or not _fits(pixels, image):
                found.append(None)
                continue
            row = _row(pixels, image.resampling, number)
            _ROW.pack_into(told, (first + count) * _ROW.size, *row)
            if image.pixels is not None:
                stream.copy_out(image.pixels, row[0])
            found.append(DeviceImage(int(self._batch) + number * row_bytes, self._shape))
            count += 1
        if count:
            self._resample(first, count, stream)
        return found

    def _resample(self, first: int, count: int, stream: Stream) -> None:
        height, width, channels = self._shape
        told = int(self._device_told) + first * _ROW.size
        stream.copy_in(told, self._told[first : first + count])
        self._kernel.launch(
            stream,
            (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), count),
            _BLOCK,
            [
                ctypes.c_uint64(told),
                ctypes.c_uint64(int(self._batch)),
                ctypes.c_int(width),
                ctypes.c_int(height),
                ctypes.c_int(channels),
                ctypes.c_int(_COLORS[self._spec.color]),
                ctypes.c_int(self._spec.pad_value),
            ],
        )
        stream.mark()
        self._streams[stream.handle] = stream

    def wait(self) -> None:
        """Wait until they are filled."""
        for stream in self._streams.values():
            stream.wait()
        self._streams.clear()

    def close(self) -> None:
        for buffer in self._buffers:
            buffer.free()


def _parts(images: Sequence[EncodedImage]) -> Iterator[Sequence[EncodedImage]]:
    """Yield the images in pieces whose pixels fit into the GPU's memory beside all else."""
    start, size_bytes = 0, 0
    for number, image in enumerate(images):
        of_one = _CHANNELS * image.resampling.height * image.resampling.width
        if size_bytes and size_bytes + of_one > MOST_PIXEL_BYTES:
            yield images[start:number]
            start, size_bytes = number, 0
        size_bytes += of_one
    yield images[start:]


def _fits(pixels: Any, image: EncodedImage) -> bool:
    """Whether pixels are those that the file's header tells of, and one piece where they are copied."""
    height, width = image.resampling.height, image.resampling.width
    if tuple(pixels.shape[:2]) != (height, width) or pixels.dtype != np.uint8:
        return False
    strides = pixels.__cuda_array_interface__.get("strides")
    return image.pixels is None or strides in (None, image.pixels.strides)


def _row(pixels: Any, resampling: Resampling, number: int) -> tuple[Any, ...]:
    interface = pixels.__cuda_array_interface__
    height, width, channels = interface["shape"]
    pitch = (interface.get("strides") or (width * channels,))[0]
    at = resampling
    place = (at.left, at.top, at.right, at.bottom, at.first_x, at.first_y)
    steps = (at.step_x, at.step_y, at.reach_x, at.reach_y)
    return (interface["data"][0], pitch, width, height, channels, number, *place, *steps)


def _backend(codec: Any, gpu: int, threads: int) -> str:
    """Return the first kind of decoder that this GPU has. Raises EngineError where it has none."""
    reason = ""
    for kind in _BACKENDS:
        try:
            _decoder(codec, gpu, kind, threads)
        except EngineError as err:
            reason = str(err)
        else:
            return kind
    raise EngineError(reason)


def _decoder(codec: Any, gpu: int, kind: str, threads: int) -> Any:
    backend = codec.Backend(getattr(codec.BackendKind, kind))
    try:
        with _quiet():
            return codec.Decoder(device_id=gpu, max_num_cpu_threads=threads, backends=[backend])
    except RuntimeError as err:
        raise EngineError(f"nvImageCodec makes no decoder for GPU {gpu}: {err}") from err


@contextmanager
def _quiet() -> Iterator[None]:
    """Have what native code prints on standard error in the log instead: it names every codec that is not installed."""
    with library_output() as said:
        yield
    if said:
        log.debug("nvImageCodec", extra={"said": as_remark(said)})
