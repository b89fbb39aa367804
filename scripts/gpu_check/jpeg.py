"""Decoding JPEGs: OpenCV on all cores beside nvJPEG on the GPU, with and without the way back to the host.

The pipeline needs every pixel on the host where it draws, and only the network's input where it does not.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle

import cv2
import numpy as np

from scripts.gpu_check import need
from scripts.gpu_check.decoding import how_resized
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.watch import GpuWatch
from trtjob.bench.cores import Moment, Span
from trtjob.bench.synthetic_images import SIZES, make_picture
from trtjob.engines.cuda.device import Device
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ModelSpec, Task
from trtjob.errors import EngineError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.gpu.decoder import GpuDecoder
from trtjob.imaging.gpu.encoded import EncodedImages
from trtjob.imaging.gpu.nvjpeg import BACKENDS, BatchFiles, NvJpeg, installed_package
from trtjob.imaging.resize import prepare

INPUT_HW = (416, 416)
BATCH = 32
CALLERS = (1, 2, 4)
PICTURES = 12
ROUNDS = 3
LANES = 2
QUALITY = 90
MAX_PIXELS = 200_000_000


@dataclass(frozen=True, slots=True)
class Speed:
    """images_per_s; cpu_ms: of an image, all threads together."""

    images_per_s: float
    cpu_ms: float

    def row(self, name: str, note: str) -> Row:
        return Row(name, figure=f"{self.images_per_s:.0f} images/s", note=f"{self.cpu_ms:.2f} CPU-ms an image; {note}")


def check(options: CheckOptions) -> Iterator[Row]:
    cv2.setNumThreads(1)  # as in a worker: the threads are ours
    files = {name: files_of(name) for name in SIZES}
    for name in SIZES:
        yield from on_cpu(name, files[name], options.seconds)
    need.gpu()
    if not installed_package():
        raise NotRun("nvJPEG is not installed")
    for name in SIZES:
        yield from by_callers(name, files[name], options.seconds)
    device = Device(0)
    try:
        for name in SIZES:
            for backend, title in BACKENDS.items():
                yield from _on_gpu(f"{name}, {title}", backend, files[name], device, options.seconds)
    finally:
        device.close()


def files_of(name: str) -> list[bytes]:
    """Return JPEGs of a named size: baseline, 4:2:0."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return [cv2.imencode(".jpg", make_picture(name, seed), quality)[1].tobytes() for seed in range(PICTURES)]


def on_cpu(name: str, files: list[bytes], seconds: float) -> Iterator[Row]:
    """Measure OpenCV as the pipeline uses it, one image to a thread and one thread to a core."""
    spec = ModelSpec(task=Task.DETECT, labels=("a",), input_hw=INPUT_HW)
    cores = len(os.sched_getaffinity(0))
    many = [files[index % len(files)] for index in range(16 * cores)]

    def decode(data: bytes) -> None:
        decode_image(data, max_pixels=MAX_PIXELS)

    def decode_and_resize(data: bytes) -> None:
        prepare(decode_image(data, max_pixels=MAX_PIXELS), spec, spec.resize)

    note = f"{cores} threads, {sum(map(len, files)) / len(files) / 1000:.0f} KB a file"
    with ThreadPoolExecutor(cores) as pool:

        def run(work: Callable[[bytes], None]) -> Speed:
            return measured(lambda: len(list(pool.map(work, many))), seconds)

        yield run(decode).row(f"{name}, OpenCV: decode", note)
        yield run(decode_and_resize).row(f"{name}, OpenCV: decode, resize to 416x416", note)


def by_callers(name: str, files: list[bytes], seconds: float) -> Iterator[Row]:
    """Measure the pipeline's own decoder, with its resizing, by how many call it at once."""
    spec = ModelSpec(task=Task.DETECT, labels=("a",), input_hw=INPUT_HW)
    images = [(data, how_resized(data, spec)) for data in files]
    batch = EncodedImages.of([images[index % len(images)] for index in range(BATCH)])
    for callers in CALLERS:
        decoder = GpuDecoder(0, spec, batch=BATCH, callers=callers)

        def call(_caller: int, decoder: GpuDecoder = decoder) -> int:
            with decoder.decoded(batch) as found:
                return sum(image is not None for image in found)

        try:
            with ThreadPoolExecutor(callers) as pool:

                def all_at_once(pool: ThreadPoolExecutor = pool, callers: int = callers) -> int:
                    return sum(pool.map(call, range(4 * callers)))

                speed = measured(all_at_once, seconds)
        finally:
            decoder.close()
        yield speed.row(f"{name}, our decoder: {callers} callers", decoder.title)


def measured(work: Callable[[], int], seconds: float) -> Speed:
    """Return how fast `work` is, which returns how many images it did: the median of the rounds after a warm-up."""
    work()
    speeds = []
    for _ in range(ROUNDS):
        begin, images = Moment.now(), 0
        while time.perf_counter() < begin.wall_s + seconds / ROUNDS:
            images += work()
        span = Span.between(begin, Moment.now())
        speeds.append(Speed(images / span.elapsed_s, span.process_s / images * 1000))
    return Speed(statistics.median(s.images_per_s for s in speeds), statistics.median(s.cpu_ms for s in speeds))


def _on_gpu(name: str, backend: int, files: list[bytes], device: Device, seconds: float) -> Iterator[Row]:
    try:
        decoder = BareDecoder(backend, files, device)
    except EngineError as err:
        yield Row(name, State.NOT_RUN, note=str(err))
        return
    for title, work in (("decode", decoder.decode), ("decode, all pixels to the host", decoder.decode_to_host)):
        with GpuWatch() as watch:
            speed = measured(work, seconds)
        busy = [f"GPU busy {watch.gpu()}" if watch.gpu() else "", f"JPEG engine {watch.jpeg()}" if watch.jpeg() else ""]
        yield speed.row(f"{name}: {title}, batch {BATCH}", "; ".join(filter(None, busy)))
    yield decoder.difference(name)
    decoder.close()


class BareDecoder:
    """nvJPEG with one kind of backend, from host memory: two batches under way, as in a pipeline."""

    def __init__(self, backend: int, files: list[bytes], device: Device) -> None:
        """Raises EngineError where this GPU has none, or it takes none of the files."""
        self._files = [np.frombuffer(files[index % len(files)], np.uint8) for index in range(BATCH)]
        shape = decode_image(files[0], max_pixels=MAX_PIXELS).shape
        self._nvjpeg = NvJpeg([backend])
        self._lanes = [_Lane(self._nvjpeg, device, (BATCH, *shape)) for _ in range(LANES)]
        self._turns = cycle(self._lanes)
        self.decode()

    def decode(self) -> int:
        """Begin to decode a batch, when the one before the last is done."""
        lane = next(self._turns)
        lane.begin(self._files)
        lane.stream.mark()
        return BATCH

    def decode_to_host(self) -> int:
        """Decode, and copy all pixels into page-locked memory."""
        lane = next(self._turns)
        lane.begin(self._files)
        lane.stream.copy_out(lane.host, lane.pixels)
        lane.stream.mark()
        return BATCH

    def difference(self, name: str) -> Row:
        """Compare the pixels with OpenCV's."""
        self.decode_to_host()
        for lane in self._lanes:
            lane.stream.wait()
        found = self._lanes[0].host
        ours = [decode_image(file.tobytes(), max_pixels=MAX_PIXELS)[..., ::-1] for file in self._files[:PICTURES]]
        gaps = [np.abs(a.astype(np.int16) - b) for a, b in zip(ours, found, strict=False)]
        worst, mean = max(int(gap.max()) for gap in gaps), statistics.mean(float(gap.mean()) for gap in gaps)
        state = State.OK if mean < 3 else State.FAILED  # more is not another rounding, but another picture
        note = "0 to 255; decoders may round differently" if worst else "the same bytes"
        return Row(f"{name}: pixels beside OpenCV's", state, f"mean {mean:.4f}, largest {worst}", note)

    def close(self) -> None:
        for lane in self._lanes:
            lane.close()
        self._nvjpeg.close()


class _Lane:
    """A decoder with a stream, and memory for a batch of one size on either side."""

    def __init__(self, nvjpeg: NvJpeg, device: Device, shape: tuple[int, ...]) -> None:
        self._decoder = nvjpeg.decoder()
        self.stream = device.stream()
        self.stream.mark()
        self.host: UInt8Array = device.pinned(shape, np.uint8)
        self.pixels = device.alloc(self.host.nbytes)
        self._widths = [shape[2]] * shape[0]
        self._places = [int(self.pixels) + number * (self.host.nbytes // shape[0]) for number in range(shape[0])]

    def begin(self, files: list[UInt8Array]) -> None:
        self.stream.wait()
        addresses, lengths = [file.ctypes.data for file in files], [file.nbytes for file in files]
        if not self._decoder.decode(BatchFiles.of(addresses, lengths, self._places, self._widths), self.stream):
            raise EngineError("nvJPEG does not decode these files")

    def close(self) -> None:
        self.stream.wait()
        self._decoder.close()
        self.stream.close()
        self.pixels.free()
