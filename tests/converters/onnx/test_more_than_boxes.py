"""Exports for segmentation, poses and rotated boxes: what is behind each box, in every form in which it is exported."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.onnx import graphs
from numpy.typing import NDArray

from trtjob.converters.artefact import Converted, serialised
from trtjob.converters.onnx.convert import convert
from trtjob.converters.onnx.keypoints import COCO, COCO_SKELETON
from trtjob.converters.precision.lower import lowered
from trtjob.engines.answers import answers_from
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import Outputs, UInt8Array, answer_of
from trtjob.engines.spec import ModelSpec, NmsKind
from trtjob.errors import ConversionError

CLASSES = len(graphs.NAMES)
PROTOTYPES = 8
KINDS: dict[str, dict[str, str]] = {
    "segment": {},
    "pose": {"kpt_shape": "[2, 3]"},
    "obb": {},
}
EXTRAS = {"segment": PROTOTYPES, "pose": 6, "obb": 1}

every_kind = pytest.mark.parametrize("kind", KINDS)


def exported(kind: str, layout: str = "columns", **options: Any) -> onnx.ModelProto:
    if layout == "objectness":
        metadata = graphs.YOLOV5
    else:
        metadata = {**graphs.ULTRALYTICS, "task": kind, **KINDS[kind], "end2end": str(layout == "final")}
    prototypes = PROTOTYPES if kind == "segment" else 0
    return graphs.detector(layout, metadata=metadata, extras=EXTRAS[kind], prototypes=prototypes, **options)


def converted(made: onnx.ModelProto, folder: Path) -> Converted:
    return convert(graphs.save(made, folder / "net.onnx"))


def expect_close(ours: Any, theirs: Any, atol: float = 1e-4) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol)


def outputs(found: Converted, folder: Path, pixels: UInt8Array) -> Outputs:
    """Run a whole batch; the engine's answers must follow from it."""
    path = folder / "converted.onnx"
    path.write_bytes(serialised(found.model, found.spec))
    with open_engine(path, threads=1) as engine:
        said = engine.infer(pixels)
        for image, answer in zip(pixels, answers_from(said, found.spec), strict=True):
            expect_close(answer_of(engine, image), answer)
        return said


def expected(kind: str, layout: str, pixels: UInt8Array) -> Outputs:
    """What the graph computes, and what that means, by hand, best first where the graph is cut there."""
    start = 5 if layout == "objectness" else 4
    values = graphs.detector_values(pixels, start + CLASSES + EXTRAS[kind])
    scores, extras = values[..., start : start + CLASSES], values[..., start + CLASSES :]
    if layout == "objectness":
        scores = scores * values[..., 4:5]
    boxes = values[..., :4]
    if layout != "final" or kind == "obb":
        half = boxes[..., 2:] / 2
        boxes = np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], 2)
    if layout == "final":
        scores = np.where(scores == scores.max(2, keepdims=True), scores, 0)
        order = np.arange(boxes.shape[1])[None, :, None]
    else:
        order = np.argsort(-scores.max(2), axis=1)[..., None]
    return Outputs(*(np.take_along_axis(part, order, 1).astype(np.float32) for part in (boxes, scores, extras)))


def prototypes(pixels: UInt8Array) -> NDArray[np.float64]:
    seen = pixels[:, ::4, ::4].astype(np.float64) / 255
    return np.asarray(np.einsum("nhwc,pc->nphw", seen, graphs.weights(PROTOTYPES, 3, 1, 1, seed=2)[:, :, 0, 0]))


@pytest.mark.parametrize("layout", ["columns", "final"])
@every_kind
def test_what_is_behind_a_box_comes_out_with_it(kind: str, layout: str, tmp_path: Path) -> None:
    pixels = graphs.images(3)
    found = converted(exported(kind, layout), tmp_path)
    said, wanted = outputs(found, tmp_path, pixels), expected(kind, layout, pixels)
    for ours, theirs in ((said.boxes, wanted.boxes), (said.scores, wanted.scores), (said.extras, wanted.extras)):
        expect_close(ours, theirs)
    if kind == "segment":
        expect_close(said.prototypes, prototypes(pixels))


def test_a_yolov5_for_segmentation_is_known_by_its_second_output(tmp_path: Path) -> None:
    pixels = graphs.images(2)
    found = converted(exported("segment", "objectness"), tmp_path)
    said, wanted = outputs(found, tmp_path, pixels), expected("segment", "objectness", pixels)
    assert found.spec.prototypes == (PROTOTYPES, 4, 6)
    expect_close(said.scores, wanted.scores)
    expect_close(said.extras, wanted.extras)
    expect_close(said.prototypes, prototypes(pixels))


@every_kind
def test_the_description_says_what_is_behind_a_box(kind: str, tmp_path: Path) -> None:
    spec = converted(exported(kind), tmp_path).spec
    assert spec.prototypes == ((PROTOTYPES, 4, 6) if kind == "segment" else None)
    assert spec.keypoints == (("keypoint_0", "keypoint_1") if kind == "pose" else ())
    assert spec.has_visibility == (kind == "pose")
    assert spec.is_rotated == (kind == "obb")
    assert spec.extras == EXTRAS[kind]
    assert spec.nms_kind is (NmsKind.PROBIOU if kind == "obb" else NmsKind.DEFAULT)
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_cocos_keypoints_have_their_names_and_lines(tmp_path: Path) -> None:
    metadata = {**graphs.ULTRALYTICS, "task": "pose", "kpt_shape": "[17, 2]"}
    spec = converted(graphs.detector(metadata=metadata, extras=34), tmp_path).spec
    assert spec.keypoints == COCO
    assert spec.skeleton == COCO_SKELETON
    assert not spec.has_visibility


def test_an_export_of_one_image_keeps_its_prototypes(tmp_path: Path) -> None:
    pixels = graphs.images(1)
    found = converted(exported("segment", batch=1, fixed_reshape=True), tmp_path)
    expect_close(outputs(found, tmp_path, pixels).prototypes, prototypes(pixels))


@every_kind
def test_the_original_is_read_as_the_converted_model_is(kind: str, tmp_path: Path) -> None:
    pixels = graphs.images(1)
    found = converted(exported(kind), tmp_path)
    assert found.reference is not None
    expect_close(
        answers_from(found.reference.run(pixels), found.spec),
        answers_from(outputs(found, tmp_path, pixels), found.spec),
    )


@every_kind
def test_fp16_keeps_what_is_behind_a_box(kind: str, tmp_path: Path) -> None:
    request, pixels = graphs.save(exported(kind), tmp_path / "net.onnx"), graphs.images(2)
    found = convert(request)
    low = lowered(found.model, request.model_copy(update={"precision": "fp16"}), pixels)
    said, wanted = outputs(Converted(low.model, found.spec, 1), tmp_path, pixels), outputs(found, tmp_path, pixels)
    expect_close(np.sort(np.asarray(said.extras), 1), np.sort(np.asarray(wanted.extras), 1), atol=0.05)
    if kind == "segment":
        expect_close(said.prototypes, wanted.prototypes, atol=0.05)


def test_prototypes_that_do_not_divide_the_input_are_refused(tmp_path: Path) -> None:
    made = exported("segment", hw=("h", "w"))
    request = graphs.save(made, tmp_path / "net.onnx", size=(24, 24))
    kernel = next(node for node in made.graph.node if node.output[0] == "output1")
    next(attribute for attribute in kernel.attribute if attribute.name == "strides").ints[:] = [5, 5]
    request = graphs.save(made, tmp_path / "net.onnx", size=(24, 24))
    with pytest.raises(ConversionError, match="prototypes of masks are 5x5, which does not divide 24x24"):
        convert(request)
