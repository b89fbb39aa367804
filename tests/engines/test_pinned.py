"""Images that a GPU copies from where they lie, and answers that it writes there: in the pipeline's ring."""

import logging
import math
import threading
from collections.abc import Callable, Iterator
from mmap import mmap
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from engines.tiny import HW, images, write_model
from numpy.typing import NDArray

from trtjob.engines.candidates import candidates_from
from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.interface import Stream
from trtjob.engines.onnxruntime import cuda_model
from trtjob.engines.protocol import Engine, FloatArray, UInt8Array
from trtjob.errors import DeviceLostError, DeviceMemoryError, EngineError
from trtjob.worker.pipeline.ring import Layout, Ring

Opener = Callable[[Path], Engine]

gpu = pytest.mark.gpu
on_gpus = pytest.mark.parametrize(
    "open_model", [pytest.param(kind, marks=gpu) for kind in ("cuda", "tensorrt")], indirect=True
)
SLOTS = 6


class NotingStream:
    """A stream that notes where the bytes lie that it copies."""

    sent: ClassVar[list[tuple[int, int]]] = []
    filled: ClassVar[list[tuple[int, int]]] = []
    fails: ClassVar[bool] = False

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def copy_in(self, device: int, host: NDArray[Any]) -> None:
        if self.fails:
            raise DeviceLostError("CUDA failed: an illegal memory access was encountered")
        self.sent.append(place(host))
        self._stream.copy_in(device, host)

    def copy_out(self, host: NDArray[Any], device: int) -> None:
        self.filled.append(place(host))
        self._stream.copy_out(host, device)


def place(array: NDArray[Any]) -> tuple[int, int]:
    return array.ctypes.data, array.nbytes


@pytest.fixture
def engine(open_model: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A detector whose copies are noted, from now on."""
    stream = Device.stream
    monkeypatch.setattr(Device, "stream", lambda device: NotingStream(stream(device)))
    with open_model(write_model(tmp_path / "tiny.onnx")) as engine:
        forget()
        yield engine


def forget() -> None:
    NotingStream.sent.clear()
    NotingStream.filled.clear()


def ring_for(engine: Engine) -> Ring:
    return Ring.create(Layout(1, SLOTS, (*HW, 3), engine.answer_shape))


@pytest.fixture
def ring(engine: Engine) -> Iterator[Ring]:
    """A ring that the engine has pinned."""
    ring = ring_for(engine)
    engine.pin(ring.memory)
    yield ring
    ring.close()


def filled(ring: Ring, count: int, seed: int = 0) -> tuple[list[UInt8Array], list[FloatArray]]:
    """Put images into slots that do not follow each other; returns them, and where to answer."""
    slots = [(5 * number + 3) % SLOTS for number in range(count)]
    for slot, image in zip(slots, images(count, seed), strict=True):
        ring.tensors[slot][...] = image
        ring.answers[slot][...] = np.nan
    return [ring.tensors[slot] for slot in slots], [ring.answers[slot] for slot in slots]


def expected(engine: Engine, count: int, seed: int = 0) -> list[bytes]:
    return [row.tobytes() for row in candidates_from(engine.infer(images(count, seed)), engine.spec)]


def bytes_of(answers: list[FloatArray]) -> list[bytes]:
    return [answer.tobytes() for answer in answers]


@pytest.mark.parametrize("count", range(1, 6))
def test_answers_lie_in_the_ring(engine: Engine, ring: Ring, count: int) -> None:
    batch, into = filled(ring, count)
    engine.answer(batch, into)
    assert bytes_of(into) == expected(engine, count)


@on_gpus
@pytest.mark.parametrize("count", range(1, 6))
def test_each_image_is_copied_once_where_it_lies_and_small_answers_come_in_one_copy(
    engine: Engine, ring: Ring, count: int
) -> None:
    batch, into = filled(ring, count)
    engine.answer(batch, into)
    assert NotingStream.sent == [place(image) for image in batch]
    assert sum(size for _, size in NotingStream.filled) == sum(answer.nbytes for answer in into)
    assert len(NotingStream.filled) == math.ceil(count / engine.max_batch)


@on_gpus
def test_images_that_lie_elsewhere_go_by_page_locked_memory(engine: Engine, ring: Ring) -> None:
    _, into = filled(ring, 3)
    engine.answer(list(images(3)), into)
    assert [size for _, size in NotingStream.sent] == [3 * ring.tensors[0].nbytes]
    assert bytes_of(into) == expected(engine, 3)


@on_gpus
def test_answers_that_are_wanted_elsewhere_come_by_page_locked_memory(engine: Engine, ring: Ring) -> None:
    batch, there = filled(ring, 3)
    into = [np.zeros_like(answer) for answer in there]
    engine.answer(batch, into)
    assert NotingStream.sent == [place(image) for image in batch]
    assert [size for _, size in NotingStream.filled] == [3 * into[0].nbytes]
    assert bytes_of(into) == expected(engine, 3)


@on_gpus
def test_a_batch_of_which_a_part_lies_elsewhere_goes_by_page_locked_memory(engine: Engine, ring: Ring) -> None:
    batch, into = filled(ring, 3)
    batch[1], into[2] = batch[1].copy(), np.zeros_like(into[2])
    engine.answer(batch, into)
    assert [size for _, size in NotingStream.sent] == [3 * batch[0].nbytes]
    assert [size for _, size in NotingStream.filled] == [3 * into[0].nbytes]
    assert bytes_of(into) == expected(engine, 3)


@on_gpus
def test_images_of_the_ring_that_are_turned_are_read_right(engine: Engine, ring: Ring) -> None:
    batch, into = filled(ring, 2)
    engine.answer([image[:, ::-1] for image in batch], into)
    wanted = candidates_from(engine.infer(images(2)[:, :, ::-1]), engine.spec)
    assert bytes_of(into) == [row.tobytes() for row in wanted]


@on_gpus
def test_memory_that_cannot_be_pinned_is_one_warning_and_the_answers_are_right(
    engine: Engine, ring: Ring, open_model: Opener, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    batch, into = filled(ring, 5)
    with open_model(write_model(tmp_path / "other.onnx")) as other, caplog.at_level(logging.WARNING):
        other.pin(ring.memory)  # CUDA refuses to lock it twice
        forget()
        for _ in range(3):
            other.answer(batch, into)
        assert len(NotingStream.sent) == 3 * 2  # of batches
    said = [record.getMessage() for record in caplog.records if record.name == "trtjob.engines.cuda.device"]
    assert said == ["shared memory is not page-locked: images are copied once more"]
    assert bytes_of(into) == expected(engine, 5)


def is_locked(memory: mmap, device: Device) -> bool:
    """Tell whether CUDA refuses to lock a ring's memory."""
    with device.current():
        device.lock(memory)
    return not device.reaches([np.frombuffer(memory, np.uint8)])


@pytest.fixture
def witness() -> Iterator[Device]:
    """Another user of the GPU's context, which therefore outlives the engine."""
    device = Device(0)
    yield device
    device.close()


@on_gpus
@pytest.mark.parametrize("is_ring_first", [True, False], ids=["ring first", "engine first"])
def test_a_closed_engine_has_unlocked_the_ring(witness: Device, engine: Engine, is_ring_first: bool) -> None:
    ring = ring_for(engine)
    memory = ring.memory
    engine.pin(memory)
    assert is_locked(memory, witness)
    for close in (ring.close, engine.close) if is_ring_first else (engine.close, ring.close):
        close()
    assert not is_locked(memory, witness)


@on_gpus
def test_another_ring_takes_the_place_of_the_first(witness: Device, engine: Engine, ring: Ring) -> None:
    second = ring_for(engine)
    engine.pin(second.memory)
    assert not is_locked(ring.memory, witness)
    batch, into = filled(second, 4)
    engine.answer(batch, into)
    assert NotingStream.sent == [place(image) for image in batch]
    assert bytes_of(into) == expected(engine, 4)
    second.close()


def test_an_engine_may_be_given_another_ring_while_it_works(engine: Engine) -> None:
    wanted, problems = expected(engine, 5), []
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            into = [np.zeros(engine.answer_shape, np.float32) for _ in range(5)]
            engine.answer(list(images(5)), into)
            if bytes_of(into) != wanted:
                problems.append(into)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        ring = ring_for(engine)
        engine.pin(ring.memory)
        batch, into = filled(ring, 5)
        engine.answer(batch, into)
        assert bytes_of(into) == wanted
        ring.close()
    is_over.set()
    for thread in threads:
        thread.join(10)
    assert not problems


@on_gpus
def test_a_gpu_that_is_lost_in_a_copy_from_the_ring_is_told(
    engine: Engine, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch, into = filled(ring, 2)
    monkeypatch.setattr(NotingStream, "fails", True)
    with pytest.raises(DeviceLostError, match="illegal memory access"):
        engine.answer(batch, into)
    monkeypatch.undo()
    engine.answer(batch, into)
    assert bytes_of(into) == expected(engine, 2)


@on_gpus
def test_a_closed_engine_pins_nothing(engine: Engine, ring: Ring) -> None:
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.pin(ring.memory)


@pytest.mark.parametrize("open_model", [pytest.param("cuda", marks=gpu)], indirect=True)
def test_the_ring_stays_pinned_where_batches_become_smaller(
    engine: Engine, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = cuda_model.Lane.compute

    def compute_two(lane: cuda_model.Lane) -> None:
        if lane.batch > 2:
            raise DeviceMemoryError("the GPU's memory is full")
        compute(lane)

    monkeypatch.setattr(cuda_model.Lane, "compute", compute_two)
    batch, into = filled(ring, 4)
    engine.answer(batch, into)
    assert engine.max_batch == 2
    assert NotingStream.sent[-4:] == [place(image) for image in batch]
    assert bytes_of(into) == expected(engine, 4)
