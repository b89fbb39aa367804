"""Detectors that say nothing of themselves: each family's outputs, written down by hand, and what must come of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from converters.onnx import graphs
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from trtjob.converters.artefact import Converted
from trtjob.converters.onnx.convert import convert
from trtjob.converters.onnx.families import FAMILIES
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import answer_of
from trtjob.engines.spec import NmsKind, ResizeMode
from trtjob.errors import ConversionError
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import Placement

HW = (64, 96)
PLACES = 96 + 24 + 6  # at strides of 8, 16 and 32
LABELS = ("cat", "dog", "cow")
IN_PLACE = Placement((0.0, 0.0), (1.0, 1.0))

# Class, score, and corners in pixels of the input.
FOUND = [(1, 0.9, (10.0, 20.0, 40.0, 60.0)), (0, 0.6, (50.0, 8.0, 90.0, 40.0))]
CORNERS = np.array([box for _, _, box in FOUND], np.float32)
SCORES = np.array([score for _, score, _ in FOUND], np.float32)
CLASSES = np.array([number for number, _, _ in FOUND])
SIDES = np.array([HW[1], HW[0], HW[1], HW[0]], np.float32)
CENTRES = np.concatenate([(CORNERS[:, :2] + CORNERS[:, 2:]) / 2, CORNERS[:, 2:] - CORNERS[:, :2]], 1)


@dataclass
class Case:
    """outputs: of one image, by name; beside: inputs beside the image, with their shapes."""

    family: str
    outputs: Mapping[str, NDArray[Any]]
    beside: Sequence[str] = ()
    image: str = "images"
    kind: int = TensorProto.FLOAT
    is_nhwc: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    documents: Mapping[str, Any] = field(default_factory=dict)
    operators: Sequence[str] = ()
    id: str = ""

    def model(self) -> ModelProto:
        shape = [1, *HW, 3] if self.is_nhwc else [1, 3, *HW]
        nodes = [
            graphs.node("Cast", self.image, "floats", to=TensorProto.FLOAT),
            graphs.node("ReduceMean", "floats", "mean", keepdims=0),
            graphs.node("Mul", "mean nothing", "zero"),  # so that all depends on the image
            *(graphs.node(operator, "mean", f"unused_{operator}") for operator in self.operators),
        ]
        constants = [graphs.constant("nothing", 0.0)]
        for number, (name, array) in enumerate(self.outputs.items()):
            constants.append(graphs.constant(f"value_{number}", array.astype(np.float32)))
            to = helper.np_dtype_to_tensor_dtype(array.dtype)
            scaled = f"value_{number}"
            if name == "boxes" and self.beside == ("orig_target_sizes",):  # as its postprocessor does
                constants += [graphs.constant("twice", [1, 1, 2], np.int64), graphs.constant("one", [1], np.int64)]
                nodes += [
                    graphs.node("Cast", "orig_target_sizes", "sizes", to=TensorProto.FLOAT),
                    graphs.node("Unsqueeze", "sizes one", "size"),
                    graphs.node("Tile", "size twice", "sides"),
                    graphs.node("Mul", f"{scaled} sides", "in_pixels"),
                ]
                scaled = "in_pixels"
            nodes += [
                graphs.node("Add", f"{scaled} zero", f"sum_{number}"),
                graphs.node("Cast", f"sum_{number}", name, to=to),
            ]
        inputs = [graphs.value(self.image, shape, self.kind)]
        for name in self.beside:
            is_size = name == "orig_target_sizes"
            inputs.append(graphs.value(name, [1, 2], TensorProto.INT64 if is_size else TensorProto.FLOAT))
            if not is_size:
                nodes.append(graphs.node("ReduceMean", name, f"unused_{name}", keepdims=0))
        outputs = [
            graphs.value(name, None, helper.np_dtype_to_tensor_dtype(array.dtype))
            for name, array in self.outputs.items()
        ]
        for value, array in zip(outputs, self.outputs.values(), strict=True):
            value.CopyFrom(graphs.value(value.name, list(array.shape), value.type.tensor_type.elem_type))
        return graphs.model(nodes, constants, inputs, outputs, metadata=dict(self.metadata))


def each(array: NDArray[Any]) -> NDArray[Any]:
    return array[None]


def grid(rows: NDArray[Any], count: int = PLACES) -> NDArray[np.float32]:
    """Return the rows among others, in which there is nothing."""
    every = np.zeros((count, rows.shape[1]), np.float32)
    every[[30, 100]] = rows
    return every


ONE_HOT = np.eye(3, dtype=np.float32)[CLASSES] * SCORES[:, None]
PLENTY = np.where(ONE_HOT > 0, np.log(np.maximum(ONE_HOT, 1e-9) / (1 - ONE_HOT)), -9).astype(np.float32)
# Of a softmax with "no object" last.
LOGITS = np.concatenate([np.where(ONE_HOT > 0, np.log(SCORES)[:, None], -20), np.log(1 - SCORES)[:, None]], 1)
OBJECT = np.concatenate([CENTRES, SCORES[:, None], np.eye(3)[CLASSES]], 1).astype(np.float32)


def raw_yolox() -> NDArray[np.float32]:
    """Return rows before the places and strides of their grids are counted in."""
    every = grid(OBJECT)
    places = [(x, y, stride) for stride in (8, 16, 32) for y in range(HW[0] // stride) for x in range(HW[1] // stride)]
    for row in (30, 100):
        x, y, stride = places[row]
        every[row, :2] = every[row, :2] / stride - (x, y)
        every[row, 2:4] = np.log(every[row, 2:4] / stride)
    return every


CASES = [
    Case(
        "rtdetr",
        {"labels": each(CLASSES), "boxes": each(CORNERS / SIDES), "scores": each(SCORES)},
        beside=("orig_target_sizes",),
    ),
    Case(
        "huggingface",
        {"logits": each(LOGITS), "pred_boxes": each(CENTRES / SIDES)},
        image="pixel_values",
        id="detr",
        options={"preprocess": "torch"},
    ),
    Case(
        "huggingface",
        {"logits": each(PLENTY), "pred_boxes": each(CENTRES / SIDES)},
        image="pixel_values",
        documents={
            "config.json": {"id2label": dict(enumerate(LABELS))},
            "preprocessor_config.json": {"do_normalize": False, "size": {"height": HW[0], "width": HW[1]}},
        },
        id="rt-detr",
    ),
    Case(
        "rfdetr", {"dets": each(CENTRES / SIDES), "labels": each(np.pad(PLENTY, ((0, 0), (0, 1)), constant_values=3))}
    ),
    Case(
        "mmdeploy",
        {"dets": each(np.concatenate([CORNERS, SCORES[:, None]], 1)), "labels": each(CLASSES)},
        options={"preprocess": "torch"},
    ),
    Case(
        "super-gradients",
        {
            "num_predictions": np.array([[2]]),
            "pred_boxes": each(CORNERS),
            "pred_scores": each(SCORES),
            "pred_classes": each(CLASSES),
        },
        kind=TensorProto.UINT8,
    ),
    Case(
        "super-gradients-flat",
        {
            "flat_predictions": np.concatenate(
                [np.zeros((2, 1)), CORNERS, SCORES[:, None], CLASSES[:, None]], 1
            ).astype("f")
        },
    ),
    Case(
        "tensorflow",
        {
            "detection_boxes:0": each((CORNERS / SIDES)[:, [1, 0, 3, 2]]),
            "detection_classes:0": each(CLASSES + 1).astype("f"),
            "detection_scores:0": each(SCORES),
            "num_detections:0": np.array([2.0], np.float32),
        },
        kind=TensorProto.UINT8,
        is_nhwc=True,
    ),
    Case(
        "azure",
        {"detected_boxes": each(CORNERS / SIDES), "detected_classes": each(CLASSES), "detected_scores": each(SCORES)},
        metadata={"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "NominalRange_0_255"},
    ),
    Case(
        "paddle",
        {
            "rows": np.concatenate([CLASSES[:, None], SCORES[:, None], CORNERS], 1).astype(np.float32),
            "count": np.array([2]),
        },
        beside=("im_shape", "scale_factor"),
        image="image",
    ),
    Case("torchvision", {"1": CORNERS, "2": SCORES, "3": CLASSES + 1}, image="input"),
    Case(
        "ultralytics-rtdetr",
        {"output0": each(np.concatenate([CENTRES / SIDES, SCORES[:, None], CLASSES[:, None]], 1).astype(np.float32))},
        metadata={"names": str(dict(enumerate(LABELS))), "task": "detect", "stride": "32", "head": "RTDETRDecoder"},
    ),
    Case(
        "ultralytics-rtdetr",
        {"output0": each(np.concatenate([CENTRES / SIDES, ONE_HOT], 1))},
        metadata={"names": str(dict(enumerate(LABELS))), "task": "detect", "description": "an RT-DETR"},
        id="all classes",
    ),
    Case("yolox", {"output": each(grid(OBJECT))}, operators=("Exp",), id="decoded"),
    Case("yolox", {"output": each(raw_yolox())}, id="raw"),
    Case(
        "yolov6", {"outputs": each(np.concatenate([grid(CENTRES), np.ones((PLACES, 1)), grid(ONE_HOT)], 1).astype("f"))}
    ),
    Case("yolo-grid", {"output": each(grid(OBJECT, 3 * PLACES))}, id="YOLOv7"),
    Case(
        "yolo-grid",
        {"output": each(grid(OBJECT, 3 * PLACES)), "345": np.zeros((1, 3, 8, 12, 8), np.float32)},
        id="YOLOv5 with its heads",
    ),
    Case("yolov8", {"output0": each(grid(np.concatenate([CENTRES, ONE_HOT], 1)).T)}),
    Case(
        "yolov10",
        {"output0": each(np.concatenate([CORNERS, SCORES[:, None], CLASSES[:, None]], 1).astype(np.float32))},
        options={"family": "yolov10"},
    ),
    Case(
        "yolov7-end2end",
        {
            "output": np.concatenate([np.zeros((2, 1)), CORNERS, CLASSES[:, None], SCORES[:, None]], 1).astype(
                np.float32
            )
        },
    ),
]


ANY = "boxes"
CASES += [
    Case(ANY, {"a": each(CORNERS), "b": each(ONE_HOT)}, options={"family": ANY}, id="corners"),
    Case(
        ANY,
        {"boxes": each(CENTRES / SIDES), "logits": each(np.pad(PLENTY, ((0, 0), (1, 0)), constant_values=-9))},
        options={"family": ANY, "boxes": "cxcywhn", "scores": "sigmoid", "background": 0},
        id="centres, logits, background first",
    ),
    Case(
        ANY,
        {"boxes": each((CORNERS / SIDES)[:, [1, 0, 3, 2]]), "logits": each(LOGITS)},
        options={"family": ANY, "boxes": "yxyxn", "scores": "softmax", "background": -1},
        id="y first, softmax, background last",
    ),
]


def converted(case: Case, folder: Path, labels: Sequence[str] = LABELS) -> Converted:
    for name, document in case.documents.items():
        (folder / name).write_text(json.dumps(document))
    if "config.json" not in case.documents and not case.metadata.get("names"):
        (folder / "net.names").write_text("\n".join(labels) + "\n")
    return convert(graphs.save(case.model(), folder / "net.onnx", **case.options))


def found_by(made: Converted, folder: Path) -> list[tuple[str, float, tuple[float, ...]]]:
    """Return label, score and corners of what a converted model finds, best first."""
    from trtjob.converters.artefact import serialised

    path = folder / "converted.onnx"
    path.write_bytes(serialised(made.model, made.spec))
    with open_engine(path, threads=1) as engine:
        answer = answer_of(engine, graphs.images(1, HW)[0])
    spec = made.spec
    found = detections_from(answer, IN_PLACE, spec, hw=HW, min_score=0.3, iou=spec.iou).detections
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


@pytest.mark.parametrize("case", CASES, ids=names_of(CASES))
def test_its_own_decoding_says_the_same(case: Case, tmp_path: Path) -> None:
    made = converted(case, tmp_path)
    assert made.reference is not None
    outputs = made.reference.run(graphs.images(2, HW))
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


@pytest.mark.parametrize(("coding", "boxes"), [(0, CORNERS), (1, CENTRES)], ids=["corners", "centres"])
def test_tensorrts_own_nms_is_replaced(coding: int, boxes: NDArray[Any], tmp_path: Path) -> None:
    case = Case("boxes", {"boxes": each(boxes.astype(np.float32)), "scores": each(ONE_HOT)})
    model = case.model()
    names = ["num_dets", "det_boxes", "det_scores", "det_classes"]
    node = helper.make_node(
        "EfficientNMS_TRT", ["boxes", "scores"], names, domain="TRT", box_coding=coding, score_activation=0
    )
    model.graph.node.append(node)
    model.opset_import.append(helper.make_opsetid("TRT", 1))
    del model.graph.output[:]
    model.graph.output.extend(graphs.value(name, None) for name in names)
    (tmp_path / "net.names").write_text("\n".join(LABELS) + "\n")
    made = convert(graphs.save(model, tmp_path / "net.onnx"))
    assert made.spec.nms_kind is NmsKind.DEFAULT
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
    with pytest.raises(ConversionError, match="labels"):
        converted(case, tmp_path, ["cat"])


def test_the_originals_files_are_left_as_they_were(tmp_path: Path) -> None:
    case = CASES[0]
    converted(case, tmp_path)
    assert onnx.load(tmp_path / "net.onnx") == case.model()
