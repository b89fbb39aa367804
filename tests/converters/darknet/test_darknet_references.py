"""Parity with Darknet itself: with what it found, and with its own values where they leave the network.

The references are beside the checkout, not in it. They are files of Darknet's results, so nothing but trtjob runs here.
"""

import importlib.util
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from converters.darknet.networks import onnx_from_darknet, sigmoid
from numpy.typing import NDArray
from onnx import TensorProto, helper

from trtjob.converters.artefact import Converted
from trtjob.converters.darknet.cfg import Section, read_cfg
from trtjob.converters.darknet.convert import convert
from trtjob.converters.request import ConversionRequest
from trtjob.engines.candidates import candidates_from
from trtjob.engines.onnxruntime.cpu import open_engine
from trtjob.engines.protocol import Engine, FloatArray, Outputs, UInt8Array, answer_of
from trtjob.engines.spec import BOXES_NAME, INPUT_NAME, SCORES_NAME, ResizeMode, load_spec
from trtjob.imaging.boxes import clip, iou_matrix
from trtjob.imaging.decode import decode_image
from trtjob.imaging.detections import Detection
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import Placement, prepare

pytestmark = pytest.mark.slow

DETECTORS = [
    "enet-coco",
    "yolov2-tiny",
    "yolov3-tiny",
    "yolov4-csp",
    "yolov4-tiny",
    "yolov7-tiny",
    # Large, of the same layers:
    *(
        pytest.param(name, marks=pytest.mark.chaos)
        for name in ("csresnext50-panet-spp", "yolov3", "yolov3-spp", "yolov4")
    ),
]
CLASSIFIERS = ["cifar", "darknet19", "efficientnet_b0", "resnet50", "tiny"]
MIN_IOU = 0.99
# These have `new_coords`: a side is (2 t)^2 times the anchor's, so that where it is a fraction of a pixel, 4e-5 of t,
# which is within what values may differ, are a hundredth of it.
MIN_IOU_OF = {"yolov4-csp": 0.975, "yolov7-tiny": 0.985}
# A record has a tenth of a pixel, too coarse to compare small boxes: the image is this much larger than the input.
ENLARGED = 100


@dataclass(frozen=True, slots=True)
class Boxes:
    """Detections of one image: float32 [N, 4] xyxy, [N], [N]."""

    xyxy: FloatArray
    scores: FloatArray
    class_ids: NDArray[np.intp]

    @classmethod
    def of(cls, detections: tuple[Detection, ...]) -> "Boxes":
        return cls(
            np.array([d.box for d in detections], np.float32).reshape(-1, 4),
            np.array([d.score for d in detections], np.float32),
            np.array([d.class_id for d in detections], np.intp),
        )


@dataclass(frozen=True, slots=True)
class Values:
    """Samples of a head's values: Darknet's, and ours."""

    layer: int
    darknet: FloatArray
    ours: FloatArray


@dataclass(frozen=True, slots=True)
class Reference:
    name: str
    threshold: float
    darknet: Boxes
    ours: Boxes
    values: list[Values]


@pytest.fixture(scope="session")
def references(shared: Path) -> dict[str, Reference]:
    """What was compared already, by model: the tests come in random order, and each model takes seconds."""
    return {}


@pytest.fixture(params=DETECTORS)
def reference(request: pytest.FixtureRequest, shared: Path, references: dict[str, Reference]) -> Reference:
    name: str = request.param
    if name not in references:
        references[name] = compared(shared / "darknet", name)
    return references[name]


def compared(source: Path, name: str) -> Reference:
    """Convert a reference's model, and run the result on the reference's image."""
    data = np.load(source / f"{name}.npz")
    sections = read_cfg(source / "cfg" / f"{name}.cfg")[1:]
    converted = convert_reference(source, name, data, data["boxes"].shape[1] - 5)
    model, spec = converted.model, converted.spec
    layers = [int(key[4:7]) for key in data.files if key.startswith("out_") and key.endswith("_index")]
    # A head's own values are decoded in another order than Darknet's: what it reads is what can be compared.
    boxes, scores, *raw = run(model, [BOXES_NAME, SCORES_NAME, *(last_of(model, i - 1) for i in layers)], data)
    threshold = float(data["thresh"])
    # As if the input were in the middle of a larger image: of a box that is cut, only a sliver might be left.
    height, width = spec.input_hw
    hw = (3 * height * ENLARGED, 3 * width * ENLARGED)
    found, _ = detections_from(
        candidates_from(Outputs(boxes[None], scores[None]), spec)[0],
        Placement((-float(width), -float(height)), (ENLARGED, ENLARGED)),
        spec,
        hw=hw,
        min_score=threshold,
        iou=float(data["nms"]),
    )
    values = [
        Values(
            layer,
            darknet=data[f"out_{layer:03d}_{sections[layer].kind}_value"],
            ours=ACTIVATED[sections[layer].kind](output, sections[layer]).ravel()[
                data[f"out_{layer:03d}_{sections[layer].kind}_index"]
            ],
        )
        for layer, output in zip(layers, raw, strict=True)
    ]
    return Reference(name, threshold, darknets_boxes(data, hw), Boxes.of(found), values)


def convert_reference(source: Path, name: str, data: Any, classes: int) -> Converted:
    # Up to 250 MB of weights: gone as soon as they are read.
    with tempfile.TemporaryDirectory(prefix="trtjob-test-") as folder:
        weights, labels = Path(folder) / "a.weights", Path(folder) / "a.names"
        weights_builder(source).build(source / f"{name}.npz", weights)
        labels.write_text("".join(f"class {number}\n" for number in range(classes)))
        return convert(ConversionRequest(model=weights, cfg=source / "cfg" / f"{name}.cfg", labels=labels))


def last_of(model: onnx.ModelProto, layer: int) -> str:
    """Return the name of a layer's output: nodes are named after their layer."""
    return [str(node.output[0]) for node in model.graph.node if node.name.startswith(f"{layer:03d}_")][-1]


def run(model: onnx.ModelProto, names: list[str], data: Any) -> list[FloatArray]:
    """Return a model's values, by name, of a reference's image."""
    known = {output.name for output in model.graph.output}
    inside = dict.fromkeys(name for name in names if name not in known)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inside)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = np.asarray(cv2.imdecode(data["png"], cv2.IMREAD_COLOR_RGB), np.uint8)
    return [output[0] for output in session.run(names, {INPUT_NAME: image[None]})]


def weights_builder(source: Path) -> Any:
    """Return the reference's own script as a module."""
    spec = importlib.util.spec_from_file_location("build_weights", source / "build_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def darknets_boxes(data: Any, hw: tuple[int, int]) -> Boxes:
    """Return the reference's detections where ours are, in the middle of an image of three times the input's size."""
    rows: FloatArray = data["boxes"]
    places, class_ids = np.nonzero(rows[:, 5:] > float(data["thresh"]))
    centres, halves = rows[places, :2], rows[places, 2:4] / 2
    shares = np.concatenate([centres - halves, centres + halves], 1) + 1
    xyxy = np.asarray(shares / 3 * np.array([*hw[::-1]] * 2), np.float32)
    return Boxes(clip(xyxy, hw), rows[places, 5 + class_ids], class_ids)


def activated_yolo(raw: FloatArray, section: Section) -> FloatArray:
    """Apply what Darknet does inside a [yolo] layer (forward_yolo_layer): we do so after the candidates are chosen."""
    values = by_anchor(raw, len(section.integers("mask")))
    if not section.integer("new_coords", 0):
        values[:, :2], values[:, 4:] = sigmoid(values[:, :2]), sigmoid(values[:, 4:])
    scale = section.number("scale_x_y", 1.0)
    values[:, :2] = values[:, :2] * scale - 0.5 * (scale - 1)
    return np.asarray(values, np.float32)


def activated_region(raw: FloatArray, section: Section) -> FloatArray:
    """Apply what Darknet does inside a [region] layer (forward_region_layer), which puts a box's values together."""
    values = by_anchor(raw, section.integer("num", 1))
    values[:, 4] = sigmoid(values[:, 4])
    powers = np.exp(values[:, 5:] - values[:, 5:].max(1, keepdims=True))
    values[:, 5:] = powers / powers.sum(1, keepdims=True)
    return np.asarray(values.transpose(2, 3, 0, 1), np.float32)


def by_anchor(raw: FloatArray, anchors: int) -> NDArray[np.float64]:
    return raw.reshape(anchors, -1, *raw.shape[1:]).astype(np.float64)


ACTIVATED = {"yolo": activated_yolo, "region": activated_region}


def matches(a: Boxes, b: Boxes, *, iou: float, score: float) -> NDArray[np.bool_]:
    """Tell which detections of `a` are in `b`, too: of the same class, in the same place, with the same score."""
    if not len(a.scores) or not len(b.scores):
        return np.zeros(len(a.scores), bool)
    same = (
        (a.class_ids[:, None] == b.class_ids[None])
        & (iou_matrix(a.xyxy, b.xyxy) >= iou)
        & (np.abs(a.scores[:, None] - b.scores[None]) <= score)
    )
    return np.asarray(same.any(1), np.bool_)


def test_every_detection_of_darknet_is_found_and_no_other(reference: Reference) -> None:
    darknet, ours = reference.darknet, reference.ours
    iou = MIN_IOU_OF.get(reference.name, MIN_IOU)
    missing, extra = (~matches(a, b, iou=iou, score=2e-3) for a, b in ((darknet, ours), (ours, darknet)))
    # A score beside the threshold may fall either way.
    missing &= np.abs(darknet.scores - reference.threshold) > 2e-3
    extra &= np.abs(ours.scores - reference.threshold) > 2e-3
    # One in fifty may differ, where an overlap sits on the threshold of the suppression.
    assert len(darknet.scores) >= 100
    assert max(missing.sum(), extra.sum()) <= len(darknet.scores) // 50


def test_the_values_of_the_last_layers_are_darknets(reference: Reference) -> None:
    differences = {
        values.layer: float(np.abs(values.ours - values.darknet).max() / np.abs(values.darknet).max())
        for values in reference.values
    }
    assert differences
    assert {layer: difference for layer, difference in differences.items() if difference > 1e-3} == {}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_probabilities_of_a_classifier_are_darknets(shared: Path, name: str) -> None:
    source = shared / "darknet"
    data = np.load(source / f"{name}.npz")
    model = convert_reference(source, name, data, data["probs"].size).model
    (layer,) = (int(key[4:7]) for key in data.files if key.startswith("out_") and key.endswith("_index"))
    scores, last = run(model, [SCORES_NAME, last_of(model, layer)], data)
    key = f"out_{layer:03d}_softmax"
    for darknets, ours in ((data["probs"], scores), (data[f"{key}_value"], last.ravel()[data[f"{key}_index"]])):
        assert np.abs(ours - darknets).max() <= 1e-4 * np.abs(darknets).max()


@pytest.fixture(scope="session")
def official(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official YOLOv3-tiny, converted."""
    path = tmp_path_factory.mktemp("official") / "yolov3-tiny.onnx"
    onnx_from_darknet(shared / "models" / "yolov3-tiny.weights", path, labels=shared / "models" / "coco.names")
    return path


@pytest.mark.parametrize("mode", [ResizeMode.STRETCH, ResizeMode.LETTERBOX])
def test_photographs_have_darknets_detections(shared: Path, official: Path, mode: ResizeMode) -> None:
    document = json.loads((shared / "darknet" / "yolov3-tiny-coco.json").read_text())
    missing = []
    with open_engine(official) as engine:
        for name, by_mode in document.items():
            expected = [item for item in by_mode[mode.value] if item["score"] >= 0.15]
            image = decode_image((shared / "images" / name).read_bytes(), max_pixels=10**9)
            found = Boxes.of(detected(engine, image, mode))
            there = matches(boxes_of(expected, image.shape[:2]), found, iou=0.95, score=0.03)
            missing += [(name, item) for item, is_there in zip(expected, there, strict=True) if not is_there]
    assert missing == []


def test_classes_have_the_names_that_darknet_gives_them(shared: Path, official: Path) -> None:
    document = json.loads((shared / "darknet" / "yolov3-tiny-coco.json").read_text())
    named = {
        (item["class_id"], item["label"]) for modes in document.values() for mode in modes.values() for item in mode
    }
    assert len(named) >= 5
    assert named <= set(enumerate(load_spec(official).labels))


def detected(engine: Engine, image: UInt8Array, mode: ResizeMode) -> tuple[Detection, ...]:
    """Return an image's detections as a worker makes them."""
    spec = engine.spec
    tensor, placement = prepare(image, spec, mode)
    hw = (image.shape[0], image.shape[1])
    return detections_from(
        answer_of(engine, tensor), placement, spec, hw=hw, min_score=spec.min_score, iou=spec.iou
    ).detections


def boxes_of(items: list[dict[str, Any]], hw: tuple[int, ...]) -> Boxes:
    """Return Darknet's detections, clipped to the image as ours are."""
    return Boxes(
        clip(np.array([item["box"] for item in items], np.float32).reshape(-1, 4), (hw[0], hw[1])),
        np.array([item["score"] for item in items], np.float32),
        np.array([item["class_id"] for item in items], np.intp),
    )
