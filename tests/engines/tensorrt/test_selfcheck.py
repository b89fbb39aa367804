"""A plan is run before it is kept: here a plan is a graph that ONNX Runtime computes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from converters.darknet import test_random_networks as random_networks
from engines import tiny
from engines.tensorrt import conversions
from engines.tensorrt.test_agreement import over_all_axes

from trtjob.engines.candidates import candidates_from
from trtjob.engines.onnxruntime.cpu import CpuEngine, open_engine
from trtjob.engines.protocol import AnyImage, FloatArray, Outputs, UInt8Array, on_host
from trtjob.engines.spec import ModelSpec, Task
from trtjob.engines.tensorrt.agreement import disagreement, inconsistency
from trtjob.engines.tensorrt.selfcheck import check_plan, lively_image, reference, rounded_too
from trtjob.errors import EngineError


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_plan_that_answers_as_its_model_passes(task: Task, batch: int, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx", task)
    with open_engine(model, threads=1) as plan:
        check_plan(plan, model, batch=batch, title="TensorRT 8.6.1")


def test_a_plan_that_was_misread_is_refused(tmp_path: Path) -> None:
    found = conversions.of_head(
        random_networks.conv(14) + random_networks.layer("yolo", num=2, classes=2, anchors="3,4, 5,2")
    )
    model = conversions.write(found.model, found.spec, tmp_path / "net.onnx")
    proto = onnx.load(model)
    over_all_axes(proto)
    misread = conversions.write(proto, found.spec, tmp_path / "misread.onnx")
    with (
        open_engine(misread, threads=1) as plan,
        pytest.raises(
            EngineError, match=r"that TensorRT 8\.6\.1 built of 'net\.onnx' does not answer as the model does"
        ),
    ):
        check_plan(plan, model, batch=1, title="TensorRT 8.6.1")


@pytest.mark.parametrize("batch", [1, 3])
def test_a_plan_with_masks_that_answers_as_its_model_passes(batch: int, tmp_path: Path) -> None:
    model = tiny.write_segmenter(tmp_path / "tiny.onnx")
    with open_engine(model, threads=1) as plan:
        check_plan(plan, model, batch=batch, title="TensorRT 8.6.1")


class WrongAtTheEnd(CpuEngine):
    """Misplaces the boxes of a batch's last image, or spoils its answer."""

    off = 0.0

    def spoil(self, answer: FloatArray) -> object:
        """Leave it as it is."""

    def infer(self, images: UInt8Array) -> Outputs:
        outputs = super().infer(images)
        assert outputs.boxes is not None
        outputs.boxes[-1] += self.off
        return outputs

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        super().answer(images, into)
        self.spoil(into[-1])


class OfAnotherLastDigit(CpuEngine):
    """Rounds a batch's last answer otherwise."""

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        super().answer(images, into)
        into[-1][:] = np.nextafter(into[-1], np.float32(np.inf))


def test_an_answer_that_depends_on_its_place_in_a_batch_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx", Task.CLASSIFY)
    with OfAnotherLastDigit(model, threads=1) as engine:
        check_plan(engine, model, batch=1, title="TensorRT 8.6.1")
        assert not caplog.messages
        check_plan(engine, model, batch=3, title="TensorRT 8.6.1")
    (said,) = caplog.messages
    assert said.startswith("TensorRT 8.6.1 answers the same image otherwise at 1 of 3 places of a batch: ")


def test_the_last_image_of_a_batch_counts_too(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx")
    with WrongAtTheEnd(model, threads=1) as engine:
        check_plan(engine, model, batch=2, title="TensorRT 8.6.1")
        engine.off = 500
        with pytest.raises(EngineError, match="does not answer as the model does"):
            check_plan(engine, model, batch=2, title="TensorRT 8.6.1")


def swap_first_and_last(answer: FloatArray) -> None:
    answer[[0, -1]] = answer[[-1, 0]]


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(swap_first_and_last, id="another order"),
        pytest.param(lambda answer: np.put(answer, 5, answer[0, 5] + 1), id="another class"),
        pytest.param(lambda answer: np.put(answer, 5, 99), id="no class"),
        pytest.param(lambda answer: np.put(answer, 4, answer[0, 4] / 2), id="another score"),
        pytest.param(lambda answer: np.put(answer, 0, answer[0, 0] + 1), id="another box"),
        pytest.param(lambda answer: answer.fill(np.nan), id="no numbers"),
    ],
)
def test_candidates_that_do_not_follow_from_boxes_and_scores_are_refused(
    spoil: Callable[[FloatArray], object], tmp_path: Path
) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx")
    with WrongAtTheEnd(model, threads=1) as engine:
        engine.spoil = spoil  # type: ignore[method-assign,assignment]
        with pytest.raises(
            EngineError, match=r"of 4 candidates, \d do not follow from its boxes and scores, such as \["
        ):
            check_plan(engine, model, batch=2, title="TensorRT 8.6.1")


@pytest.mark.parametrize(
    ("at", "message"),
    [
        pytest.param(7, "1 do not follow from its boxes and scores", id="a coefficient"),
        pytest.param(-1, "its prototypes change", id="a prototype"),
    ],
)
def test_what_is_said_of_masks_must_follow_too(at: int, message: str, tmp_path: Path) -> None:
    model = tiny.write_segmenter(tmp_path / "tiny.onnx")
    with WrongAtTheEnd(model, threads=1) as engine:
        engine.spoil = lambda answer: np.put(answer, at, answer[at] + 1)  # type: ignore[method-assign]
        with pytest.raises(EngineError, match=message):
            check_plan(engine, model, batch=2, title="TensorRT 8.6.1")


@pytest.mark.parametrize("name", ["extras", "prototypes"])
def test_other_masks_are_another_network(name: str, tmp_path: Path) -> None:
    model = tiny.write_segmenter(tmp_path / "tiny.onnx")
    with open_engine(model, threads=1) as engine:
        right = engine.infer(lively_image(engine.spec))
    wrong = replace(right, **{name: -getattr(right, name)})
    assert disagreement(right, right, tiny.SEGMENTER) is None
    assert disagreement(wrong, right, tiny.SEGMENTER) is not None


def test_a_classifiers_answer_must_be_its_scores(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx", Task.CLASSIFY)
    with open_engine(model, threads=1) as engine:
        scores = engine.infer(lively_image(engine.spec))
        assert inconsistency(scores.scores[0], scores, engine.spec) is None
        assert inconsistency(scores.scores[0] + 1, scores, engine.spec) == "its scores change"


class AsWritten(CpuEngine):
    """Computes every node by itself, where the usual engine computes several in one."""

    def __init__(self, path: Path, *, threads: int) -> None:
        super().__init__(path, threads=threads)
        self._path = path

    def infer(self, images: UInt8Array) -> Outputs:
        found = rounded_too(self._path, self.spec, images)
        assert found is not None
        return found

    def answer(self, images: Sequence[AnyImage], into: Sequence[FloatArray]) -> None:
        into[0][...] = candidates_from(self.infer(on_host(images)[0][None]), self.spec)[0]


def test_an_int8_plan_that_rounds_at_other_places_passes(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    spec = found.spec.model_copy(update={"precision": "int8"})
    image = lively_image(spec)
    path = conversions.write(conversions.lower_precision(found, "int8", image), spec, tmp_path / "int8.onnx")
    with AsWritten(path, threads=1) as plan:
        check_plan(plan, path, batch=1, title="TensorRT 8.6.1")
    too = rounded_too(path, spec, image)
    assert too is not None
    assert too.scores.tobytes() != reference(path, spec, image).scores.tobytes()


def test_bf16_is_compared_with_the_same_in_float32(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    spec = found.spec.model_copy(update={"precision": "bf16"})
    image = lively_image(spec)
    model = conversions.lower_precision(found, "bf16", image)
    path = conversions.write(model, spec, tmp_path / "bf16.onnx")
    answer, of_float32 = reference(path, spec, image), conversions.run(found.model, image)
    assert answer.boxes is not None
    np.testing.assert_allclose(np.sort(answer.scores, 1), np.sort(of_float32.scores, 1), atol=0.05)
    assert not np.array_equal(answer.scores, of_float32.scores)  # its weights are rounded


@pytest.mark.parametrize("hw", [(4, 5), (416, 416), (1, 1), (20, 700)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_is_always_the_same_and_lively(hw: tuple[int, int], channels: int) -> None:
    spec = ModelSpec.model_validate(
        {"task": "detect", "labels": ("a",), "input_hw": hw, "channels": channels, "color": "gray"}
    )
    image = lively_image(spec)
    assert image.shape == (1, *hw, channels)
    assert image.dtype == np.dtype(np.uint8)
    assert np.array_equal(image, lively_image(spec))
    if min(hw) > 4:
        assert image.std() > 30
        assert np.abs(np.diff(image.astype(int), axis=2)).mean() > 5
