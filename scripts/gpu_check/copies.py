"""Copies through page-locked memory, one way and both ways at once, and the primary context beside PyTorch."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from scripts.gpu_check import need
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.wishes import Wishes
from trtjob.engines.tensorrt.cuda import Device

SIZE_BYTES = 256 << 20
REPEATS = 20


def check(_wishes: Wishes) -> Iterator[Row]:
    found = need.gpu()
    device = Device(0)
    try:
        yield Row("primary context", figure="retained", note=f"{found.name}, current in one thread")
        yield from _bandwidth(device)
        yield _beside_torch(device)
    finally:
        device.close()


def _bandwidth(device: Device) -> list[Row]:
    into, out = device.stream(), device.stream()
    there, back = (device.pinned((SIZE_BYTES,), np.uint8) for _ in range(2))
    there[:] = np.random.default_rng(1).integers(0, 256, SIZE_BYTES, np.uint8)
    buffers = [device.alloc(SIZE_BYTES) for _ in range(2)]

    def copy_in() -> None:
        into.copy_in(buffers[0], there)
        into.mark()
        into.wait()

    def copy_out() -> None:
        out.copy_out(back, buffers[1])
        out.mark()
        out.wait()

    def both() -> None:
        into.copy_in(buffers[0], there)
        out.copy_out(back, buffers[1])
        into.mark()
        out.mark()
        into.wait()
        out.wait()

    times = [_median_s(copy) for copy in (copy_in, copy_out, both)]
    out.copy_out(back, buffers[0])
    out.mark()
    out.wait()
    is_same = np.array_equal(there, back)
    for buffer in buffers:
        buffer.free()
    return [*_rates(*times), Row("bytes come back", State.OK if is_same else State.FAILED, f"{SIZE_BYTES >> 20} MiB")]


def _median_s(copy: Callable[[], None]) -> float:
    copy()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        copy()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _rates(in_s: float, out_s: float, both_s: float) -> list[Row]:
    note = f"{SIZE_BYTES >> 20} MiB, page-locked, median of {REPEATS}"
    gigabytes = SIZE_BYTES / 1e9
    overlap = (in_s + out_s) / both_s
    return [
        Row("host to GPU", figure=f"{gigabytes / in_s:.1f} GB/s", note=note),
        Row("GPU to host", figure=f"{gigabytes / out_s:.1f} GB/s", note=note),
        Row("both at once, two streams", figure=f"{2 * gigabytes / both_s:.1f} GB/s", note="both directions added"),
        Row("overlap", figure=f"{overlap:.2f}", note="time of one after the other / time of both at once; 2 is all"),
    ]


def _beside_torch(device: Device) -> Row:
    """Copy what PyTorch computed with a stream of ours: both live in the same context."""
    name = "beside PyTorch in one process"
    try:
        torch: Any = need.module("torch", "PyTorch")
    except NotRun as err:
        return Row(name, State.NOT_RUN, note=str(err))
    if not torch.cuda.is_available():
        return Row(name, State.NOT_RUN, note="PyTorch was built without CUDA, or sees no GPU")
    tensor = torch.randn((512, 512), device="cuda")
    product = tensor @ tensor
    torch.cuda.synchronize()
    host, stream = device.pinned((512, 512), np.float32), device.stream()
    stream.copy_out(host, product.data_ptr())
    stream.mark()
    stream.wait()
    is_same = np.array_equal(host, product.cpu().numpy())
    return Row(name, State.OK if is_same else State.FAILED, "512x512", "its product, copied out by a stream of ours")
