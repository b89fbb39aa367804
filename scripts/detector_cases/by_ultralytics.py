"""Ultralytics' own exports, and what its `predict` finds with the files."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import ultralytics
from numpy.typing import NDArray

from scripts.detector_cases.case import CONF, Found, Made, Maker, make_sure, revive

SIDE = 256
IOU = 0.7
MOST = 300

# A network, how it is exported, and what is added to its name.
EXPORTS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("yolov5n", {}, ""),
    ("yolov8n", {"dynamic": True, "opset": 11}, "_dynamic"),
    ("yolov8n", {"imgsz": [192, 320]}, "_wide"),
    ("yolov9t", {}, ""),
    ("yolov10n", {}, ""),
    ("yolo11n", {"opset": 20, "batch": 2}, "_batch"),
    ("yolo12n", {"nms": True}, "_nms"),
    ("yolo26n", {}, ""),
    ("yolov8n-seg", {"dynamic": True}, "_dynamic"),
    ("yolo26n-seg", {}, ""),
    ("yolo11n-pose", {"nms": True}, "_nms"),
    ("yolov8n-obb", {"nms": True}, "_nms"),
    ("yolo26n-obb", {}, ""),
)


def cases() -> Iterator[tuple[str, Maker]]:
    for name, options, suffix in EXPORTS:
        yield f"ultralytics_{name.replace('-', '_')}{suffix}", partial(_made, name, options)


def _made(name: str, options: dict[str, Any], folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    options = {"imgsz": SIDE, **options}
    model = ultralytics.YOLO(f"{name}.yaml")
    network = model.model
    hw = (SIDE, SIDE)
    boxed = ultralytics.data.augment.LetterBox(hw, auto=False)
    batch = torch.stack([torch.from_numpy(boxed(image=image).transpose(2, 0, 1).copy()) for image in images.values()])
    batch = batch.float() / 255

    def run() -> None:
        network(batch)

    revive(network, run, seed=len(name))
    head = network.model[-1]
    for branch in ("cv3", "one2one_cv3"):
        for scale in getattr(head, branch, None) or ():
            last = [part for part in scale.modules() if isinstance(part, torch.nn.Conv2d)][-1]
            make_sure(last, run)
    weights = folder / "model.pt"
    model.save(weights)
    ultralytics.YOLO(weights).export(format="onnx", verbose=False, **options)
    weights.unlink()
    reader = ultralytics.YOLO(folder / "model.onnx", task=model.task)
    found, more = {}, {}
    for key, image in images.items():
        (said,) = reader.predict(
            np.ascontiguousarray(image[..., ::-1]),
            imgsz=options["imgsz"],
            conf=CONF,
            iou=IOU,
            max_det=MOST,
            rect=False,
            retina_masks=True,
            verbose=False,
        )
        boxes = said.obb if said.obb is not None else said.boxes
        found[key] = Found(boxes.xyxy.numpy(), boxes.conf.numpy(), boxes.cls.numpy())
        more[key] = _beyond(said)
    labels = list(network.names.values())
    exporter = f"ultralytics {ultralytics.__version__} {name}"
    return Made(exporter, labels, found, {"imgsz": list(hw), "iou": IOU, "max_det": MOST, "export": options}, more)


def _beyond(said: Any) -> dict[str, Any]:
    """Return what a result has beside its boxes, as `expected.json` has it."""
    beyond: dict[str, Any] = {}
    if said.masks is not None:
        beyond["masks_in_the_image"] = {"rle_of_the_first": [_runs(mask) for mask in said.masks.data.numpy() > 0.5]}
    if said.keypoints is not None:
        beyond["keypoints"] = said.keypoints.data.numpy().round(3).tolist()
    if said.obb is not None:
        beyond["corners"] = said.obb.xyxyxyxy.numpy().round(3).tolist()
    return beyond


def _runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs down the columns, of what is not in the mask first."""
    flat = np.concatenate([[False], mask.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(length) for length in np.diff([0, *changes, mask.size])]
