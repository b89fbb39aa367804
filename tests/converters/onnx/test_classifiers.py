"""Classifiers: what they expect of a pixel, and whether their scores are probabilities already."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from converters.onnx import graphs
from numpy.typing import NDArray
from onnx import TensorProto

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.onnx.convert import convert
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ResizeMode, Sampling, Task
from trtjob.errors import ConversionError

MATRIX = graphs.weights(3, 3)
PIXELS = graphs.images(3, (16, 16))


def plain(made: onnx.ModelProto, folder: Path, **options: Any) -> Converted:
    options = {"labels": graphs.labels_file(folder), "preprocess": "unit", **options}
    return convert(graphs.save(made, folder / "net.onnx", **options))


def scores(found: Converted, pixels: UInt8Array = PIXELS) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(serialised(found.model, found.spec), providers=["CPUExecutionProvider"])
    outputs: list[NDArray[np.float32]] = session.run(["scores"], {"images": pixels})
    return outputs[0]


def means(pixels: UInt8Array = PIXELS) -> NDArray[np.float64]:
    return np.asarray(pixels.astype(np.float64).mean((1, 2)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bytes_of_an_image_go_in_and_probabilities_come_out(count: int, tmp_path: Path) -> None:
    found = plain(graphs.classifier(), tmp_path)
    by_hand = graphs.softmax(means()[:count] / 255 @ MATRIX)
    np.testing.assert_allclose(scores(found, PIXELS[:count]), by_hand, rtol=1e-4)
    assert found.reference is not None
    np.testing.assert_allclose(found.reference.run(PIXELS[:count]).scores, by_hand, rtol=1e-4)


def test_a_plain_classifier_describes_itself(tmp_path: Path) -> None:
    spec = plain(graphs.classifier(), tmp_path).spec
    assert (spec.task, spec.labels, spec.input_hw) == (Task.CLASSIFY, graphs.NAMES, (16, 16))
    assert (spec.resize, spec.sampling, spec.color) == (ResizeMode.STRETCH, Sampling.ANTIALIAS, "rgb")
    assert [source.name for source in spec.sources] == ["net.onnx", "labels.txt"]


def test_the_converted_file_runs_in_an_engine(tmp_path: Path) -> None:
    found = plain(graphs.classifier(), tmp_path)
    file = tmp_path / "out.onnx"
    file.write_bytes(serialised(found.model, found.spec))
    onnx.checker.check_model(onnx.load(file), full_check=True)
    with open_engine(file) as engine:
        assert engine.infer(PIXELS).scores.shape == (3, 3)


def test_ultralytics_classifiers_are_cut_and_take_pixels_from_0_to_1(tmp_path: Path) -> None:
    made = graphs.classifier(metadata=graphs.CLASSIFIER)
    found = convert(graphs.save(made, tmp_path / "net.onnx"))
    assert (found.spec.resize, found.spec.labels) == (ResizeMode.CROP, graphs.NAMES)
    np.testing.assert_allclose(scores(found), graphs.softmax(means() / 255 @ MATRIX), rtol=1e-4)


def test_ultralytics_classifiers_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    made = graphs.classifier(metadata=graphs.CLASSIFIER, shape=(1, 3, 16, 24))
    assert convert(graphs.save(made, tmp_path / "net.onnx")).spec.resize is ResizeMode.STRETCH


def test_yolov5_classifiers_want_imagenets_mean_and_give_logits(tmp_path: Path) -> None:
    made = graphs.classifier("", metadata=graphs.YOLOV5)
    found = convert(graphs.save(made, tmp_path / "net.onnx"))
    normalised = (means() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    assert (found.spec.task, found.spec.resize) == (Task.CLASSIFY, ResizeMode.CROP)
    np.testing.assert_allclose(scores(found), graphs.softmax(normalised @ MATRIX), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "mean", "std", "color"),
    [
        pytest.param({"preprocess": "none"}, 0, 1, "rgb", id="none"),
        pytest.param({"preprocess": "unit"}, 0, 255, "rgb", id="unit"),
        pytest.param({"preprocess": "tf"}, 127.5, 127.5, "rgb", id="tf"),
        pytest.param({"preprocess": "caffe"}, [103.939, 116.779, 123.68], 1, "bgr", id="caffe"),
        pytest.param({"preprocess": "torch"}, [123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "rgb", id="torch"),
        pytest.param(
            {"preprocess": "torch", "color": "bgr"},
            [103.53, 116.28, 123.675],
            [57.375, 57.12, 58.395],
            "bgr",
            id="turned",
        ),
        pytest.param({"color": "bgr"}, [0, 0, 0], [255, 255, 255], "bgr", id="bgr"),
        pytest.param({"preprocess": None, "mean": (10.0,)}, 10, 1, "rgb", id="mean"),
        pytest.param({"preprocess": None, "std": (9.0,)}, 0, 9, "rgb", id="std"),
        pytest.param(
            {"preprocess": None, "mean": (1.0, 2.0, 3.0), "std": (4.0, 5.0, 6.0)},
            [1, 2, 3],
            [4, 5, 6],
            "rgb",
            id="both",
        ),
    ],
)
@pytest.mark.parametrize("is_nchw", [pytest.param(True, id="nchw"), pytest.param(False, id="nhwc")])
def test_pixels_become_what_the_model_expects(
    options: dict[str, Any], mean: Any, std: Any, color: str, is_nchw: bool, tmp_path: Path
) -> None:
    shape = ("N", 3, 16, 16) if is_nchw else ("N", 16, 16, 3)
    found = plain(graphs.classifier("Sigmoid", shape=shape, is_nchw=is_nchw), tmp_path, **options)
    logits = (means() - mean) / std @ MATRIX
    assert found.spec.color == color
    np.testing.assert_allclose(scores(found), 1 / (1 + np.exp(-logits)), rtol=1e-3, atol=1e-6)
    assert found.reference is not None
    np.testing.assert_allclose(found.reference.run(PIXELS).scores, scores(found), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("ending", "is_added", "note"),
    [
        pytest.param("Softmax", False, "ends in a softmax", id="softmax"),
        pytest.param("by hand", False, "ends in Div, but its scores sum to 1", id="softmax by hand"),
        pytest.param("LogSoftmax", True, "ends in LogSoftmax, and its scores do not sum to 1", id="log-softmax"),
    ],
)
def test_scores_are_probabilities(ending: str, is_added: bool, note: str, tmp_path: Path) -> None:
    found = plain(graphs.classifier(ending), tmp_path)
    assert [node.op_type for node in found.model.graph.node].count("Softmax") == is_added + (ending == "Softmax")
    np.testing.assert_allclose(scores(found), graphs.softmax(means() / 255 @ MATRIX), rtol=1e-4)
    assert note in found.notes[-1]


def test_a_softmax_that_is_guessed_is_a_warning(tmp_path: Path) -> None:
    found = plain(graphs.classifier(""), tmp_path)
    np.testing.assert_allclose(scores(found), graphs.softmax(means() / 255 @ MATRIX), rtol=1e-4)
    (warning,) = found.warnings
    assert warning.startswith("It ends in MatMul, and its scores do not sum to 1: a softmax was added, as if one class")
    assert "--scores sigmoid" in warning
    assert plain(graphs.classifier(""), tmp_path, scores="softmax").warnings == ()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        pytest.param("softmax", graphs.softmax, id="softmax"),
        pytest.param("sigmoid", lambda logits: 1 / (1 + np.exp(-logits)), id="sigmoid"),
        pytest.param("none", lambda logits: logits, id="none"),
    ],
)
def test_the_user_says_what_makes_scores_of_the_output(asked: str, expected: Any, tmp_path: Path) -> None:
    found = plain(graphs.classifier(""), tmp_path, scores=asked)
    np.testing.assert_allclose(scores(found), expected(means() / 255 @ MATRIX), rtol=1e-4, atol=1e-6)
    assert found.reference is not None
    np.testing.assert_allclose(found.reference.run(PIXELS).scores, scores(found), rtol=1e-4, atol=1e-6)
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("ending", "asked"),
    [pytest.param("Softmax", "sigmoid", id="softmax"), pytest.param("Sigmoid", "softmax", id="sigmoid")],
)
def test_scores_that_the_graph_does_not_give_are_refused(ending: str, asked: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConversionError, match=rf"^--scores {asked}: '.*' ends in a {ending.lower()}\. Leave --scores out"
    ):
        plain(graphs.classifier(ending), tmp_path, scores=asked)
    assert plain(graphs.classifier(ending), tmp_path, scores=ending.lower()).warnings == ()


def test_scores_are_not_for_detectors(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="--scores is for classifiers"):
        convert(graphs.save(graphs.detector(), tmp_path / "net.onnx", scores="sigmoid"))


def one_output(ending: str = "") -> onnx.ModelProto:
    made = graphs.classifier(ending)
    made.graph.initializer[0].CopyFrom(graphs.constant("matrix", graphs.weights(3, 1)))
    made.graph.output[0].CopyFrom(graphs.value("answer", ["N", 1]))
    return made


@pytest.mark.parametrize(
    ("ending", "asked"),
    [
        pytest.param("", "sigmoid", id="logit"),
        pytest.param("Sigmoid", None, id="probability"),
        pytest.param("Sigmoid", "sigmoid", id="probability and said so"),
        pytest.param("Sigmoid", "none", id="probability and none"),
    ],
)
def test_one_number_becomes_a_pair_of_classes(ending: str, asked: str | None, tmp_path: Path) -> None:
    labels = tmp_path / "two.txt"
    labels.write_text("other\ncat\n")
    found = plain(one_output(ending), tmp_path, labels=labels, scores=asked)
    second = 1 / (1 + np.exp(-means() / 255 @ graphs.weights(3, 1)))
    np.testing.assert_allclose(scores(found), np.concatenate([1 - second, second], 1), rtol=1e-4)
    assert found.spec.labels == ("other", "cat")


def test_names_beside_the_model_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    (tmp_path / "net.names").write_text("cat\ndog\n")
    found = plain(graphs.classifier("Softmax"), tmp_path, labels=None)
    assert found.spec.labels == ("class_0", "class_1", "class_2")
    assert "'net.names' beside the model has 2 names" in found.warnings[0]


@pytest.mark.parametrize(
    ("ending", "scores", "is_multi_label"),
    [
        pytest.param("Sigmoid", None, True, id="sigmoid"),
        pytest.param("", "sigmoid", True, id="logits"),
        pytest.param("Softmax", None, False, id="softmax"),
        pytest.param("", "softmax", False, id="logits of one"),
        pytest.param("", "none", False, id="as they are"),
    ],
)
def test_classes_that_stand_for_themselves_make_a_multi_label_model(
    ending: str, scores: str | None, is_multi_label: bool, tmp_path: Path
) -> None:
    assert plain(graphs.classifier(ending), tmp_path, scores=scores).spec.multi_label is is_multi_label


def test_scores_of_a_sigmoid_are_left_as_they_are(tmp_path: Path) -> None:
    found = plain(graphs.classifier("Sigmoid"), tmp_path)
    np.testing.assert_allclose(scores(found), 1 / (1 + np.exp(-means() / 255 @ MATRIX)), rtol=1e-4)


def test_a_softmax_before_other_shapes_is_seen(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.node[-1].output[0] = "inner"
    made.graph.initializer.append(graphs.constant("shape", [0, 3, 1, 1], np.int64))
    made.graph.node.append(graphs.node("Reshape", "inner shape", "answer"))
    made.graph.output[0].CopyFrom(graphs.value("answer", ["N", 3, 1, 1]))
    found = plain(made, tmp_path)
    assert "ends in a softmax" in found.notes[-1]
    assert scores(found).shape == (3, 3)


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(TensorProto.FLOAT16, id="float16"),
        pytest.param(TensorProto.DOUBLE, id="float64"),
        pytest.param(TensorProto.UINT8, id="uint8"),
    ],
)
def test_pixels_are_cast_to_the_inputs_type(kind: int, tmp_path: Path) -> None:
    found = plain(graphs.classifier("Sigmoid", kind=kind), tmp_path, preprocess="none")
    np.testing.assert_allclose(scores(found), 1 / (1 + np.exp(-means() @ MATRIX)), rtol=1e-2, atol=1e-6)


def test_a_grey_classifier_takes_grey_images(tmp_path: Path) -> None:
    found = plain(graphs.classifier(shape=("N", 1, 16, 16), channels=1), tmp_path)
    assert (found.spec.channels, found.spec.color) == (1, "gray")
    assert scores(found, graphs.images(2, (16, 16), 1)).shape == (2, 3)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (plain(graphs.classifier(), tmp_path) for _ in range(2))
    assert serialised(first.model, first.spec) == serialised(second.model, second.spec)


def test_labels_beside_the_model_are_found(tmp_path: Path) -> None:
    graphs.labels_file(tmp_path).rename(tmp_path / "net.names")
    assert plain(graphs.classifier(), tmp_path, labels=None).spec.labels == graphs.NAMES


def test_labels_in_the_metadata_are_found(tmp_path: Path) -> None:
    made = graphs.classifier(metadata={"names": str(list(graphs.NAMES))})
    assert plain(made, tmp_path, labels=None).spec.labels == graphs.NAMES


@pytest.mark.parametrize("count", [4, 5, 6, 7])
def test_a_classifier_of_as_many_classes_as_boxes_have_numbers_is_no_detector(count: int, tmp_path: Path) -> None:
    labels = tmp_path / "of.names"
    labels.write_text("\n".join(f"class {number}" for number in range(count)) + "\n")
    nodes = [
        graphs.node("GlobalAveragePool", "images", "pooled"),
        graphs.node("Flatten", "pooled", "flat"),
        graphs.node("MatMul", "flat weights", "answer"),
    ]
    values = [graphs.value("images", [1, 3, 16, 16])], [graphs.value("answer", [1, count])]
    model = graphs.model(nodes, [graphs.constant("weights", graphs.weights(3, count))], *values)
    assert plain(model, tmp_path, labels=labels).spec.task is Task.CLASSIFY


def test_how_images_are_resized_can_be_said(tmp_path: Path) -> None:
    assert plain(graphs.classifier(), tmp_path, resize=ResizeMode.CROP).spec.resize is ResizeMode.CROP


def test_how_much_of_an_image_a_crop_keeps_can_be_said(tmp_path: Path) -> None:
    assert plain(graphs.classifier(), tmp_path, resize=ResizeMode.CROP, crop_ratio=0.875).spec.crop_ratio == 0.875
    with pytest.raises(ConversionError, match=r"--crop-ratio 0\.875 is for images that are cropped, .* Add --resize"):
        plain(graphs.classifier(), tmp_path, crop_ratio=0.875)


def test_a_value_inside_can_be_the_output(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.node.append(graphs.node("ArgMax", "answer", "best", axis=1))
    made.graph.output[0].CopyFrom(graphs.value("best", ["N", 1], TensorProto.INT64))
    found = plain(made, tmp_path, output="answer")
    np.testing.assert_allclose(scores(found), graphs.softmax(means() / 255 @ MATRIX), rtol=1e-4)
    assert "ArgMax" not in {node.op_type for node in found.model.graph.node}


def test_weights_that_are_inputs_too_are_no_inputs(tmp_path: Path) -> None:
    """As files of IR version 3 have them."""
    made = graphs.classifier(opset=8)
    made.ir_version = 3
    made.graph.input.append(graphs.value("matrix", [3, 3]))
    made.graph.input.append(graphs.value("axes", [1], TensorProto.INT64))
    np.testing.assert_allclose(scores(plain(made, tmp_path)), graphs.softmax(means() / 255 @ MATRIX), rtol=1e-4)


# -- what is refused ---------------------------------------------------------------------------------------------------

FOUND = r"Its inputs: 'pixels' float .*; its outputs: 'answer' float \[.*Accepted are detectors and classifiers"


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        pytest.param(("N", 128), "the input 'pixels' is no image: expected four sizes", id="text"),
        pytest.param((1, 4, 16, 16), "has no size of 3", id="four channels"),
        pytest.param(("a", "b", "c", "d"), "has no size of 3", id="open channels"),
    ],
)
def test_an_input_that_is_no_image_is_refused(
    shape: Sequence[graphs.Size] | None, message: str, tmp_path: Path
) -> None:
    made = graphs.classifier()
    made.graph.input[0].CopyFrom(graphs.value("pixels", shape))
    with pytest.raises(ConversionError, match=message) as caught:
        plain(made, tmp_path)
    assert "Its inputs: 'pixels' float" in str(caught.value)
    assert "its outputs: 'answer' float [N, 3]" in str(caught.value)
    assert "Accepted are" in str(caught.value)


def test_integers_are_no_pixels(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="'pixels' takes int64: expected float, float16 or uint8 pixels"):
        plain(graphs.classifier(kind=TensorProto.INT64), tmp_path)


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.input.append(graphs.value("mask", [1]))
    with pytest.raises(ConversionError, match="it has 2 inputs: expected the image alone"):
        plain(made, tmp_path)


def test_of_several_outputs_one_has_to_be_named(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.output.append(graphs.value("means", ["N", 3]))
    with pytest.raises(ConversionError, match=r"it has 2 outputs, .* name its scores with --output NAME"):
        plain(made, tmp_path)
    assert plain(made, tmp_path, output="answer").spec.task is Task.CLASSIFY


def test_class_numbers_are_no_scores(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.node.append(graphs.node("ArgMax", "answer", "best", axis=1))
    made.graph.output[0].CopyFrom(graphs.value("best", ["N", 1], TensorProto.INT64))
    with pytest.raises(ConversionError, match="'best' is int64: expected scores, float"):
        plain(made, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"input": "image"}, "there is no input 'image', which --input names", id="input"),
        pytest.param({"output": "class"}, "there is no value 'class', which --output names", id="output"),
        pytest.param({"labels": None}, "does not name its classes. Name a file of them", id="labels"),
        pytest.param({"labels": Path("nowhere.txt")}, "the labels 'nowhere.txt' cannot be read", id="no labels"),
        pytest.param({"preprocess": None}, "does not say what it expects of a pixel", id="pixels"),
        pytest.param({"mean": (1.0,)}, "say the same in two ways", id="both"),
        pytest.param({"preprocess": None, "mean": (1.0, 2.0)}, "--mean 1,2: expected one number, or one", id="mean"),
        pytest.param({"preprocess": None, "std": (0.0,)}, "--std: nothing can be divided by 0", id="std"),
        pytest.param({"preprocess": None, "std": (float("nan"),)}, "--std nan: expected one number", id="nan"),
        pytest.param({"size": (32, 32)}, "16x16 pixels and no others", id="size"),
    ],
)
def test_wishes_that_cannot_be_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=message):
        plain(graphs.classifier(), tmp_path, **options)


@pytest.mark.parametrize("mode", ["torch", "caffe"])
def test_means_of_colours_are_refused_for_grey_images(mode: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"takes grey images. Give --mean and --std"):
        plain(graphs.classifier(shape=("N", 1, 16, 16), channels=1), tmp_path, preprocess=mode)


def test_bytes_cannot_be_normalised(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="takes uint8, pixels as they are"):
        plain(graphs.classifier(kind=TensorProto.UINT8), tmp_path)


def test_an_input_of_any_size_asks_for_one(tmp_path: Path) -> None:
    made = graphs.classifier(shape=("N", 3, "H", "W"))
    with pytest.raises(ConversionError, match=r"images of any size. Choose one with --size"):
        plain(made, tmp_path)
    assert plain(made, tmp_path, size=(16, 16)).spec.input_hw == (16, 16)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(b"cat\ndog\n", "scores of 3 classes, but there are 2 labels", id="too few"),
        pytest.param(b"cat\n\ndog\n", "labels.txt:2: the line is empty or binary", id="an empty line"),
        pytest.param(b"", "labels.txt:1: the line is empty or binary", id="empty"),
        pytest.param(b"\xff\xfe", "are no text in UTF-8", id="binary"),
    ],
)
def test_labels_that_do_not_fit_are_refused(text: bytes, message: str, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_bytes(text)
    made = graphs.classifier()
    request = graphs.save(made, tmp_path / "net.onnx", labels=labels, preprocess="unit")
    with pytest.raises(ConversionError, match=message):
        convert(request)


def test_a_detector_without_metadata_is_refused(tmp_path: Path) -> None:
    made = graphs.detector(metadata={})
    with pytest.raises(
        ConversionError, match=r"looks like a detector.*'output0' float32 \[1, 7, 6\].*--family yolov10"
    ):
        plain(made, tmp_path)


def test_a_map_is_no_score(tmp_path: Path) -> None:
    made = graphs.classifier()
    made.graph.output[0].CopyFrom(graphs.value("floats", ["N", 3, 16, 16]))
    with pytest.raises(ConversionError, match=r"its output is \[1, 3, 16, 16\] for one image: expected scores"):
        plain(made, tmp_path)


def test_one_number_without_bounds_is_no_score(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"one number without bounds for each image\..* --scores sigmoid"):
        plain(one_output(), tmp_path)
    with pytest.raises(ConversionError, match=r"--scores softmax: '.*' has one output"):
        plain(one_output(), tmp_path, scores="softmax")
