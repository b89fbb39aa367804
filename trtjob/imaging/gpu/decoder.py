"""Files of JPEG -> rows of the network's input, without their pixels ever being on the host."""

import ctypes
import logging
import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from math import prod
from typing import Any

import numpy as np

from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver
from trtjob.engines.cuda.interface import Memory
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
_MOST_PIXEL_BYTES = 512 << 20  # decoded at once by one caller
DECODER_THREADS = 2
_CHANNELS = 3
_BLOCK = (32, 8, 1)
_COLORS = {"rgb": 0, "bgr": 1, "gray": 2}
# As `struct Row` in resample.cu.
_ROW = np.dtype(
    [
        ("pixels", "<u8"),
        ("pitch", "<i8"),
        *((name, "<i4") for name in ("width", "height", "channels", "number", "left", "top", "right", "bottom")),
        *((name, "<f4") for name in ("first_x", "first_y", "step_x", "step_y", "reach_x", "reach_y")),
    ]
)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A JPEG file, uint8 [bytes], and how it comes into the network's input."""

    data: UInt8Array
    resampling: Resampling


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
    """Decodes on one GPU, for so many callers at once.

    Raises MissingDependencyError, EngineError where it cannot be had; title: what decodes, for a person.
    """

    def __init__(self, gpu: int, spec: ModelSpec, *, batch: int, callers: int, threads: int = DECODER_THREADS) -> None:
        """threads: of nvImageCodec, for each caller."""
        codec = nvimgcodec()
        self._device = Device(gpu, threaded_driver())
        self._device.leave()
        self._free: queue.SimpleQueue[_Caller] = queue.SimpleQueue()
        self._callers: list[_Caller] = []
        self._kernel: Kernel | None = None
        try:
            with self._device.current():
                self._kernel = Kernel(files(__package__).joinpath("resample.ptx").read_text(), "resample")
                kind = _backend(codec, gpu, threads)
                self.title = f"nvImageCodec {codec.__version__}, {_BACKENDS[kind]}"
                for _ in range(callers):
                    decoder = _decoder(codec, gpu, kind, threads)
                    self._callers.append(_Caller(codec, decoder, self._device, self._kernel, spec, batch))
        except BaseException:
            self.close()
            raise
        for caller in self._callers:
            self._free.put(caller)

    @contextmanager
    def decoded(self, images: Sequence[EncodedImage]) -> Iterator[list[DeviceImage | None]]:
        """Decode and resize images, which lie on the GPU for the length of the block; None for one that cannot be.

        Raises EngineError.
        """
        caller = self._free.get()
        try:
            with self._device.current():
                found = caller.decode(images)
            yield found
        finally:
            self._free.put(caller)

    def close(self) -> None:
        """Free everything; nobody may be decoding."""
        with self._device.current():
            for caller in self._callers:
                caller.close()
            if self._kernel is not None:
                self._kernel.close()
        self._callers = []
        self._device.enter()
        self._device.close()


class _Caller:
    """What one batch needs at a time: a decoder with its buffers, a stream, and rows of the network's input."""

    def __init__(self, codec: Any, decoder: Any, device: Device, kernel: Kernel, spec: ModelSpec, batch: int) -> None:
        self._codec, self._decoder, self._kernel = codec, decoder, kernel
        self._params = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)
        self._spec = spec
        self._shape = (*spec.input_hw, spec.channels)
        self._stream = device.stream()
        self._rows = device.pinned((batch, _ROW.itemsize), np.uint8)
        self._buffers: list[Memory] = []
        self._batch = self._alloc(device, batch * prod(self._shape))
        self._device_rows = self._alloc(device, self._rows.nbytes)
        self._images: list[Any] = []  # whose memory is used again

    def _alloc(self, device: Device, size_bytes: int) -> Memory:
        self._buffers.append(device.alloc(size_bytes))
        return self._buffers[-1]

    def decode(self, images: Sequence[EncodedImage]) -> list[DeviceImage | None]:
        found: list[DeviceImage | None] = []
        for part in _parts(images):
            found += self._decode(part, len(found))
        return found

    def _decode(self, images: Sequence[EncodedImage], first: int) -> list[DeviceImage | None]:
        """Decode some of a batch's images; first: the number of the first."""
        codec = self._codec
        again = self._images[: len(images)] if len(self._images) >= len(images) else None
        try:
            streams = [codec.CodeStream(image.data) for image in images]
            decoded = self._decoder.decode(streams, images=again, params=self._params, cuda_stream=self._stream.handle)
        except RuntimeError as err:
            raise EngineError(f"nvImageCodec failed: {err}") from err
        if again is None or None in decoded:
            self._images = [] if None in decoded else list(decoded)
        rows = self._rows.view(_ROW)[:, 0]
        found: list[DeviceImage | None] = []
        count = 0
        for number, (image, pixels) in enumerate(zip(images, decoded, strict=True), first):
            if pixels is None or not _fits(pixels, image.resampling):
                found.append(None)
                continue
            rows[count] = _row(pixels, image.resampling, number)
            found.append(DeviceImage(int(self._batch) + number * prod(self._shape), self._shape))
            count += 1
        if count:
            self._resample(count)
        return found

    def _resample(self, count: int) -> None:
        """Fill rows of the batch, and wait until they are: the pixels' memory is used again."""
        height, width, channels = self._shape
        self._stream.copy_in(self._device_rows, self._rows[:count])
        self._kernel.launch(
            self._stream,
            (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), count),
            _BLOCK,
            [
                ctypes.c_uint64(int(self._device_rows)),
                ctypes.c_uint64(int(self._batch)),
                ctypes.c_int(width),
                ctypes.c_int(height),
                ctypes.c_int(channels),
                ctypes.c_int(_COLORS[self._spec.color]),
                ctypes.c_int(self._spec.pad_value),
            ],
        )
        self._stream.mark()
        self._stream.wait()

    def close(self) -> None:
        self._images = []
        self._decoder = None
        for buffer in self._buffers:
            buffer.free()
        self._stream.close()


def _parts(images: Sequence[EncodedImage]) -> Iterator[Sequence[EncodedImage]]:
    """Yield the images in pieces whose pixels fit into the GPU's memory beside all else."""
    start, size_bytes = 0, 0
    for number, image in enumerate(images):
        of_one = _CHANNELS * image.resampling.height * image.resampling.width
        if size_bytes and size_bytes + of_one > _MOST_PIXEL_BYTES:
            yield images[start:number]
            start, size_bytes = number, 0
        size_bytes += of_one
    yield images[start:]


def _fits(pixels: Any, resampling: Resampling) -> bool:
    return bool(tuple(pixels.shape[:2]) == (resampling.height, resampling.width) and pixels.dtype == np.uint8)


def _row(pixels: Any, resampling: Resampling, number: int) -> tuple[float, ...]:
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
