"""A plan is run before it is kept: here a plan is a graph that ONNX Runtime computes."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from converters.darknet import test_random_networks as random_networks
from engines import tiny
from engines.tensorrt import conversions
from engines.tensorrt.test_agreement import over_all_axes

from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import ModelSpec, Task
from trtjob.engines.tensorrt.selfcheck import as_written, check_plan, lively_image, reference
from trtjob.errors import EngineError


@pytest.fixture
def spec() -> ModelSpec:
    return tiny.spec_of(Task.DETECT)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("batch", [1, 3])
def test_a_plan_that_answers_as_its_model_passes(task: Task, batch: int, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx", task)
    with open_engine(model, threads=1) as plan:
        check_plan(plan.infer, model, tiny.spec_of(task), batch=batch, title="TensorRT 8.6.1")


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
        check_plan(plan.infer, model, found.spec, batch=1, title="TensorRT 8.6.1")


def test_the_last_image_of_a_batch_counts_too(tmp_path: Path, spec: ModelSpec) -> None:
    model = tiny.write_model(tmp_path / "tiny.onnx")
    with open_engine(model, threads=1) as engine:

        def run(images: UInt8Array) -> Outputs:
            outputs = engine.infer(images)
            assert outputs.boxes is not None
            outputs.boxes[-1] += 500
            return outputs

        with pytest.raises(EngineError, match="does not answer as the model does"):
            check_plan(run, model, spec, batch=2, title="TensorRT 8.6.1")


def test_an_int8_plan_that_rounds_at_other_places_passes(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    spec = found.spec.model_copy(update={"precision": "int8"})
    image = lively_image(spec)
    path = conversions.write(conversions.lower_precision(found, "int8", image), spec, tmp_path / "int8.onnx")
    check_plan(lambda images: as_written(path, spec, images), path, spec, batch=1, title="TensorRT 8.6.1")
    assert as_written(path, spec, image).scores.tobytes() != reference(path, spec, image).scores.tobytes()


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
