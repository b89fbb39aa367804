"""Decoding JPEGs: OpenCV on all cores beside nvImageCodec on the GPU, with and without the way back to the host.

The pipeline needs every pixel on the host where it draws, and only the network's input where it does not.
"""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from scripts.gpu_check import need
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.watch import GpuWatch
from trtjob.bench.cores import Moment, Span
from trtjob.bench.synthetic_images import SIZES, make_picture
from trtjob.engines.cuda.device import Device
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ModelSpec, Task
from trtjob.imaging.decode import decode_image
from trtjob.imaging.gpu.decoder import EncodedImage, GpuDecoder
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.resampling import resampling
from trtjob.imaging.resize import prepare

INPUT_HW = (416, 416)
BATCH = 32
CALLERS_AND_THREADS = ((1, 1), (1, 2), (1, 8), (2, 2), (4, 2))
PICTURES = 12
ROUNDS = 3
QUALITY = 90
MAX_PIXELS = 200_000_000
# Without an engine for it, nvJPEG decodes the Huffman code on the CPU or on CUDA cores, and the rest on the latter.
BACKENDS = {"the JPEG engine": "HW_GPU_ONLY", "CPU and CUDA cores": "HYBRID_CPU_GPU"}


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
    nvimgcodec = need.module("nvidia.nvimgcodec", "nvImageCodec (nvidia-nvimgcodec-cu13)")
    for name in SIZES:
        yield from by_callers(name, files[name], options.seconds)
    device = Device(0)
    try:
        for name in SIZES:
            for title, kind in BACKENDS.items():
                yield from _on_gpu(f"{name}, {title}", nvimgcodec, kind, files[name], device, options.seconds)
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
    """Measure the pipeline's own decoder, with its resizing, by how many call it at once and by its threads."""
    spec = ModelSpec(task=Task.DETECT, labels=("a",), input_hw=INPUT_HW)
    images = []
    for data in files:
        size = gpu_jpeg_hw(data)
        found = resampling(size, spec, spec.resize) if size else None
        if found is None:
            raise NotRun("the pictures are none for a GPU")
        images.append(EncodedImage(np.frombuffer(data, np.uint8), found[0]))
    batch = [images[index % len(images)] for index in range(BATCH)]
    for callers, threads in CALLERS_AND_THREADS:
        decoder = GpuDecoder(0, spec, batch=BATCH, callers=callers, threads=threads)

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
        yield speed.row(f"{name}, our decoder: {callers} callers, {threads} threads each", decoder.title)


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


def _on_gpu(name: str, nvimgcodec: Any, kind: str, files: list[bytes], device: Device, seconds: float) -> Iterator[Row]:
    try:
        decoder = BareDecoder(nvimgcodec, kind, files, device)
    except NotRun as err:
        yield Row(name, State.NOT_RUN, note=str(err))
        return
    for title, work, batch in (
        (f"decode, batch {BATCH}", decoder.decode, BATCH),
        (f"decode, batch {BATCH}, all pixels to the host", decoder.decode_to_host, BATCH),
        (f"decode, batch {BATCH}, resize to 416x416 on the GPU", decoder.decode_and_resize, BATCH),
    ):
        try:
            with GpuWatch() as watch:
                speed = measured(lambda work=work, batch=batch: work(batch), seconds)  # type: ignore[misc]
        except NotRun as err:
            yield Row(f"{name}: {title}", State.NOT_RUN, note=str(err))
            continue
        except RuntimeError as err:  # of nvImageCodec or PyTorch: the other figures may still be had
            yield Row(f"{name}: {title}", State.FAILED, note=str(err))
            continue
        busy = [f"GPU busy {watch.gpu()}" if watch.gpu() else "", f"JPEG engine {watch.jpeg()}" if watch.jpeg() else ""]
        yield speed.row(f"{name}: {title}", "; ".join(filter(None, busy)))
    yield decoder.difference(name)


class BareDecoder:
    """nvImageCodec with one kind of backend, and as many files as it is asked for, from host memory."""

    def __init__(self, nvimgcodec: Any, kind: str, files: list[bytes], device: Device) -> None:
        self._codec, self._device = nvimgcodec, device
        self._files = [files[index % len(files)] for index in range(BATCH)]
        backend = nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind))
        try:
            self._decoder = nvimgcodec.Decoder(device_id=0, backends=[backend])
        except RuntimeError as err:
            raise NotRun(f"nvImageCodec makes no such decoder: {err}") from err
        self._stream = device.stream()
        self._images: dict[int, list[Any]] = {}  # by batch: their memory is used again
        self._host: UInt8Array | None = None
        self._decoded(1)  # raises NotRun where this backend takes none of them

    def decode(self, batch: int) -> int:
        self._decoded(batch)
        self._device.synchronize()
        return batch

    def decode_to_host(self, batch: int) -> int:
        """Decode, and copy all pixels into page-locked memory."""
        images = self._decoded(batch)
        if self._host is None:
            self._host = self._device.pinned((batch, *images[0].shape), np.uint8)
        self._device.synchronize()
        for host, image in zip(self._host, images, strict=True):
            self._stream.copy_out(host, image.__cuda_array_interface__["data"][0])
        self._stream.mark()
        self._stream.wait()
        return batch

    def decode_and_resize(self, batch: int) -> int:
        """Decode, and shrink to a network's input by PyTorch; the result stays on the GPU."""
        torch: Any = need.module("torch", "PyTorch, which resizes on the GPU here,")
        images = [torch.as_tensor(image, device="cuda") for image in self._decoded(batch)]
        for image in images:
            planes = image.permute(2, 0, 1)[None].float()
            torch.nn.functional.interpolate(planes, INPUT_HW, mode="bilinear").round().byte()
        torch.cuda.synchronize()
        return batch

    def difference(self, name: str) -> Row:
        """Compare the pixels with OpenCV's."""
        self.decode_to_host(BATCH)
        assert self._host is not None
        ours = [cv2.cvtColor(decode_image(f, max_pixels=MAX_PIXELS), cv2.COLOR_BGR2RGB) for f in self._files[:PICTURES]]
        gaps = [np.abs(a.astype(np.int16) - b) for a, b in zip(ours, self._host, strict=False)]
        worst, mean = max(int(gap.max()) for gap in gaps), statistics.mean(float(gap.mean()) for gap in gaps)
        state = State.OK if mean < 3 else State.FAILED  # more is not another rounding, but another picture
        note = "0 to 255; decoders may round differently" if worst else "the same bytes"
        return Row(f"{name}: pixels beside OpenCV's", state, f"mean {mean:.4f}, largest {worst}", note)

    def _decoded(self, batch: int) -> list[Any]:
        streams = [self._codec.CodeStream(data) for data in self._files[:batch]]
        images = self._decoder.decode(streams, images=self._images.get(batch))
        if any(image is None for image in images):
            raise NotRun(f"nvImageCodec decodes {sum(image is not None for image in images)} of {batch} of these files")
        if images[0].__cuda_array_interface__.get("strides") not in (None, images[0].strides):
            raise NotRun("the decoded pixels do not lie row by row")
        self._images[batch] = images
        return list(images)
