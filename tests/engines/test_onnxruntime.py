"""What is particular to ONNX Runtime; what every engine must do is in test_protocol.py."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.darknet.networks import onnx_from_darknet
from engines.tiny import HW, LABELS, Constants, classifier, detector, images, model_of, spec_of, write_model, write_onnx
from onnx import TensorProto, helper

from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import Engine
from trtjob.engines.spec import INPUT_NAME, SCORES_NAME, Task
from trtjob.errors import EngineError, ModelError

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def test_it_is_an_engine_for_one_image_a_core(tmp_path: Path) -> None:
    engine: Engine = open_engine(write_model(tmp_path / "a.onnx"))
    with engine:
        assert (engine.name, engine.device, engine.max_batch) == ("cpu", "CPU", 1)
        assert engine.concurrency == len(os.sched_getaffinity(0))


def test_the_number_of_callers_can_be_chosen(tmp_path: Path) -> None:
    with open_engine(write_model(tmp_path / "a.onnx"), threads=7) as engine:
        assert engine.concurrency == 7


def test_a_real_networks_result_does_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    spec = onnx_from_darknet(DIGITS / "digits.weights", tmp_path / "digits.onnx")
    batch = np.random.default_rng(0).integers(0, 256, (3, *spec.input_hw, 3), np.uint8)
    with open_engine(tmp_path / "digits.onnx") as engine:
        together = engine.infer(batch)
        alone = [engine.infer(batch[index : index + 1]) for index in (2, 0, 1)]
    assert together.boxes is not None
    for index, outputs in zip((2, 0, 1), alone, strict=True):
        assert outputs.boxes is not None
        assert outputs.boxes[0].tobytes() == together.boxes[index].tobytes()
        assert outputs.scores[0].tobytes() == together.scores[index].tobytes()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_engine(tmp_path / "a.onnx")
    assert str(caught.value) == f"no model file '{tmp_path / 'a.onnx'}'"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<!DOCTYPE html>\n<html>", id="a web page"),
        pytest.param(detector().SerializeToString()[:300], id="cut off"),
    ],
)
def test_a_file_that_is_no_onnx_is_refused_with_what_to_do(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    with pytest.raises(
        EngineError, match=r"^ONNX Runtime [\d.]+ cannot load '.*a\.onnx': .*\. Convert the model again$"
    ):
        open_engine(path)


def test_a_model_of_another_program_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", detector(), None)
    with pytest.raises(
        ModelError, match=r"without trtjob's description\. Convert the original model with: trtjob convert"
    ):
        open_engine(path)


def test_a_model_with_a_damaged_description_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", detector(), '{"task": "detect"')
    with pytest.raises(ModelError, match=r"cannot read: Invalid JSON: .*\. Convert the original model with: trtjob"):
        open_engine(path)


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        pytest.param(
            {"input_hw": (5, 4)},
            "'images' as tensor(uint8) [..., 5, 4, 3]",
            "tensor(uint8) ['N', 4, 5, 3]",
            id="another size",
        ),
        pytest.param(
            {"channels": 1},
            "'images' as tensor(uint8) [..., 4, 5, 1]",
            "tensor(uint8) ['N', 4, 5, 3]",
            id="other channels",
        ),
        pytest.param(
            {"labels": ("cat", "dog")},
            "'scores' as tensor(float) [..., 2]",
            "tensor(float) ['N', 6, 3]",
            id="fewer labels than classes",
        ),
    ],
)
def test_a_description_that_does_not_fit_the_graph_is_refused(
    tmp_path: Path, changes: dict[str, Any], expected: str, found: str
) -> None:
    document = spec_of(Task.DETECT).model_copy(update=changes).model_dump_json()
    path = write_onnx(tmp_path / "a.onnx", detector(), document)
    with pytest.raises(ModelError) as caught:
        open_engine(path)
    assert str(caught.value) == (
        f"'{path}' carries a description that does not fit its graph: expected {expected}, found {found}. "
        "Convert the original model again"
    )


def test_a_detector_without_boxes_is_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", classifier(), spec_of(Task.DETECT).model_dump_json())
    with pytest.raises(
        ModelError, match=r"expected 'boxes' as tensor\(float\) \[\.\.\., 4\], found nothing of this name"
    ):
        open_engine(path)


def test_sizes_that_the_graph_leaves_open_are_no_contradiction(tmp_path: Path) -> None:
    model = classifier()
    for dimension in model.graph.input[0].type.tensor_type.shape.dim:
        dimension.ClearField("dim_value")
    path = write_onnx(tmp_path / "a.onnx", model, spec_of(Task.CLASSIFY).model_dump_json())
    with open_engine(path) as engine:
        assert engine.infer(images(2)).scores.shape == (2, len(LABELS))


def fragile() -> onnx.ModelProto:
    """Return a classifier that fails where the first value of an image is above 2: it is an index into three scores."""
    nodes = [
        helper.make_node("Slice", [INPUT_NAME, "zero", "one", "axes"], ["first"]),
        helper.make_node("Reshape", ["first", "flat"], ["flattened"]),
        helper.make_node("Slice", ["flattened", "zeros", "ones", "last"], ["value"]),
        helper.make_node("Cast", ["value"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["row"]),
        helper.make_node("Reshape", ["row", "shape"], [SCORES_NAME]),
    ]
    constants: Constants = {
        "zero": np.array([0, 0], np.int64),
        "one": np.array([1, 1], np.int64),
        "axes": np.array([1, 2], np.int64),
        "flat": np.array([0, 3], np.int64),
        "zeros": np.array([0], np.int64),
        "ones": np.array([1], np.int64),
        "last": np.array([1], np.int64),
        "shape": np.array([-1, len(LABELS)], np.int64),
        "table": np.eye(3, dtype=np.float32),
    }
    scores = helper.make_tensor_value_info(SCORES_NAME, TensorProto.FLOAT, ["N", len(LABELS)])
    return model_of(nodes, [scores], constants)


def test_a_failure_inside_is_an_engine_error_and_the_next_call_works(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "a.onnx", fragile(), spec_of(Task.CLASSIFY).model_dump_json())
    image = np.zeros((1, *HW, 3), np.uint8)
    with open_engine(path) as engine:
        image[0, 0, 0, 0] = 3
        with pytest.raises(EngineError, match=r"^ONNX Runtime failed: .*out of"):
            engine.infer(image)
        image[0, 0, 0, 0] = 2
        assert engine.infer(image).scores.tolist() == [[0, 0, 1]]
