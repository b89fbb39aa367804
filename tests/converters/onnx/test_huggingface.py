"""Hugging Face's classifiers: their documents beside the file say what it is; without them a guess is said."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.onnx import graphs
from onnx import TensorProto, helper

from trtjob.converters.artefact import Converted
from trtjob.converters.onnx.convert import convert
from trtjob.engines.spec import ResizeMode, Sampling
from trtjob.errors import ConversionError

CONFIG = {"id2label": {"0": "cat", "1": "dog"}}
PREPROCESSOR = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.1, 0.2, 0.3],
    "resample": 2,
    "size": {"height": 16, "width": 24},
}


def classifier(classes: int = 2) -> onnx.ModelProto:
    """As optimum exports one: all dimensions open, logits."""
    return graphs.model(
        [
            graphs.node("GlobalAveragePool", "pixel_values", "pooled"),
            graphs.node("Flatten", "pooled", "flat"),
            graphs.node("MatMul", "flat weights", "logits"),
        ],
        [graphs.constant("weights", graphs.weights(3, classes))],
        [graphs.value("pixel_values", ["batch_size", "num_channels", "height", "width"])],
        [graphs.value("logits", ["batch_size", classes])],
    )


def converted(folder: Path, documents: dict[str, Any], **options: Any) -> Converted:
    for name, document in documents.items():
        (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    return convert(graphs.save(classifier(), folder / "net.onnx", **options))


def test_the_documents_beside_it_say_all(tmp_path: Path) -> None:
    made = converted(tmp_path, {"config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR})
    spec = made.spec
    assert (spec.labels, spec.input_hw, spec.resize) == (("cat", "dog"), (16, 24), ResizeMode.STRETCH)
    assert spec.sampling is Sampling.ANTIALIAS
    assert not made.warnings
    pixels = graphs.images(2, (16, 24))
    assert made.reference is not None
    normalised = (pixels.astype(np.float64).mean((1, 2)) / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3]
    expected = graphs.softmax(normalised @ graphs.weights(3, 2))
    np.testing.assert_allclose(made.reference.run(pixels).scores, expected, rtol=1e-4)


def test_several_labels_are_sigmoids(tmp_path: Path) -> None:
    config = {**CONFIG, "problem_type": "multi_label_classification"}
    made = converted(tmp_path, {"config.json": config, "preprocessor_config.json": PREPROCESSOR})
    assert made.reference is not None
    scores = made.reference.run(graphs.images(1, (16, 24))).scores
    assert scores.sum() != pytest.approx(1, abs=1e-3)
    assert any("each class stands for itself" in note for note in made.notes)


def test_a_centre_is_cut_where_it_says_so(tmp_path: Path) -> None:
    preprocessor = {
        **PREPROCESSOR,
        "size": {"shortest_edge": 20},
        "do_center_crop": True,
        "crop_size": {"height": 16, "width": 16},
    }
    spec = converted(tmp_path, {"config.json": CONFIG, "preprocessor_config.json": preprocessor}).spec
    assert (spec.input_hw, spec.resize) == ((16, 16), ResizeMode.CROP)


@pytest.mark.parametrize(
    ("document", "ratio"),
    [
        ({"do_center_crop": True, "size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}, 0.8),
        ({"do_center_crop": True, "size": 40, "crop_size": 32}, 0.8),
        ({"crop_pct": 0.8, "size": {"shortest_edge": 32}}, 0.8),
        ({"do_center_crop": True, "size": {"shortest_edge": 32}, "crop_size": 32}, 1.0),
    ],
    ids=["sizes", "numbers", "ConvNeXt", "all"],
)
def test_as_much_is_cut_off_as_the_document_says(document: dict[str, Any], ratio: float, tmp_path: Path) -> None:
    spec = converted(tmp_path, {"config.json": CONFIG, "preprocessor_config.json": {**PREPROCESSOR, **document}}).spec
    assert (spec.resize, spec.input_hw, spec.crop_ratio) == (ResizeMode.CROP, (32, 32), ratio)


def test_timms_own_document_says_all(tmp_path: Path) -> None:
    said = {"input_size": [3, 32, 32], "crop_pct": 0.9, "crop_mode": "center", "mean": [0.5, 0.4, 0.3]}
    said |= {"std": [0.1, 0.2, 0.3], "interpolation": "bicubic"}
    made = converted(tmp_path, {"config.json": {"label_names": ["cat", "dog"], "pretrained_cfg": said}})
    spec = made.spec
    assert (spec.labels, spec.input_hw, spec.resize) == (("cat", "dog"), (32, 32), ResizeMode.CROP)
    assert (spec.covered_hw, spec.sampling) == ((35, 35), Sampling.BICUBIC)
    assert not made.warnings
    pixels = graphs.images(1, (32, 32))
    assert made.reference is not None
    normalised = (pixels.astype(np.float64).mean((1, 2)) / 255 - [0.5, 0.4, 0.3]) / [0.1, 0.2, 0.3]
    np.testing.assert_allclose(
        made.reference.run(pixels).scores, graphs.softmax(normalised @ graphs.weights(3, 2)), rtol=1e-4
    )


def test_a_resampling_that_is_no_number_is_taken_for_opencvs(tmp_path: Path) -> None:
    documents = {"config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR | {"resample": [2]}}
    assert converted(tmp_path, documents).spec.sampling is Sampling.HALF_PIXEL


def test_a_crop_of_less_than_nothing_is_none(tmp_path: Path) -> None:
    cut = PREPROCESSOR | {"do_center_crop": True, "size": 32, "crop_size": -1}
    made = converted(tmp_path, {"config.json": CONFIG, "preprocessor_config.json": cut}, size=(16, 16))
    assert (made.spec.resize, made.spec.crop_ratio) == (ResizeMode.CROP, 1.0)


def test_of_timm_a_crop_of_next_to_nothing_is_not_understood(tmp_path: Path) -> None:
    said = {"input_size": [3, 32, 32], "crop_pct": 1e-320, "mean": [0.5, 0.4, 0.3], "std": [0.1, 0.2, 0.3]}
    made = converted(tmp_path, {"config.json": {"label_names": ["cat", "dog"], "pretrained_cfg": said}}, size=(32, 32))
    assert any("from -1 to 1" in warning for warning in made.warnings)


def test_without_documents_a_size_is_enough_and_the_guesses_are_said(tmp_path: Path) -> None:
    made = converted(tmp_path, {}, size=(16, 24))
    assert made.spec.labels == ("class_0", "class_1")
    assert any("from -1 to 1" in warning for warning in made.warnings)
    assert any("class_0" in warning for warning in made.warnings)


@pytest.mark.parametrize(
    ("name", "document", "message"),
    [
        ("config.json", "{", "config.json' is no JSON"),
        ("preprocessor_config.json", {**PREPROCESSOR, "image_mean": "grey"}, "says of pixels is not understood"),
        ("preprocessor_config.json", {**PREPROCESSOR, "image_mean": [0.5]}, "says of pixels is not understood"),
        ("preprocessor_config.json", {**PREPROCESSOR, "image_std": [0, 1, 1]}, "says of pixels is not understood"),
        ("preprocessor_config.json", {**PREPROCESSOR, "rescale_factor": []}, ""),
    ],
)
def test_documents_that_cannot_be_are_named(name: str, document: Any, message: str, tmp_path: Path) -> None:
    documents = {"config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR, name: document}
    if not message:  # an empty factor is none
        converted(tmp_path, documents)
        return
    with pytest.raises(ConversionError, match=message):
        converted(tmp_path, documents)


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"port": 80}', "3"])
def test_a_config_of_another_program_is_left_alone(text: str, tmp_path: Path) -> None:
    made = converted(tmp_path, {"config.json": text}, size=(16, 24))
    assert made.spec.labels == ("class_0", "class_1")
    assert [source.name for source in made.spec.sources] == ["net.onnx"]


def test_the_documents_are_sources_of_the_model(tmp_path: Path) -> None:
    """So that another one of them makes another model."""
    made = converted(tmp_path, {"config.json": CONFIG, "preprocessor_config.json": PREPROCESSOR})
    names = [source.name for source in made.spec.sources]
    assert names == ["net.onnx", "config.json", "preprocessor_config.json"]


def test_labels_with_a_gap_are_none(tmp_path: Path) -> None:
    documents = {"config.json": {"id2label": {"0": "cat", "7": "dog"}}, "preprocessor_config.json": PREPROCESSOR}
    assert converted(tmp_path, documents).spec.labels == ("class_0", "class_1")


def test_a_zipmap_is_taken_off_and_its_labels_are_kept(tmp_path: Path) -> None:
    made = classifier()
    made.graph.node.append(graphs.node("Softmax", "logits", "probs", axis=1))
    made.graph.node.append(
        helper.make_node("ZipMap", ["probs"], ["loss"], domain="ai.onnx.ml", classlabels_strings=["no", "yes, it is"])
    )
    made.graph.node.append(graphs.node("ArgMax", "probs", "best", axis=1))
    made.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    del made.graph.output[:]
    made.graph.output.append(graphs.value("best", ["batch_size"], TensorProto.INT64))
    made.graph.output.append(helper.make_empty_tensor_value_info("loss"))
    found = convert(graphs.save(made, tmp_path / "net.onnx", size=(16, 24), preprocess="none"))
    assert found.spec.labels == ("no", "yes, it is")
