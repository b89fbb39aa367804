"""The output `candidates` of every kind of detector, beside the same computed of its boxes and scores."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from engines.tensorrt import conversions
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.candidates import add_candidates, remove_candidates
from trtjob.converters.onnx.convert import convert
from trtjob.converters.request import ConversionRequest
from trtjob.engines.candidates import candidates_from
from trtjob.engines.protocol import FloatArray, Outputs, UInt8Array
from trtjob.engines.spec import INPUT_NAME, ModelSpec, Precision, Task, parse_spec
from trtjob.engines.tensorrt.lowering import lower
from trtjob.errors import ConversionError

DETECTORS = [
    head for head in conversions.HEADS if str(head.id).startswith(("yolo", "two", "Gaussian", "region", "detection"))
]

multi_label = pytest.mark.parametrize("multi_label", [True, False], ids=["multi-label", "one class"])


def run(model: ModelProto, images: UInt8Array) -> tuple[FloatArray, Outputs]:
    """Return a model's candidates, and its boxes and scores."""
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    candidates, boxes, scores = session.run(["candidates", "boxes", "scores"], {INPUT_NAME: images})
    return candidates, Outputs(boxes, scores)


def assert_same(found: FloatArray, outputs: Outputs, spec: ModelSpec) -> None:
    """Compare candidates with those that follow from boxes and scores; equal scores may come in any order."""
    expected = candidates_from(outputs, spec)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    everything = candidates_from(outputs, spec.model_copy(update={"candidates": outputs.scores[0].size}))
    for ours, theirs, all_of_it in zip(found, expected, everything, strict=True):
        assert ours[:, 4].tobytes() == theirs[:, 4].tobytes()
        rows = sorted(map(tuple, ours.tolist()))
        assert len(rows) == len(set(rows)) or len(set(map(tuple, all_of_it.tolist()))) < len(all_of_it)
        assert set(rows) <= set(map(tuple, all_of_it.tolist()))
        above = ours[:, 4] > ours[-1, 4]
        assert sorted(map(tuple, ours[above].tolist())) == sorted(map(tuple, theirs[above].tolist()))


def with_candidates(found: Converted, *, multi_label: bool, most: int = 1024) -> tuple[ModelProto, ModelSpec]:
    """Return a model as it is written, as if it had been converted otherwise."""
    spec = found.spec.model_copy(update={"multi_label": multi_label, "candidates": most})
    return onnx.load_model_from_string(serialised(found.model, spec)), spec


@multi_label
@pytest.mark.parametrize("most", [1, 7, 1024])
@pytest.mark.parametrize("head", DETECTORS)
def test_those_of_darknets_heads(head: str, most: int, multi_label: bool) -> None:
    model, spec = with_candidates(conversions.of_head(head), multi_label=multi_label, most=most)
    assert_same(*run(model, conversions.noise(spec, 3)), spec)


@multi_label
@pytest.mark.parametrize("opset", [13, 17])
@pytest.mark.parametrize("layout", conversions.FOREIGN)
def test_those_of_foreign_layouts(layout: str, opset: int, multi_label: bool, tmp_path: Path) -> None:
    model, spec = with_candidates(conversions.of_foreign(layout, opset, tmp_path), multi_label=multi_label, most=5)
    assert_same(*run(model, conversions.noise(spec, 3)), spec)


@multi_label
def test_those_of_the_sample_model(multi_label: bool) -> None:
    model, spec = with_candidates(conversions.digits(), multi_label=multi_label)
    assert_same(*run(model, conversions.noise(spec, 2)), spec)


@multi_label
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_those_of_a_lower_precision_are_float32_all_the_same(
    precision: Precision, multi_label: bool, tmp_path: Path
) -> None:
    found = conversions.small_detector(tmp_path)
    images = conversions.noise(found.spec, 2)
    low = conversions.lower_precision(found, precision, images)
    model, spec = with_candidates(Converted(low, found.spec, 0), multi_label=multi_label)
    assert_same(*run(model, images), spec)
    types = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
        if value.name.startswith("candidates/")
    }
    assert set(types.values()) == {TensorProto.FLOAT, TensorProto.INT64}


@multi_label
def test_tensorrt_8_6_is_given_the_same_ones(multi_label: bool) -> None:
    model, spec = with_candidates(conversions.digits(), multi_label=multi_label)
    images = conversions.noise(spec, 2)
    expected, _ = run(model, images)
    assert lower(model, "net.onnx")
    assert run(model, images)[0].tobytes() == expected.tobytes()


def test_they_are_given_once_and_can_be_taken_away(tmp_path: Path) -> None:
    found = conversions.small_detector(tmp_path)
    before = found.model.SerializeToString(deterministic=True)
    add_candidates(found.model, found.spec)
    once = found.model.SerializeToString(deterministic=True)
    add_candidates(found.model, found.spec)
    assert found.model.SerializeToString(deterministic=True) == once != before
    remove_candidates(found.model)
    assert found.model.SerializeToString(deterministic=True) == before


def test_a_classifier_has_none() -> None:
    model = ModelProto()
    add_candidates(model, ModelSpec(task=Task.CLASSIFY, labels=("a",), input_hw=(1, 1)))
    assert model == ModelProto()


def own(folder: Path, most: int | None = None, *, candidates: int = 20) -> Converted:
    """Convert a model of ours that gives so many candidates, once more."""
    found = conversions.small_detector(folder)
    spec = found.spec.model_copy(update={"candidates": candidates})
    path = conversions.write(found.model, spec, folder / "own.onnx")
    return convert(ConversionRequest(model=path, candidates=most))


@pytest.mark.parametrize(("asked", "given"), [(None, 20), (20, 20), (3, 3)])
def test_a_model_of_ours_gives_as_many_as_before_or_fewer(asked: int | None, given: int, tmp_path: Path) -> None:
    found = own(tmp_path, asked)
    assert [value.name for value in found.model.graph.output] == ["boxes", "scores"]
    assert found.spec.candidates == given
    written = onnx.load_model_from_string(serialised(found.model, found.spec))
    assert run(written, conversions.noise(found.spec, 2))[0].shape == (2, given, 6)
    assert parse_spec(written.metadata_props[0].value, tmp_path) == found.spec


def test_a_model_of_ours_has_no_more_to_give(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"--candidates 21: .* was converted with 20, .* Convert the original"):
        own(tmp_path, 21)


# -- the measure of all this -------------------------------------------------------------------------------------------


@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4), st.integers(1, 25), st.booleans(), st.integers(0, 99))
def test_they_are_the_best_pairs_of_all(
    batch: int, boxes: int, classes: int, most: int, multi_label: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    outputs = Outputs(
        random.normal(0, 99, (batch, boxes, 4)).astype(np.float32),
        (random.integers(0, 6, (batch, boxes, classes)) / 5).astype(np.float32),
    )
    labels = tuple(map(str, range(classes)))
    spec = ModelSpec(task=Task.DETECT, labels=labels, input_hw=(9, 9), multi_label=multi_label, candidates=most)
    assert outputs.boxes is not None
    for image, found in enumerate(candidates_from(outputs, spec)):
        scores = outputs.scores[image]
        pairs = [(row, class_id) for row in range(boxes) for class_id in range(classes)]
        if not multi_label:
            pairs = [(row, int(scores[row].argmax())) for row in range(boxes)]
        pairs.sort(key=lambda pair: -scores[pair])
        assert found.tolist() == [[*outputs.boxes[image, row], scores[row, c], c] for row, c in pairs[:most]]
