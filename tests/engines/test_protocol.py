"""What every engine must do. A new engine is one more parameter of `open_model`, in conftest.py."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from at_once import all_at_once
from engines.tiny import (
    ANSWERED,
    CANDIDATES,
    HW,
    LABELS,
    PROTOTYPES,
    SEGMENTER,
    images,
    spec_of,
    write_model,
    write_segmenter,
)
from numpy.typing import NDArray

from trtjob.engines.answers import answers_from, parts_of
from trtjob.engines.candidates import candidates_from
from trtjob.engines.cuda.device import Device
from trtjob.engines.cuda.interface import Memory, Stream
from trtjob.engines.protocol import Engine, FloatArray, Outputs, UInt8Array, check_batch, check_images
from trtjob.engines.spec import Task
from trtjob.errors import EngineError, EngineInputError

Opener = Callable[[Path], Engine]

gpu = pytest.mark.gpu


@pytest.fixture
def engine(open_model: Opener, tmp_path: Path) -> Iterator[Engine]:
    """A detector, loaded."""
    with open_model(write_model(tmp_path / "tiny.onnx")) as engine:
        yield engine


@pytest.fixture
def classifier(open_model: Opener, tmp_path: Path) -> Iterator[Engine]:
    with open_model(write_model(tmp_path / "tiny.onnx", Task.CLASSIFY)) as engine:
        yield engine


@pytest.fixture
def segmenter(open_model: Opener, tmp_path: Path) -> Iterator[Engine]:
    """A detector that gives masks, loaded."""
    with open_model(write_segmenter(tmp_path / "tiny.onnx")) as engine:
        yield engine


def bytes_of(outputs: Outputs) -> tuple[bytes, bytes]:
    return (b"" if outputs.boxes is None else outputs.boxes.tobytes()), outputs.scores.tobytes()


def boxes_of(outputs: Outputs) -> FloatArray:
    assert outputs.boxes is not None
    return outputs.boxes


def answers_of(engine: Engine, batch: UInt8Array) -> list[FloatArray]:
    """Ask for the answers of images that lie apart, into arrays that lie apart."""
    into: list[FloatArray] = [np.full(engine.answer_shape, np.nan, np.float32) for _ in batch]
    engine.answer([image.copy() for image in batch], into)
    return into


def test_an_engine_says_what_it_is(engine: Engine) -> None:
    assert engine.spec == spec_of(Task.DETECT)
    assert engine.name
    assert engine.device
    assert engine.max_batch >= 1
    assert engine.concurrency >= 1
    assert engine.answer_shape == (ANSWERED, 6)


@pytest.mark.parametrize("count", range(1, 6))
def test_a_detector_gives_boxes_and_scores_of_each_image(engine: Engine, count: int) -> None:
    outputs = engine.infer(images(count))
    assert boxes_of(outputs).dtype == outputs.scores.dtype == np.dtype(np.float32)
    assert boxes_of(outputs).shape == (count, CANDIDATES, 4)
    assert outputs.scores.shape == (count, CANDIDATES, len(LABELS))


@pytest.mark.parametrize("count", range(1, 6))
def test_a_classifier_gives_scores_of_each_image_and_no_boxes(classifier: Engine, count: int) -> None:
    batch = images(count)
    outputs = classifier.infer(batch)
    assert outputs.boxes is None
    np.testing.assert_allclose(outputs.scores, batch.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize("count", range(1, 6))
def test_an_answer_with_masks_holds_candidates_and_prototypes_of_each_image(segmenter: Engine, count: int) -> None:
    assert segmenter.answer_shape == (ANSWERED * (6 + PROTOTYPES[0]) + int(np.prod(PROTOTYPES)),)
    outputs = segmenter.infer(images(count))
    assert outputs.prototypes is not None
    wanted = answers_from(outputs, SEGMENTER)
    for found, expected, prototypes in zip(
        answers_of(segmenter, images(count)), wanted, outputs.prototypes, strict=True
    ):
        assert found.tobytes() == expected.tobytes()
        assert parts_of(found, SEGMENTER)["prototypes"].tobytes() == prototypes.tobytes()


@pytest.mark.parametrize("count", range(1, 6))
def test_a_detectors_answers_follow_from_its_boxes_and_scores(engine: Engine, count: int) -> None:
    expected = candidates_from(engine.infer(images(count)), engine.spec)
    assert expected.shape == (count, ANSWERED, 6)
    for found, wanted in zip(answers_of(engine, images(count)), expected, strict=True):
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize("count", range(1, 6))
def test_a_classifiers_answers_are_its_scores(classifier: Engine, count: int) -> None:
    assert classifier.answer_shape == (len(LABELS),)
    found = answers_of(classifier, images(count))
    assert [row.tobytes() for row in found] == [row.tobytes() for row in classifier.infer(images(count)).scores]


def test_images_and_answers_may_lie_anywhere(engine: Engine) -> None:
    turned, rows = images(3)[::-1, :, ::-1], np.zeros((6, *engine.answer_shape), np.float32)
    assert not turned[0].flags.c_contiguous
    engine.answer(list(turned), list(rows[::2]))
    assert rows[::2].tobytes() == candidates_from(engine.infer(turned), engine.spec).tobytes()
    assert not rows[1::2].any()


class CountingStream:
    """A stream that notes the bytes that leave the GPU."""

    copied: ClassVar[list[int]] = []

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def copy_out(self, host: NDArray[Any], device: Memory) -> None:
        self.copied.append(host.nbytes)
        self._stream.copy_out(host, device)


@pytest.mark.parametrize("open_model", [pytest.param(kind, marks=gpu) for kind in ("cuda", "tensorrt")], indirect=True)
def test_only_what_is_wanted_leaves_the_gpu(
    open_model: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Device.stream
    monkeypatch.setattr(Device, "stream", lambda device: CountingStream(stream(device)))
    with open_model(write_model(tmp_path / "tiny.onnx")) as engine:
        CountingStream.copied.clear()
        answers_of(engine, images(3))
        assert CountingStream.copied == [3 * ANSWERED * 6 * 4]
        CountingStream.copied.clear()
        engine.infer(images(3))
        assert CountingStream.copied == [3 * CANDIDATES * 4 * 4, 3 * CANDIDATES * len(LABELS) * 4]


def test_the_same_input_gives_the_same_output(engine: Engine) -> None:
    assert bytes_of(engine.infer(images(3))) == bytes_of(engine.infer(images(3)))


def test_another_input_gives_another_output(engine: Engine) -> None:
    assert bytes_of(engine.infer(images(3))) != bytes_of(engine.infer(images(3, seed=1)))


@pytest.mark.parametrize("count", range(2, 6))
def test_an_images_result_does_not_depend_on_its_neighbours(engine: Engine, count: int) -> None:
    image = images(1, seed=9)
    alone = engine.infer(image)
    for place in range(count):
        batch = images(count, seed=place)
        batch[place] = image[0]
        outputs = engine.infer(batch)
        assert boxes_of(outputs)[place].tobytes() == boxes_of(alone)[0].tobytes()
        assert outputs.scores[place].tobytes() == alone.scores[0].tobytes()


def test_images_that_do_not_lie_in_a_row_in_memory_are_read_right(engine: Engine) -> None:
    turned = images(3)[::-1, :, ::-1]
    assert not turned.flags.c_contiguous
    assert bytes_of(engine.infer(turned)) == bytes_of(engine.infer(np.ascontiguousarray(turned)))


def test_a_batch_is_left_as_it_is(engine: Engine) -> None:
    batch = images(3)
    batch.flags.writeable = False
    engine.infer(batch)
    assert np.array_equal(batch, images(3))


def test_the_caller_owns_what_it_gets(engine: Engine) -> None:
    first = engine.infer(images(2))
    before = bytes_of(first)
    engine.infer(images(2, seed=1))
    assert bytes_of(first) == before
    boxes_of(first)[:] = 0  # may be written to
    assert bytes_of(engine.infer(images(2))) == before


BAD_BATCHES = [
    pytest.param(np.zeros((1, 5, 4, 3), np.uint8), "uint8 [1, 5, 4, 3]", id="height and width mixed up"),
    pytest.param(np.zeros((1, 4, 5, 1), np.uint8), "uint8 [1, 4, 5, 1]", id="channels"),
    pytest.param(np.zeros((1, 3, 4, 5), np.uint8), "uint8 [1, 3, 4, 5]", id="channels first"),
    pytest.param(np.zeros((4, 5, 3), np.uint8), "uint8 [4, 5, 3]", id="one image without a batch"),
    pytest.param(np.zeros((1, 1, 4, 5, 3), np.uint8), "uint8 [1, 1, 4, 5, 3]", id="a batch of batches"),
    pytest.param(np.zeros((0, 4, 5, 3), np.uint8), "uint8 [0, 4, 5, 3]", id="no image"),
    pytest.param(np.zeros((1, 4, 5, 3), np.float32), "float32 [1, 4, 5, 3]", id="floats"),
    pytest.param(np.zeros((1, 4, 5, 3), np.int8), "int8 [1, 4, 5, 3]", id="signed bytes"),
]


@pytest.mark.parametrize(("batch", "got"), BAD_BATCHES)
def test_a_batch_that_does_not_fit_is_refused(engine: Engine, batch: NDArray[Any], got: str) -> None:
    with pytest.raises(EngineInputError) as caught:
        engine.infer(batch)
    expected = f"input 'images': got {got}, but this model takes uint8 [N, 4, 5, 3] with N >= 1"
    assert str(caught.value) == expected


def test_answers_of_images_that_do_not_fit_are_refused_and_leave_the_arrays_as_they_are(engine: Engine) -> None:
    good, bad = np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)
    into: list[FloatArray] = [np.zeros(engine.answer_shape, np.float32) for _ in range(2)]
    with pytest.raises(EngineInputError) as caught:
        engine.answer([good, bad], into)
    assert str(caught.value) == "image 1 of 2: got uint8 [5, 4, 3], but this model takes uint8 [4, 5, 3]"
    with pytest.raises(EngineInputError, match="got 1 images and 2 arrays: expected as many of both, 1 or more"):
        engine.answer([good], into)
    assert not np.any(into)


def test_an_engine_works_on_after_a_batch_that_does_not_fit(engine: Engine) -> None:
    before = bytes_of(engine.infer(images(1)))
    with pytest.raises(EngineInputError):
        engine.infer(images(0))
    assert bytes_of(engine.infer(images(1))) == before


def test_a_closed_engine_says_so(engine: Engine) -> None:
    engine.close()
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer(images(1))
    with pytest.raises(EngineError, match="the engine is closed"):
        answers_of(engine, images(1))


def test_an_engine_may_be_closed_twice(engine: Engine) -> None:
    engine.close()
    engine.close()


def test_leaving_the_context_closes_the_engine(open_model: Opener, tmp_path: Path) -> None:
    with open_model(write_model(tmp_path / "tiny.onnx")) as engine:
        engine.infer(images(1))
    with pytest.raises(EngineError, match="the engine is closed"):
        engine.infer(images(1))


def test_two_engines_live_beside_each_other(engine: Engine, open_model: Opener, tmp_path: Path) -> None:
    batch = images(2)
    before = bytes_of(engine.infer(batch))
    with open_model(write_model(tmp_path / "other.onnx", Task.CLASSIFY)) as other:
        assert other.infer(batch).scores.shape == (2, len(LABELS))
        assert bytes_of(engine.infer(batch)) == before
    assert bytes_of(engine.infer(batch)) == before


def in_threads(engine: Engine, batches: list[UInt8Array], rounds: int) -> list[list[Outputs]]:
    """Run each batch `rounds` times in a thread of its own, all at once."""
    return all_at_once(len(batches), lambda number: [engine.infer(batches[number]) for _ in range(rounds)])


def test_calls_from_many_threads_give_each_its_own_result(engine: Engine) -> None:
    batches = [images(1 + number % 3, seed=number) for number in range(8)]
    expected = [bytes_of(engine.infer(batch)) for batch in batches]
    for found, wanted in zip(in_threads(engine, batches, rounds=20), expected, strict=True):
        assert [bytes_of(outputs) for outputs in found] == [wanted] * 20


def test_closing_while_others_run_either_lets_them_finish_or_tells_them(engine: Engine) -> None:
    wanted = bytes_of(engine.infer(images(1)))
    started = threading.Event()
    others: list[tuple[bytes, bytes]] = []
    told: list[str] = []

    def run() -> None:
        while True:
            try:
                others.append(bytes_of(engine.infer(images(1))))
            except EngineError as err:
                told.append(str(err))
                return
            started.set()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert started.wait(10)
    engine.close()
    for thread in threads:
        thread.join(10)
    assert set(others) == {wanted}
    assert told == ["the engine is closed"] * 4


@pytest.mark.parametrize("count", [1, 5])
def test_a_batch_that_fits_passes_the_check(count: int) -> None:
    check_batch(np.zeros((count, *HW, 3), np.uint8), spec_of(Task.DETECT))


@pytest.mark.parametrize(
    "image", [np.zeros((4, 5, 3), np.float32), np.zeros((1, 4, 5, 3), np.uint8)], ids=["floats", "a batch"]
)
def test_an_image_that_does_not_fit_is_refused(image: NDArray[Any]) -> None:
    with pytest.raises(EngineInputError, match=r"image 0 of 1: got .*, but this model takes uint8 \[4, 5, 3\]"):
        check_images([image], [np.zeros(3, np.float32)], spec_of(Task.CLASSIFY))


def test_no_images_have_no_answers() -> None:
    with pytest.raises(EngineInputError, match="got 0 images and 0 arrays"):
        check_images([], [], spec_of(Task.CLASSIFY))


def test_the_check_wants_the_channels_of_the_model() -> None:
    grey = spec_of(Task.DETECT).model_copy(update={"channels": 1})
    check_batch(np.zeros((1, *HW, 1), np.uint8), grey)
    with pytest.raises(EngineInputError, match=r"takes uint8 \[N, 4, 5, 1\]"):
        check_batch(np.zeros((1, *HW, 3), np.uint8), grey)
