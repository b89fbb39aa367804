"""Detectors as Ultralytics exports them: what comes out, against the same computed by hand."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from converters.onnx import graphs
from numpy.typing import NDArray
from onnx import TensorProto

from trtjob import __version__
from trtjob.converters.artefact import Converted, serialised, source_file
from trtjob.converters.onnx.convert import convert
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.engines.spec import ModelSpec, NmsKind, ResizeMode, Sampling, Task
from trtjob.errors import ConversionError

CLASSES = len(graphs.NAMES)
LAYOUTS = ("columns", "objectness", "final")
METADATA = {
    "columns": graphs.ULTRALYTICS,
    "objectness": graphs.YOLOV5,
    "final": {**graphs.ULTRALYTICS, "end2end": "True"},
}
VALUES = {"columns": 4 + CLASSES, "objectness": 5 + CLASSES, "final": 4 + CLASSES}

every_layout = pytest.mark.parametrize("layout", [pytest.param(layout, id=layout) for layout in LAYOUTS])


def converted(made: onnx.ModelProto, folder: Path) -> Converted:
    return convert(graphs.save(made, folder / "net.onnx"))


def run(found: Converted, pixels: UInt8Array) -> list[NDArray[np.float32]]:
    """Return boxes and scores of a whole batch at once."""
    session = onnxruntime.InferenceSession(serialised(found.model, found.spec), providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(["boxes", "scores"], {"images": pixels})
    return outputs


def expected(layout: str, pixels: UInt8Array) -> Outputs:
    """What the graph computes, and what its layout means, by hand; best first."""
    values = graphs.detector_values(pixels, VALUES[layout])
    scores = values[..., 4:]
    if layout == "objectness":
        scores = values[..., 5:] * values[..., 4:5]
    boxes = values[..., :4]
    if layout == "final":
        scores = np.where(scores == scores.max(2, keepdims=True), scores, 0)
        return Outputs(boxes.astype(np.float32), scores.astype(np.float32))
    half = boxes[..., 2:] / 2
    boxes = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], 2)
    order = np.argsort(-scores.max(2), axis=1)[..., None]
    best_first = [np.take_along_axis(array, order, 1).astype(np.float32) for array in (boxes, scores)]
    return Outputs(*best_first)


@pytest.mark.parametrize("count", [1, 2, 3])
@every_layout
def test_boxes_in_pixels_and_scores_come_out(layout: str, count: int, tmp_path: Path) -> None:
    pixels = graphs.images(count)
    boxes, scores = run(converted(graphs.detector(layout, metadata=METADATA[layout]), tmp_path), pixels)
    by_hand = expected(layout, pixels)
    assert by_hand.boxes is not None
    np.testing.assert_allclose(boxes, by_hand.boxes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, by_hand.scores, rtol=1e-4, atol=1e-5)


@every_layout
def test_the_reference_says_the_same_of_all_boxes(layout: str, tmp_path: Path) -> None:
    pixels = graphs.images(3)
    reference = converted(graphs.detector(layout, metadata=METADATA[layout]), tmp_path).reference
    assert reference is not None
    outputs, by_hand = reference.run(pixels), expected(layout, pixels)
    assert outputs.boxes is not None
    assert by_hand.boxes is not None
    order = np.argsort(-outputs.scores.max(2), axis=1)[..., None]
    if layout == "final":
        order = np.tile(np.arange(graphs.CELLS)[None, :, None], (3, 1, 1))
    boxes, scores = (np.take_along_axis(array, order, 1) for array in (outputs.boxes, outputs.scores))
    np.testing.assert_allclose(boxes, by_hand.boxes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, by_hand.scores, rtol=1e-4, atol=1e-5)


@every_layout
def test_the_file_is_valid_onnx_and_runs_in_an_engine(layout: str, tmp_path: Path) -> None:
    found = converted(graphs.detector(layout, metadata=METADATA[layout]), tmp_path)
    file = tmp_path / "out.onnx"
    file.write_bytes(serialised(found.model, found.spec))
    onnx.checker.check_model(onnx.load(file), full_check=True)
    with open_engine(file) as engine:
        assert engine.infer(graphs.images(2)).scores.shape == (2, graphs.CELLS, CLASSES)


def test_an_export_describes_itself(tmp_path: Path) -> None:
    found = converted(graphs.detector(), tmp_path)
    assert found.spec == ModelSpec(
        task=Task.DETECT,
        labels=graphs.NAMES,
        input_hw=graphs.HW,
        color="rgb",
        resize=ResizeMode.LETTERBOX,
        sampling=Sampling.HALF_PIXEL,
        pad_value=114,
        multi_label=False,
        candidates=1024,
        conf=0.25,
        iou=0.7,
        nms_kind=NmsKind.DEFAULT,
        precision="fp32",
        converter=f"trtjob {__version__} onnx",
        sources=(source_file(tmp_path / "net.onnx"),),
    )
    assert found.layers == 7
    assert found.notes


def test_final_boxes_need_no_nms(tmp_path: Path) -> None:
    assert converted(graphs.detector("final", metadata=METADATA["final"]), tmp_path).spec.nms_kind is NmsKind.NONE


def test_yolov5_suppresses_as_its_own_script_does(tmp_path: Path) -> None:
    assert converted(graphs.detector("objectness", metadata=graphs.YOLOV5), tmp_path).spec.iou == 0.45


@pytest.mark.parametrize(
    ("said", "layout"),
    [
        pytest.param({"end2end": "True"}, "final", id="end2end"),
        pytest.param({"args": "{'nms': True}"}, "final", id="nms inside"),
        pytest.param({"args": "", "end2end": ""}, "final", id="an older version says nothing"),
        pytest.param({}, "columns", id="not final"),
    ],
)
def test_what_an_output_means_is_found(said: dict[str, str], layout: str, tmp_path: Path) -> None:
    found = converted(graphs.detector(layout, metadata={**graphs.ULTRALYTICS, **said}), tmp_path)
    assert (found.spec.nms_kind is NmsKind.NONE) == (layout == "final")


@pytest.mark.parametrize(
    ("layout", "metadata", "is_final"),
    [
        # Six values a box: corners, score and class, or with one class: centre, size, objectness and class.
        pytest.param("final", {**METADATA["final"], "names": "{0: 'cat'}"}, True, id="ultralytics"),
        pytest.param("objectness", {**graphs.YOLOV5, "names": "{0: 'cat'}"}, False, id="yolov5"),
    ],
)
def test_six_values_of_one_class_are_told_apart(
    layout: str, metadata: dict[str, str], is_final: bool, tmp_path: Path
) -> None:
    found = converted(graphs.detector(layout, metadata=metadata, classes=1), tmp_path)
    assert (found.spec.nms_kind is NmsKind.NONE) == is_final


def test_two_classes_give_six_rows_that_are_not_final(tmp_path: Path) -> None:
    metadata = {**graphs.ULTRALYTICS, "names": "['cat', 'dog']"}
    found = converted(graphs.detector(metadata=metadata, classes=2), tmp_path)
    assert found.spec.nms_kind is NmsKind.DEFAULT


@every_layout
def test_no_more_than_the_best_1024_boxes_are_kept(layout: str, tmp_path: Path) -> None:
    hw = (256, 320)  # 1,280 cells
    metadata = {**METADATA[layout], "imgsz": str(list(hw))}
    found = converted(graphs.detector(layout, metadata=metadata, hw=hw), tmp_path)
    boxes, scores = run(found, graphs.images(1, hw))
    assert boxes.shape == (1, 1024, 4)
    best = np.sort(expected(layout, graphs.images(1, hw)).scores.max(2)[0])[::-1][:1024]
    np.testing.assert_allclose(scores.max(2)[0], best, rtol=1e-4, atol=1e-5)


# -- types, opsets, names ----------------------------------------------------------------------------------------------


@every_layout
def test_a_float16_export_gets_float16_and_gives_float32(layout: str, tmp_path: Path) -> None:
    pixels = graphs.images(2)
    made = graphs.detector(layout, metadata=METADATA[layout], kind=TensorProto.FLOAT16)
    found = converted(made, tmp_path)
    boxes, scores = run(found, pixels)
    assert found.spec.precision == "fp16"
    assert {str(boxes.dtype), str(scores.dtype)} == {"float32"}
    best = expected(layout, pixels).scores.max(2)
    np.testing.assert_allclose(np.sort(scores.max(2), 1), np.sort(best, 1), atol=0.01)


@pytest.mark.parametrize("opset", [11, 12, 13, 17])
@every_layout
def test_older_opsets_are_read(layout: str, opset: int, tmp_path: Path) -> None:
    made = graphs.detector(layout, metadata=METADATA[layout], opset=opset)
    split = next(node for node in made.graph.node if node.op_type == "Split")
    if opset < 13:  # sizes were an attribute
        del split.input[1]
        split.attribute.append(onnx.helper.make_attribute("split", [2, 2, VALUES[layout] - 4]))
    pixels = graphs.images(2)
    _, scores = run(converted(made, tmp_path), pixels)
    np.testing.assert_allclose(scores, expected(layout, pixels).scores, rtol=1e-4, atol=1e-5)


def test_a_newer_opset_is_kept(tmp_path: Path) -> None:
    made = graphs.detector("columns", opset=20)
    assert [entry.version for entry in converted(made, tmp_path).model.opset_import] == [20]


def test_names_that_are_ours_are_kept_apart(tmp_path: Path) -> None:
    made = graphs.detector(image="images")  # and `scores` inside
    for node in made.graph.node:
        node.output[:] = [{"sides": "boxes", "flat": "decode/cast", "map": "input/cast"}.get(n, n) for n in node.output]
        node.input[:] = [{"sides": "boxes", "flat": "decode/cast", "map": "input/cast"}.get(n, n) for n in node.input]
    pixels = graphs.images(2)
    _, scores = run(converted(made, tmp_path), pixels)
    np.testing.assert_allclose(scores, expected("columns", pixels).scores, rtol=1e-4, atol=1e-5)


def test_an_output_with_a_name_of_ours_is_kept_apart(tmp_path: Path) -> None:
    made = graphs.detector()
    next(node for node in made.graph.node if "scores" in node.output).output[0] = "chances"
    concat = next(node for node in made.graph.node if node.op_type == "Concat")
    concat.input[2], concat.output[0], made.graph.output[0].name = "chances", "scores", "scores"
    pixels = graphs.images(1)
    _, scores = run(converted(made, tmp_path), pixels)
    np.testing.assert_allclose(scores, expected("columns", pixels).scores, rtol=1e-4, atol=1e-5)


def test_nothing_of_the_exporters_machine_is_left(tmp_path: Path) -> None:
    made = graphs.detector(metadata={**graphs.ULTRALYTICS, "date": "2026-01-01", "secret": "/home/alice"})
    made.doc_string = made.graph.doc_string = made.graph.node[0].doc_string = "/home/alice/train.py"
    made.graph.node[0].metadata_props.add(key="stack_trace", value="/home/alice/train.py")
    found = converted(made, tmp_path)
    assert b"alice" not in serialised(found.model, found.spec)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (converted(graphs.detector(batch=1, fixed_reshape=True), tmp_path) for _ in range(2))
    assert serialised(first.model, first.spec) == serialised(second.model, second.spec)


def test_nodes_out_of_order_are_sorted(tmp_path: Path) -> None:
    made = graphs.detector()
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    pixels = graphs.images(1)
    _, scores = run(converted(made, tmp_path), pixels)
    np.testing.assert_allclose(scores, expected("columns", pixels).scores, rtol=1e-4, atol=1e-5)


def test_functions_of_the_file_are_put_into_its_graph(tmp_path: Path) -> None:
    made = graphs.detector()
    sigmoid = next(node for node in made.graph.node if node.op_type == "Sigmoid")
    sigmoid.domain, sigmoid.op_type = "own", "Squash"
    made.functions.append(
        onnx.helper.make_function(
            "own", "Squash", ["x"], ["y"], [graphs.node("Sigmoid", "x", "y")], [onnx.helper.make_opsetid("", 17)]
        )
    )
    made.opset_import.append(onnx.helper.make_opsetid("own", 1))
    pixels = graphs.images(1)
    found = converted(made, tmp_path)
    assert not found.model.functions
    np.testing.assert_allclose(run(found, pixels)[1], expected("columns", pixels).scores, rtol=1e-4, atol=1e-5)


def test_operators_of_onnx_runtime_are_kept(tmp_path: Path) -> None:
    made = graphs.detector()
    sigmoid = next(node for node in made.graph.node if node.op_type == "Sigmoid")
    sigmoid.domain, sigmoid.op_type = "com.microsoft", "QuickGelu"
    made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert converted(made, tmp_path).spec.task is Task.DETECT


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_an_export_of_any_size_takes_the_one_it_was_made_with(tmp_path: Path) -> None:
    assert converted(graphs.detector(hw=("height", "width")), tmp_path).spec.input_hw == graphs.HW


def test_another_size_can_be_asked_for(tmp_path: Path) -> None:
    request = graphs.save(graphs.detector(hw=("height", "width")), tmp_path / "net.onnx", size=(32, 40))
    found = convert(request)
    assert found.spec.input_hw == (32, 40)
    assert run(found, graphs.images(1, (32, 40)))[0].shape == (1, 20, 4)


@pytest.mark.parametrize(
    ("hw", "size", "message"),
    [
        pytest.param(graphs.HW, (32, 32), "24x16 pixels and no others, but --size is 32x32", id="fixed"),
        pytest.param(("h", "w"), (30, 32), "32x30 pixels cannot be: expected multiples of 8", id="stride"),
        pytest.param(("h", "w"), (80_000, 32), "cannot be: expected multiples of 8, up to 16384", id="too large"),
    ],
)
def test_a_size_that_cannot_be_is_refused(
    hw: tuple[graphs.Size, graphs.Size], size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    request = graphs.save(graphs.detector(hw=hw), tmp_path / "net.onnx", size=size)
    with pytest.raises(ConversionError, match=message):
        convert(request)


def test_a_yolov5_of_any_size_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"any size. Choose one with --size"):
        converted(graphs.detector("objectness", hw=("h", "w"), metadata=graphs.YOLOV5), tmp_path)


def test_a_grey_detector_takes_grey_images(tmp_path: Path) -> None:
    made = graphs.detector()
    made.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(graphs.weights(7, 1, 1, 1), "kernel"))
    spec = converted(made, tmp_path).spec
    assert (spec.channels, spec.color) == (1, "gray")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "message"),
    [
        pytest.param({"task": "segment"}, "no second output holds prototypes of masks", id="segment"),
        pytest.param({"task": "pose"}, "does not say how many keypoints it has", id="pose"),
        pytest.param({"task": "pose", "kpt_shape": "[17, 4]"}, "should be such as", id="keypoints of four"),
        pytest.param({"task": "obb"}, "expected .* with 1 numbers behind each box", id="obb"),
        pytest.param({"task": "depth"}, "exported for depth estimation, which is not supported yet", id="depth"),
        pytest.param({"task": "x" * 99}, "the task 'x{60}...', which is not supported yet", id="unknown"),
        pytest.param({"names": "{0: 'cat'}"}, r"\[1, 7, 6\] for one image and 1 classes: expected \[N, 4", id="labels"),
        pytest.param({"names": "nonsense"}, "class names in its metadata cannot be read", id="no names"),
        pytest.param({"names": "{0: 'cat', 2: 'dog'}"}, "class names in its metadata cannot be read", id="a gap"),
        pytest.param({"names": "{0: 'cat', 1: ''}"}, "class names in its metadata cannot be read", id="an empty one"),
        pytest.param({"names": "(" * 20_000}, "class names in its metadata cannot be read", id="deep"),
        pytest.param({"names": "[" + "'cat', " * 300_000 + "]"}, "names in its metadata cannot be read", id="long"),
    ],
)
def test_an_export_that_is_not_understood_is_refused(said: dict[str, str], message: str, tmp_path: Path) -> None:
    metadata = {**graphs.ULTRALYTICS, **said}
    made = graphs.detector(metadata=metadata, hw=graphs.HW)
    with pytest.raises(ConversionError, match=message):
        converted(made, tmp_path)


def test_a_yolov5_whose_values_do_not_fit_its_labels_is_refused(tmp_path: Path) -> None:
    made = graphs.detector("objectness", metadata={**graphs.YOLOV5, "names": "['cat']"})
    with pytest.raises(ConversionError, match=r"\[1, 6, 8\] for one image and 1 classes: expected"):
        converted(made, tmp_path)


def test_labels_of_a_file_replace_those_of_the_metadata(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\nthree\n")
    found = convert(graphs.save(graphs.detector(), tmp_path / "net.onnx", labels=labels))
    assert found.spec.labels == ("one", "two", "three")
    assert [source.name for source in found.spec.sources] == ["net.onnx", "labels.txt"]


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    made = graphs.detector()
    made.graph.initializer[0].CopyFrom(graphs.constant("kernel", np.full((7, 3, 1, 1), np.nan)))
    with pytest.raises(ConversionError, match="infinite values or none at all"):
        converted(made, tmp_path)
