"""Detectors that say nothing of themselves: each family's outputs, written down by hand, and what must come of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.onnx import graphs
from converters.onnx.family_cases import (
    CASES,
    CENTRES,
    CORNERS,
    HW,
    LABELS,
    OBJECT,
    ONE_HOT,
    PLACES,
    SCORES,
    SIDES,
    Case,
    each,
    grid,
    logit,
    raw_heads,
)
from numpy.typing import NDArray
from onnx import helper

from trtjob.converters.artefact import Converted
from trtjob.converters.onnx.convert import convert
from trtjob.converters.onnx.families import FAMILIES
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import answer_of
from trtjob.engines.spec import NmsKind, ResizeMode
from trtjob.errors import ConversionError
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import Placement

IN_PLACE = Placement((0.0, 0.0), (1.0, 1.0))


GIVEN = {
    8: ((11, 14), (17, 29), (30, 21)),
    16: ((29, 62), (60, 44), (55, 120)),
    32: ((110, 91), (150, 190), (370, 320)),
}


def numbers(anchors: Mapping[int, Sequence[Sequence[float]]]) -> tuple[float, ...]:
    return tuple(float(side) for sizes in anchors.values() for size in sizes for side in size)


def heads_of(anchors: Mapping[int, Sequence[tuple[float, float]]]) -> dict[str, NDArray[Any]]:
    """Return heads, the coarsest first, of a YOLOv5 whose anchors were chosen anew."""
    reach = dict.fromkeys(anchors, 2.0)
    heads = raw_heads(HW, anchors, reach=reach, size=lambda share: logit(np.sqrt(share) / 2))
    return {f"head{number}": each(head).astype("f") for number, head in reversed(list(enumerate(heads)))}


def converted(case: Case, folder: Path, labels: Sequence[str] = LABELS, opset: int = 17) -> Converted:
    for name, document in case.documents.items():
        (folder / name).write_text(json.dumps(document))
    if "config.json" not in case.documents and not case.metadata.get("names"):
        (folder / "net.names").write_text("\n".join(labels) + "\n")
    return convert(graphs.save(case.model(opset), folder / "net.onnx", **case.options))


def found_by(made: Converted, folder: Path) -> list[tuple[str, float, tuple[float, ...]]]:
    """Return label, score and corners of what a converted model finds, best first."""
    from trtjob.converters.artefact import serialised

    path = folder / "converted.onnx"
    path.write_bytes(serialised(made.model, made.spec))
    spec = made.spec
    with open_engine(path, threads=1) as engine:
        answer = answer_of(engine, graphs.images(1, spec.input_hw)[0])
    found = detections_from(answer, IN_PLACE, spec, hw=spec.input_hw, min_score=0.3, iou=spec.iou).detections
    return [(spec.labels[item.class_id], item.score, item.box) for item in found]


def names_of(cases: Sequence[Case]) -> list[str]:
    return [f"{case.family} {case.id}".strip() for case in cases]


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_a_family_is_recognised_and_read_right(case: Case, tmp_path: Path) -> None:
    made = converted(case, tmp_path)
    assert any(f"(--family {case.family})" in note for note in made.notes)
    found = found_by(made, tmp_path)
    assert [label for label, _, _ in found] == ["dog", "cat"]
    np.testing.assert_allclose([score for _, score, _ in found], SCORES, atol=2e-3)
    np.testing.assert_allclose([box for _, _, box in found], CORNERS, atol=0.05)


@pytest.mark.parametrize("name", ["mmdeploy", "paddle", "rfdetr", "yolov2", "yolov3"])
def test_a_family_is_read_right_of_an_older_opset(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == name)
    found = found_by(converted(case, tmp_path, opset=11), tmp_path)
    np.testing.assert_allclose([box for _, _, box in found], CORNERS, atol=0.05)


def test_what_is_filled_in_need_not_be_an_input_where_weights_are_inputs(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "yolov3")
    old = case.model(opset=10)
    old.ir_version = 3
    old.graph.input.extend(
        graphs.value(tensor.name, list(tensor.dims), tensor.data_type) for tensor in old.graph.initializer
    )
    (tmp_path / "net.names").write_text("\n".join(LABELS) + "\n")
    found = found_by(convert(graphs.save(old, tmp_path / "net.onnx")), tmp_path)
    np.testing.assert_allclose([box for _, _, box in found], CORNERS, atol=0.05)


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_its_own_decoding_says_the_same(case: Case, tmp_path: Path) -> None:
    made = converted(case, tmp_path)
    assert made.reference is not None
    outputs = made.reference.run(graphs.images(2, case.hw))
    assert outputs.boxes is not None
    best = outputs.scores.max(2)
    rows = np.argsort(-best[1], kind="stable")[:2]
    np.testing.assert_allclose(best[1][rows], SCORES, atol=2e-3)
    np.testing.assert_allclose(outputs.boxes[1][rows], CORNERS, atol=0.05)


def test_every_family_has_a_case() -> None:
    assert {case.family for case in CASES} == {family.name for family in FAMILIES}


@pytest.mark.parametrize("name", ["torchvision", "tensorflow"])
def test_the_background_may_be_named_or_not(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == name)
    made = converted(case, tmp_path, ["__background__", *LABELS])
    assert made.spec.labels == LABELS
    assert [label for label, _, _ in found_by(made, tmp_path)] == ["dog", "cat"]


@pytest.mark.parametrize("opset", [11, 17])
def test_an_image_alone_as_torchvision_traces_it_is_taken_in_a_batch(opset: int, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "torchvision")
    model = case.model(opset)
    del model.graph.input[0].type.tensor_type.shape.dim[0]
    (tmp_path / "net.names").write_text("\n".join(LABELS) + "\n")
    for asked in (None, "input"):
        made = convert(graphs.save(model, tmp_path / "net.onnx", input=asked))
        np.testing.assert_allclose([box for _, _, box in found_by(made, tmp_path)], CORNERS, atol=0.05)


def test_of_yolov7_with_one_class_the_objectness_is_the_score(tmp_path: Path) -> None:
    """Its class is not trained, and gives any number."""
    rows = np.concatenate([CENTRES, SCORES[:, None], np.full((2, 1), 0.5)], 1).astype(np.float32)
    of_one = {8: GIVEN[8], 16: GIVEN[16]}
    heads = [np.delete(head, [6, 7], axis=-1) for head in heads_of(of_one).values()]
    for head in heads:
        head[..., 5] = 0
    cases = (
        Case("yolo-grid", {"output": each(grid(rows, 3 * PLACES))}),
        Case("yolov7-heads", dict(zip("ab", heads, strict=True)), options={"anchors": numbers(of_one)}),
    )
    for case in cases:
        made = converted(case, tmp_path, ["dog"])
        found = found_by(made, tmp_path)
        np.testing.assert_allclose([score for _, score, _ in found], SCORES, atol=2e-3)
        np.testing.assert_allclose([box for _, _, box in found], CORNERS, atol=0.05)
        assert made.reference is not None
        answers = made.reference.run(graphs.images(1, HW)).scores
        np.testing.assert_allclose(np.sort(answers.reshape(-1))[:-3:-1], SCORES, atol=2e-3)


def test_of_yolov5_with_one_class_both_count(tmp_path: Path) -> None:
    rows = np.concatenate([CENTRES, SCORES[:, None], np.full((2, 1), 0.8)], 1).astype(np.float32)
    heads = {"345": np.zeros((1, 3, 8, 12, 6), np.float32)}
    made = converted(Case("yolo-grid", {"output": each(grid(rows, 3 * PLACES)), **heads}), tmp_path, ["dog"])
    np.testing.assert_allclose([score for _, score, _ in found_by(made, tmp_path)], SCORES * 0.8, atol=2e-3)


@pytest.mark.parametrize("name", ["paddle", "super-gradients-flat", "tensorflow", "torchvision", "yolox"])
def test_outputs_of_float16_are_read(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == name)
    half = {key: array.astype(np.float16) if array.dtype.kind == "f" else array for key, array in case.outputs.items()}
    made = converted(replace(case, outputs=half), tmp_path)
    np.testing.assert_allclose([box for _, _, box in found_by(made, tmp_path)], CORNERS, atol=0.1)


CHANGED = ["azure", "huggingface", "mmdeploy", "rtdetr", "yolo-grid"]


@pytest.mark.parametrize("name", CHANGED)
def test_outputs_of_other_names_and_in_another_order_are_known_by_their_kinds(name: str, tmp_path: Path) -> None:
    case = [case for case in CASES if case.family == name][-1]
    outputs = {f"value{number}": array for number, array in enumerate(reversed([*case.outputs.values()]))}
    if name == "rtdetr":  # whose boxes its graph multiplies by their name
        outputs["value1"] = outputs["value1"] * SIDES
    made = converted(replace(case, outputs=outputs), tmp_path)
    assert any(f"(--family {name})" in note for note in made.notes)
    np.testing.assert_allclose([box for _, _, box in found_by(made, tmp_path)], CORNERS, atol=0.05)


@pytest.mark.parametrize("name", ["rtdetr", "super-gradients", "tensorflow", "yolov6-end2end"])
def test_outputs_of_other_names_that_several_families_have_need_one(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == name)
    outputs = dict(zip("abcd", case.outputs.values(), strict=False))
    if name == "rtdetr":  # without its second input
        outputs["b"] = outputs["b"] * SIDES
    unknown = replace(case, outputs=outputs, beside=())
    with pytest.raises(ConversionError, match=f"It may be .*--family {name} "):
        converted(unknown, tmp_path)
    made = converted(replace(unknown, options={"family": name}), tmp_path)
    np.testing.assert_allclose([box for _, _, box in found_by(made, tmp_path)], CORNERS, atol=0.05)


def test_what_is_final_is_not_suppressed_again(tmp_path: Path) -> None:
    by_name = {case.family: case for case in CASES}
    for name, kind in (("rtdetr", NmsKind.NONE), ("yolox", NmsKind.DEFAULT)):
        folder = tmp_path / name
        folder.mkdir()
        assert converted(by_name[name], folder).spec.nms_kind is kind


def test_images_come_to_yolox_as_its_own_tools_bring_them(tmp_path: Path) -> None:
    spec = converted(next(case for case in CASES if case.family == "yolox"), tmp_path).spec
    assert (spec.resize, spec.color, spec.pad_value) == (ResizeMode.CORNER, "bgr", 114)


def test_a_graph_that_could_be_of_several_families_is_refused_with_their_names(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "yolov10")
    case = Case(case.family, case.outputs)
    with pytest.raises(ConversionError, match=r"may be .*--family paddle .* or --family yolov10 .*--labels FILE"):
        converted(case, tmp_path)


@pytest.mark.parametrize(
    ("name", "classes"), [("yolov2", 80), ("tiny-yolov2", 20), ("yolov4", 80)], ids=["YOLOv2", "Tiny YOLOv2", "YOLOv4"]
)
def test_a_file_of_the_model_zoo_needs_no_family(name: str, classes: int, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == name)
    more = classes - len(LABELS)
    if name == "yolov4":
        outputs = {key: np.pad(head, [(0, 0)] * 4 + [(0, more)]) for key, head in case.outputs.items()}
    else:
        ((key, head),) = case.outputs.items()
        apart = head.reshape(1, 5, -1, *head.shape[2:])
        padded = np.pad(apart, [(0, 0), (0, 0), (0, more), (0, 0), (0, 0)], constant_values=-20)
        outputs = {key: padded.reshape(1, -1, *head.shape[2:])}
    made = converted(replace(case, outputs=outputs, options={}), tmp_path, [f"class {n}" for n in range(classes)])
    assert any(f"(--family {name})" in note for note in made.notes)
    assert not made.warnings


def test_heads_whose_anchors_are_not_known_are_refused_with_the_families_that_have_some(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "yolov5-heads")
    with pytest.raises(
        ConversionError,
        match=r"be --family yolov5-heads .* --family yolov7-heads .* Say it, .* with --anchors",
    ):
        converted(replace(case, options={}), tmp_path)


@pytest.mark.parametrize("options", [{}, {"family": "yolov5-heads"}, {"family": "yolov7-heads"}], ids=str)
@pytest.mark.parametrize("strides", [(8, 16, 32), (8, 16)], ids=["three heads", "two"])
def test_anchors_that_training_has_chosen_are_given(
    options: dict[str, Any], strides: Sequence[int], tmp_path: Path
) -> None:
    anchors = {stride: GIVEN[stride] for stride in strides}
    case = Case("yolov5-heads", heads_of(anchors), options={**options, "anchors": numbers(anchors)})
    made = converted(case, tmp_path)
    assert not made.warnings
    np.testing.assert_allclose([box for _, _, box in found_by(made, tmp_path)], CORNERS, atol=0.05)
    assert made.reference is not None
    outputs = made.reference.run(graphs.images(1, HW))
    assert outputs.boxes is not None
    best = np.argsort(-outputs.scores.max(2)[0], kind="stable")[:2]
    np.testing.assert_allclose(outputs.boxes[0][best], CORNERS, atol=0.05)


def test_anchors_of_yolov2_are_in_cells_and_as_many_as_there_are(tmp_path: Path) -> None:
    cells = ((0.5, 0.7), (0.9, 1.2), (1.3, 1.0))
    in_pixels = {32: tuple((32 * width, 32 * height) for width, height in cells)}
    (head,) = raw_heads(HW, in_pixels, reach={32: 1.0}, classes=lambda x: np.log(np.maximum(x, 1e-9)))
    flat = head.transpose(0, 3, 1, 2).reshape(1, -1, HW[0] // 32, HW[1] // 32)
    options = {"family": "yolov2", "anchors": numbers({32: cells})}
    made = converted(Case("yolov2", {"grid": flat.astype("f")}, options=options), tmp_path)
    np.testing.assert_allclose([box for _, _, box in found_by(made, tmp_path)], CORNERS, atol=0.05)


def test_anchors_that_were_published_are_a_warning_where_training_may_have_chosen_others(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "yolov5-heads")
    (warning,) = converted(case, tmp_path).warnings
    assert "give them with --anchors" in warning


@pytest.mark.parametrize(
    ("family", "anchors", "message"),
    [
        (None, (10.0, 13.0), r"--anchors: 2 numbers, .* 3 heads have 9 anchors: expected 18, a width and a height"),
        ("yolov7-heads", (1.0,) * 17, "--anchors: 17 numbers"),
        ("rtdetr", (1.0,) * 18, r"whose heads are not decoded, but RT-DETR .* has none\. Leave it out"),
    ],
    ids=["too few", "odd", "another family"],
)
def test_anchors_that_do_not_fit_are_refused(
    family: str | None, anchors: tuple[float, ...], message: str, tmp_path: Path
) -> None:
    case = Case("yolov5-heads", heads_of(GIVEN), options={"family": family, "anchors": anchors})
    with pytest.raises(ConversionError, match=message):
        converted(case, tmp_path)


def test_an_image_in_which_yolov3_finds_nothing_has_no_boxes(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "yolov3")
    nothing = {**case.outputs, "chosen": np.zeros((1, 0, 3), np.int32)}
    made = converted(replace(case, outputs=nothing), tmp_path)
    assert found_by(made, tmp_path) == []
    assert made.reference is not None
    assert not made.reference.run(graphs.images(1, case.hw)).scores.any()


@pytest.mark.parametrize("name", ["mmdeploy", "rfdetr", "torchvision"])
def test_masks_are_left_out_and_that_is_said(name: str, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == name)
    masks = np.zeros((2, 1, 8, 8) if name == "torchvision" else (1, 2, 8, 8), np.float32)
    made = converted(replace(case, outputs={**case.outputs, "masks": masks}), tmp_path)
    assert "It says more of each box, which is left out: 'masks'." in made.notes
    assert [label for label, _, _ in found_by(made, tmp_path)] == ["dog", "cat"]


def test_keypoints_are_left_out_and_that_is_said(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "torchvision")
    beside = {"keypoints": np.zeros((2, 17, 3), np.float32), "5": np.zeros((2, 17), np.float32)}
    made = converted(replace(case, outputs={**case.outputs, **beside}), tmp_path)
    assert "It says more of each box, which is left out: 'keypoints'." in made.notes


@pytest.mark.parametrize(("coding", "boxes"), [(0, CORNERS), (1, CENTRES)], ids=["corners", "centres"])
def test_tensorrts_own_nms_is_replaced(coding: int, boxes: NDArray[Any], tmp_path: Path) -> None:
    case = Case("boxes", {"boxes": each(boxes.astype(np.float32)), "scores": each(ONE_HOT)})
    model = case.model()
    names = ["num_dets", "det_boxes", "det_scores", "det_classes"]
    node = helper.make_node(
        "EfficientNMS_TRT",
        ["boxes", "scores"],
        names,
        domain="TRT",
        box_coding=coding,
        score_activation=0,
        iou_threshold=0.6,
    )
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("TRT", 1))
    del model.graph.output[:]
    model.graph.output.extend(graphs.value(name, None) for name in names)
    (tmp_path / "net.names").write_text("\n".join(LABELS) + "\n")
    made = convert(graphs.save(model, tmp_path / "net.onnx"))
    assert (made.spec.nms_kind, made.spec.iou) == (NmsKind.DEFAULT, 0.6)
    assert any("EfficientNMS_TRT at its end is taken off" in note for note in made.notes)
    found = found_by(made, tmp_path)
    assert [label for label, _, _ in found] == ["dog", "cat"]
    np.testing.assert_allclose([box for _, _, box in found], CORNERS, atol=0.05)


@pytest.mark.parametrize(("option", "value"), [("boxes", "xyxy"), ("background", 0)])
def test_what_describes_any_boxes_is_for_that_family_alone(option: str, value: Any, tmp_path: Path) -> None:
    case = Case("yolox", {"output": each(grid(OBJECT))}, options={option: value}, operators=("Exp",))
    with pytest.raises(ConversionError, match=f"--{option} is for --family boxes, which is not asked for"):
        converted(case, tmp_path)


def test_a_size_that_a_graph_does_not_take_is_refused(tmp_path: Path) -> None:
    case = Case("yolox", {"output": each(grid(OBJECT))}, options={"size": (320, 320)}, operators=("Exp",))
    with pytest.raises(ConversionError, match="takes images of 96x64 pixels and no others, but --size is 320x320"):
        converted(case, tmp_path)


def test_a_family_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    case = Case("x", {"output": each(grid(OBJECT))}, options={"family": "rtdetr"})
    with pytest.raises(ConversionError, match=r"--family rtdetr: .* does not fit: expected 'labels' int64.*'output'"):
        converted(case, tmp_path)


def test_a_family_that_nobody_knows_is_refused_with_those_that_are_known(tmp_path: Path) -> None:
    case = Case("x", {"output": each(grid(OBJECT))}, options={"family": "yolov99"})
    with pytest.raises(ConversionError, match=r"there is no such family. Known are .*rtdetr.*yolox"):
        converted(case, tmp_path)


def test_pixels_that_differ_within_a_family_have_to_be_said(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.family == "mmdeploy")
    with pytest.raises(ConversionError, match=r"mmdetection.*It needs --labels, .*--preprocess torch"):
        converted(Case(case.family, case.outputs), tmp_path)


def test_labels_that_are_too_few_are_refused(tmp_path: Path) -> None:
    case = Case("yolox", {"output": each(grid(OBJECT))}, options={"family": "yolox"}, operators=("Exp",))
    for asked in ({}, {"family": "yolox"}):
        with pytest.raises(
            ConversionError, match=r"\(--family yolox\), gives scores of 3 classes, .* there are 1 labels"
        ):
            converted(replace(case, options=asked), tmp_path, ["cat"])


def test_the_originals_files_are_left_as_they_were(tmp_path: Path) -> None:
    case = CASES[0]
    converted(case, tmp_path)
    assert onnx.load(tmp_path / "net.onnx") == case.model()
