"""CUDA by either of its packages, on a real GPU; and what is said where there is none."""

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from mmap import mmap
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trtjob.engines.cuda.device import Device, gpus
from trtjob.engines.cuda.driver import driver, has_driver
from trtjob.engines.cuda.interface import Driver, version_of
from trtjob.engines.cuda.staging import Arrays, copy_in, copy_out
from trtjob.engines.protocol import AnyImage, UInt8Array
from trtjob.engines.tensorrt.lanes import Lane, Lanes
from trtjob.errors import DeviceMemoryError, EngineError

gpu = pytest.mark.gpu


def by_pycuda() -> Driver:
    from trtjob.engines.cuda.pycuda import PycudaDriver

    return PycudaDriver()


def by_bindings() -> Driver:
    from trtjob.engines.cuda.bindings import BindingsDriver

    return BindingsDriver()


@pytest.fixture(params=[pytest.param(by_pycuda, id="pycuda"), pytest.param(by_bindings, id="cuda-bindings")])
def chosen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Driver:
    """One of the two packages, used by all that opens a device."""
    monkeypatch.setattr("trtjob.engines.cuda.device.driver", request.param)
    found: Driver = request.param()
    return found


@pytest.fixture
def device(chosen: Driver) -> Iterator[Device]:
    device = Device(0)
    yield device
    device.close()


@pytest.mark.extra
@pytest.mark.skipif(has_driver(), reason="this machine has NVIDIA's driver")
def test_without_nvidias_driver_the_error_says_what_to_install() -> None:
    assert find_spec("cuda.bindings") is not None
    with pytest.raises(EngineError, match=r"CUDA cannot be used: .*Install NVIDIA's driver"):
        driver()


def test_the_drivers_number_for_cuda_is_read() -> None:
    assert [version_of(number) for number in (13000, 12040, 11080)] == [(13, 0), (12, 4), (11, 8)]


@gpu
def test_a_gpu_says_what_it_is(chosen: Driver) -> None:
    first = gpus()[0]
    assert first.index == 0
    assert "NVIDIA" in first.name
    assert first.compute_capability >= (6, 0)
    assert first.memory_bytes > 1 << 30
    assert chosen.version() >= (11, 0)


@gpu
def test_both_packages_see_the_same_gpus() -> None:
    assert by_pycuda().gpus() == by_bindings().gpus()


@gpu
def test_a_context_can_be_used_in_another_thread() -> None:
    device = Device(0, by_bindings())

    def copied() -> bool:
        with device.current():
            sent, received = device.pinned((1000,), np.uint8), device.pinned((1000,), np.uint8)
            sent[:] = 5
            stream, buffer = device.stream(), device.alloc(1000)
            stream.copy_in(buffer, sent)
            stream.copy_out(received, buffer)
            stream.mark()
            stream.wait()
            buffer.free()
            return bool((received == 5).all())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(copied).result(10)
    device.close()


@gpu
def test_bytes_come_back_from_the_gpu_on_two_streams_at_once(device: Device) -> None:
    streams = [device.stream() for _ in range(2)]
    sent = [device.pinned((1000, 1000), np.uint8) for _ in streams]
    received = [device.pinned((1000, 1000), np.uint8) for _ in streams]
    buffers = [device.alloc(array.nbytes) for array in sent]
    for number, (stream, there, buffer, back) in enumerate(zip(streams, sent, buffers, received, strict=True)):
        there[:] = np.random.default_rng(number).integers(0, 256, there.shape)
        stream.copy_in(buffer, there)
        stream.copy_out(back, buffer)
        stream.mark()
    for stream, there, back in zip(streams, sent, received, strict=True):
        stream.wait()
        assert stream.is_done()
        assert np.array_equal(there, back)
    for buffer in buffers:
        buffer.free()


def shared(size_bytes: int) -> tuple[mmap, UInt8Array]:
    memory = mmap(-1, size_bytes)
    return memory, np.frombuffer(memory, np.uint8)


@gpu
def test_shared_memory_that_is_locked_is_copied_from_and_to_where_it_lies(device: Device) -> None:
    memory, pixels = shared(1 << 20)
    assert not device.reaches([pixels])
    device.lock(memory)
    assert device.reaches([pixels, pixels[5:9]])
    stream, buffer = device.stream(), device.alloc(4000)
    rows = [pixels[start : start + 1000] for start in (0, 4096, 10_000, 100_000)]
    back = [pixels[start : start + 1000] for start in (500_000, 300_000, 700_000, 400_000)]
    for number, row in enumerate(rows, 1):
        row[:] = number
    copy_in(stream, buffer, rows)
    copy_out(stream, back, buffer)
    stream.mark()
    stream.wait()
    assert [set(row.tolist()) for row in back] == [{1}, {2}, {3}, {4}]
    buffer.free()


@gpu
def test_what_lies_elsewhere_or_in_pieces_is_not_reached(device: Device) -> None:
    memory, pixels = shared(1 << 16)
    device.lock(memory)
    assert not device.reaches([pixels, np.zeros(10, np.uint8)])
    assert not device.reaches([pixels[::2]])
    assert not device.reaches([np.lib.stride_tricks.as_strided(pixels[1:], pixels.shape)])  # it ends a byte later
    other, others = shared(1 << 16)
    device.lock(other)
    assert device.reaches([others])
    assert not device.reaches([pixels])


@gpu
def test_locked_memory_stays_mapped_until_it_is_replaced_or_the_device_closes(chosen: Driver) -> None:
    device, (first, pixels), (second, others) = Device(0), shared(1 << 16), shared(1 << 16)
    del pixels, others
    device.lock(first)
    with pytest.raises(BufferError):
        first.close()
    device.lock(second)
    first.close()
    device.close()
    second.close()


@gpu
def test_another_thread_that_waits_for_the_gpu_sleeps() -> None:
    """In a process of its own: whoever opens the context first, and other tests leave it open, chooses how it waits."""
    script = """
from cuda.bindings import driver as cuda
from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.driver import threaded_driver

for _ in range(2):  # the second time with the first's flags
    device = Device(0, threaded_driver())
    _, flags, is_active = cuda.cuDevicePrimaryCtxGetState(0)
    device.close()
    assert (flags, is_active) == (cuda.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC, 1), (flags, is_active)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@gpu
def test_memory_that_cannot_be_locked_is_a_warning(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    memory, pixels = shared(1 << 16)
    device.lock(memory)
    other = Device(0)
    with caplog.at_level(logging.WARNING):
        other.lock(memory)  # as CUDA refuses to do twice
    (warning,) = caplog.records
    assert warning.getMessage() == "shared memory is not page-locked: images are copied once more"
    assert "CUDA does not page-lock 65,536 bytes: " in vars(warning)["error"]
    assert not other.reaches([pixels])
    assert device.reaches([pixels])
    other.close()


@gpu
def test_more_memory_than_there_is_is_refused_and_the_context_goes_on(device: Device) -> None:
    with pytest.raises(DeviceMemoryError, match="the GPU's memory is full"):
        device.alloc(1 << 50)
    device.alloc(1 << 20).free()


@gpu
def test_the_primary_context_is_shared_with_other_libraries(device: Device) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(1000, dtype=torch.uint8, device="cuda")
    host = device.pinned((1000,), np.uint8)
    stream = device.stream()
    torch.cuda.synchronize()
    stream.copy_out(host, tensor.data_ptr())
    stream.mark()
    stream.wait()
    assert np.array_equal(host, tensor.cpu().numpy())


@gpu
@pytest.mark.alone
def test_a_device_can_be_opened_and_closed_many_times_without_growth(chosen: Driver) -> None:
    def cycle() -> int:
        device = Device(0)
        free = device.free_bytes()
        buffer = device.alloc(64 << 20)
        device.pinned((1 << 20,), np.uint8)
        buffer.free()
        device.close()
        return free

    first = cycle()
    assert all(first - cycle() < 8 << 20 for _ in range(30))


class EchoLane:
    """A lane that sends the images to the GPU and takes them back as its output."""

    def __init__(self, device: Device, max_batch: int) -> None:
        self.reaches = device.reaches
        self._stream = device.stream()
        self.images: UInt8Array = device.pinned((max_batch, 64, 64, 3), np.uint8)
        self.outputs: dict[str, NDArray[Any]] = {"echo": device.pinned(self.images.shape, np.uint8)}
        self._buffer = device.alloc(self.images.nbytes)

    def launch(self, images: Sequence[AnyImage], outputs: Mapping[str, Arrays]) -> None:
        copy_in(self._stream, self._buffer, images)
        copy_out(self._stream, outputs["echo"], self._buffer)
        self._stream.mark()

    def is_done(self) -> bool:
        return self._stream.is_done()

    def wait(self) -> None:
        self._stream.wait()

    def close(self) -> None:
        self._buffer.free()


@gpu
def test_lanes_carry_the_batches_of_many_callers(chosen: Driver) -> None:
    opened: list[Device] = []

    def open_lanes() -> list[Lane]:
        opened.append(Device(0))
        return [EchoLane(opened[0], 8) for _ in range(2)]

    lanes = Lanes(open_lanes, lambda: opened[0].close(), runs=2)
    batches = [
        np.random.default_rng(number).integers(0, 256, (1 + number % 8, 64, 64, 3)).astype(np.uint8)
        for number in range(300)
    ]

    def copy_lanes(batch: UInt8Array) -> UInt8Array:
        found = np.zeros(batch.shape, np.float32)
        lanes.run(list(batch), {"echo": list(found)})
        return found.astype(np.uint8)

    with ThreadPoolExecutor(6) as pool:
        for batch, answer in zip(batches, pool.map(copy_lanes, batches), strict=True):
            assert np.array_equal(batch, answer)
    lanes.close()
    assert "trtjob-gpu" not in {thread.name for thread in threading.enumerate()}
