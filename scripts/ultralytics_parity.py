"""Compare our answers with Ultralytics' own `predict`, for whatever version of it is installed.

Run by hand, with an interpreter that has ultralytics, torch and our dependencies. Models are built from their names,
with random weights that are scaled until the heads find something; images are made up; nothing is downloaded. Prints
a table; exits with 1 where boxes differ by more than BOX_TOLERANCE pixels of the image, or scores by SCORE_TOLERANCE.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from trtjob.converters.artefact import serialised
from trtjob.converters.onnx.convert import convert
from trtjob.converters.onnx.ultralytics import PAD_VALUE
from trtjob.converters.request import ConversionRequest
from trtjob.engines.onnxruntime.cpu import CpuEngine, open_engine
from trtjob.engines.protocol import UInt8Array, answer_of
from trtjob.engines.spec import ModelSpec, ResizeMode, Task
from trtjob.imaging.boxes import iou_matrix
from trtjob.imaging.detections import Detection
from trtjob.imaging.postprocess import detections_from
from trtjob.imaging.resize import prepare

BOX_TOLERANCE, SCORE_TOLERANCE = 0.5, 1e-3
CONF, IOU = 0.25, 0.7
SLIVER = 0.1  # pixels: what is left of a box that lies outside of the image, which we drop
CLOSE_IOU = 0.02
FAR = 4.0  # tolerances between what can be the same detection
MOST_CLOSE_CALLS = 0.02  # of all detections
MOST = 1000  # detections of an image
DETECT_SIDE, CLASSIFY_SIDE = 320, 224
IMAGE_SIZES = ((480, 640), (640, 480), (333, 517), (1080, 1920), (320, 320), (101, 67), (719, 1283))

# A model, and what its export is told.
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("yolov5n", {}),
    ("yolov8n", {}),
    ("yolov8n", {"dynamic": True}),
    ("yolov8n", {"simplify": False}),
    ("yolov8n", {"imgsz": [256, 416]}),
    ("yolov8n", {"nms": True}),
    ("yolo11n", {}),
    ("yolo26n", {}),
    ("yolo26n", {"nms": False}),
    ("yolov8n-cls", {}),
    ("yolo11n-cls", {}),
)


@dataclass(slots=True)
class Row:
    """How one model compares.

    found: of their detections; close_calls, unlike: detections that only one side has, because NMS was almost
    undecided, or for no such reason. Of classifiers: images, and those with the same best class.
    """

    name: str
    theirs: int = 0
    found: int = 0
    close_calls: int = 0
    unlike: int = 0
    box: float = 0.0
    score: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        is_all = 0 < self.theirs <= self.found + self.close_calls and not self.unlike
        is_decided = self.close_calls <= MOST_CLOSE_CALLS * self.theirs
        return is_all and is_decided and self.box <= BOX_TOLERANCE and self.score <= SCORE_TOLERANCE


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="TEXT", default="", help="only the models whose name holds this")
    arguments = parser.parse_args()
    os.environ.setdefault("YOLO_OFFLINE", "true")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, options) in enumerate(CASES):
            if arguments.only in name:
                home = Path(folder) / str(number)
                home.mkdir()
                rows.append(_compare(name, options, home))
    _show(rows)
    return 0 if rows and all(row.agrees for row in rows) else 1


def _compare(name: str, options: dict[str, Any], home: Path) -> Row:
    side = CLASSIFY_SIDE if name.endswith("-cls") else DETECT_SIDE
    yolo = import_module("ultralytics").YOLO
    options = {"imgsz": side, **options}
    weights = home / "random.pt"
    _built(name, side).save(weights)  # which rounds to float16: so both sides begin with the file
    exported = yolo(weights).export(format="onnx", verbose=False, **options)
    converted = convert(ConversionRequest(model=Path(exported)))
    ours = home / "ours.onnx"
    ours.write_bytes(serialised(converted.model, converted.spec))
    shown = " ".join(f"{key}={value}" for key, value in options.items() if key != "imgsz" or value != side)
    row = Row(f"{name} {shown}".strip())
    # What the graph itself decides can only be compared with the same graph; all else with PyTorch.
    theirs = yolo(exported, task="detect") if "nms" in options else yolo(weights)
    if "nms" in options:
        row.notes.append("theirs in ONNX")
    with open_engine(ours, threads=1) as engine:
        compare = _compare_classes if engine.spec.task is Task.CLASSIFY else _compare_detections
        for image in _images():
            compare(theirs, engine, image, options["imgsz"], row)
    return row


def _built(name: str, side: int) -> Any:
    """Return a model with random weights whose activations are alive and whose heads are sure of some boxes."""
    torch: Any = import_module("torch")
    torch.manual_seed(0)
    theirs = import_module("ultralytics").YOLO(f"{name}.yaml")
    model = theirs.model
    spec = ModelSpec(task=Task.DETECT, labels=("any",), input_hw=(side, side), pad_value=PAD_VALUE)
    pixels = np.stack([prepare(image, spec, ResizeMode.LETTERBOX)[0] for image in _images()])
    batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).float() / 255
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of all batches, of which there is one
        norm.reset_running_stats()
    model.train()
    with torch.no_grad():
        model(batch)
    model.eval()
    for branch in ("cv3", "one2one_cv3"):
        for scale in getattr(model.model[-1], branch, None) or ():
            _make_sure(torch, model, batch, scale)
    if name.endswith("-cls"):
        _spread_classes(torch, model, batch)
    return theirs


def _make_sure(torch: Any, model: Any, batch: Any, scale: Any) -> None:
    """Scale and shift a head's logits until the best class of one cell in fifty is more likely than not.

    The surest stays below 0.99: of scores that are rounded to 1, none is the best, and NMS begins with any.
    """
    last = [module for module in scale.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    logits = _seen(torch, model, batch, last) - last.bias[None, :, None, None]
    best = logits.amax(1).flatten()
    even = torch.quantile(best, 0.98)
    gain = 4 / (best.max() - even)
    with torch.no_grad():
        last.weight.mul_(gain)
        last.bias.fill_(-float(gain * even))


def _spread_classes(torch: Any, model: Any, batch: Any) -> None:
    """Scale a classifier's logits until some classes stand out."""
    linear = model.model[-1].linear
    logits = _seen(torch, model, batch, linear)
    with torch.no_grad():
        linear.weight.mul_(3 / logits.std())


def _seen(torch: Any, model: Any, batch: Any, module: Any) -> Any:
    """Return what a module gives when the model is run."""
    seen: list[Any] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    with torch.no_grad():
        model(batch)
    hook.remove()
    return seen[-1]


def _images() -> list[UInt8Array]:
    return [_scene(hw, seed) for seed, hw in enumerate(IMAGE_SIZES)]


def _scene(hw: tuple[int, int], seed: int) -> UInt8Array:
    """Return a made-up photograph, BGR: soft colours, grain, and shapes with hard edges."""
    random = np.random.default_rng(seed)
    height, width = hw
    # As many details in a small image as in a large one: a network with random weights looks for nothing else.
    layers = random.integers(0, 256, (18, 24, 3)), random.normal(0, 24, (180, 240, 3))
    soft, grain = (cv2.resize(layer.astype(np.float32), (width, height)) for layer in layers)
    image = np.clip(soft + grain, 0, 255).astype(np.uint8)
    for _ in range(12):
        color = tuple(int(value) for value in random.integers(0, 256, 3))
        x, y, size = int(random.integers(width)), int(random.integers(height)), int(random.integers(8, min(hw) // 3))
        if random.random() < 0.5:
            cv2.rectangle(image, (x, y), (x + size, y + int(size * random.uniform(0.4, 2))), color, -1)
        else:
            cv2.circle(image, (x, y), size // 2, color, -1)
    return np.asarray(image, np.uint8)


def _compare_detections(theirs: Any, engine: CpuEngine, image: UInt8Array, imgsz: Any, row: Row) -> None:
    (result,) = theirs.predict(
        image, imgsz=imgsz, conf=CONF, iou=IOU, rect=False, max_det=MOST, device="cpu", verbose=False
    )
    boxes, scores, class_ids = (getattr(result.boxes, name).cpu().numpy() for name in ("xyxy", "conf", "cls"))
    tensor, placement = prepare(image, engine.spec, engine.spec.resize)
    ours, _ = detections_from(
        answer_of(engine, tensor),
        placement,
        engine.spec,
        hw=(image.shape[0], image.shape[1]),
        min_score=CONF - SCORE_TOLERANCE,  # what lies this near to the threshold may fall on either side
        iou=IOU,
    )
    left, missed = list(ours), []
    for box, score, class_id in zip(boxes.tolist(), scores.tolist(), class_ids.astype(int).tolist(), strict=True):
        if min(box[2] - box[0], box[3] - box[1]) < SLIVER:
            continue
        row.theirs += 1
        wanted = Detection(engine.spec.labels[class_id], class_id, score, tuple(box))
        match = min(left, key=lambda item: _difference(wanted, item), default=None)
        if match is None or _difference(wanted, match) > FAR:
            missed.append(wanted)
            continue
        left.remove(match)
        row.found += 1
        row.box = max(row.box, _distance(wanted, match))
        row.score = max(row.score, abs(score - match.score))
    for lone in (*missed, *(item for item in left if item.score > CONF + SCORE_TOLERANCE)):
        if _is_close_call(lone, ours):
            row.close_calls += 1
        else:
            row.unlike += 1


def _difference(a: Detection, b: Detection) -> float:
    """Return how far two detections are apart, in tolerances."""
    if a.class_id != b.class_id:
        return float("inf")
    return _distance(a, b) / BOX_TOLERANCE + abs(a.score - b.score) / SCORE_TOLERANCE


def _distance(a: Detection, b: Detection) -> float:
    return max(abs(one - other) for one, other in zip(a.box, b.box, strict=True))


def _is_close_call(lone: Detection, ours: Sequence[Detection]) -> bool:
    """Tell whether a box that one side alone keeps overlaps another by almost exactly the threshold of NMS.

    Theirs adds 7,680 pixels for each class before NMS, so that float32 rounds boxes of class 79 to 1/16 of a pixel.
    """
    rivals = [item.box for item in ours if item.class_id == lone.class_id and item.box != lone.box]
    if not rivals:
        return False
    ious = iou_matrix(np.array([lone.box], np.float32), np.array(rivals, np.float32))
    return bool((np.abs(ious - IOU) < CLOSE_IOU).any())


def _compare_classes(theirs: Any, engine: CpuEngine, image: UInt8Array, imgsz: Any, row: Row) -> None:
    """Compare the scores of all classes, each side with its own resizing."""
    (result,) = theirs.predict(image, imgsz=imgsz, device="cpu", verbose=False)
    expected = result.probs.data.cpu().numpy()
    tensor, _ = prepare(image, engine.spec, engine.spec.resize)
    found = engine.infer(tensor[None]).scores[0]
    row.theirs += 1
    row.found += int(found.argmax() == expected.argmax())
    row.score = max(row.score, float(np.abs(found - expected).max()))


def _show(rows: list[Row]) -> None:
    print(f"{'model':<30} {'theirs':>6} {'found':>6} {'close':>6} {'unlike':>6} {'box px':>7} {'score':>9}")
    for row in rows:
        counts = f"{row.theirs:>6} {row.found:>6} {row.close_calls:>6} {row.unlike:>6}"
        verdict = "agrees" if row.agrees else "DIFFERS"
        print(f"{row.name:<30} {counts} {row.box:>7.3f} {row.score:>9.1e}  {verdict:<8} {', '.join(row.notes)}")


if __name__ == "__main__":
    sys.exit(main())
