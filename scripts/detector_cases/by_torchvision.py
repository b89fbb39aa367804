"""torchvision's detectors, by torch.onnx."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torchvision
from numpy.typing import NDArray
from torchvision.models import detection

from scripts.detector_cases.case import LABELS, Found, Made, Maker, as_tensor, make_sure, revive

SIDE = 320
CLASSES = len(LABELS) + 1  # and the background
NETWORKS = {
    "fasterrcnn_mobilenet_v3_large_320_fpn": "roi_heads.box_predictor.cls_score",
    "fasterrcnn_resnet50_fpn_v2": "roi_heads.box_predictor.cls_score",
    "retinanet_resnet50_fpn": "head.classification_head.cls_logits",
    "fcos_resnet50_fpn": "head.classification_head.cls_logits",
    "ssdlite320_mobilenet_v3_large": "head.classification_head",
    "ssd300_vgg16": "head.classification_head",
    "maskrcnn_resnet50_fpn": "roi_heads.box_predictor.cls_score",
    "keypointrcnn_resnet50_fpn": "roi_heads.box_predictor.cls_score",
}


def cases() -> Iterator[tuple[str, Maker]]:
    for name in NETWORKS:
        yield f"torchvision_{name}", partial(_made, name)


def _made(name: str, folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    classes = 2 if name.startswith("keypoint") else CLASSES
    sizes: dict[str, Any] = {} if name.startswith("ssd") else {"min_size": SIDE, "max_size": SIDE * 2}
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=classes, **sizes)
    tensors = [as_tensor(image) for image in images.values()]
    revive(model, lambda: model(tensors), seed=len(name))
    head = model.get_submodule(NETWORKS[name])
    layers = [head] if isinstance(head, torch.nn.Linear | torch.nn.Conv2d) else list(head.module_list)
    for layer in layers:
        last = [part for part in layer.modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)][-1]
        make_sure(last, lambda: model(tensors))
    first = tensors[0]
    torch.onnx.export(
        model,
        ([first],),
        str(folder / "model.onnx"),
        opset_version=16,
        dynamo=False,
        input_names=["images"],
    )
    # Random weights magnify what an export rounds otherwise, and sizes are those that were traced: the file is asked.
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    said = session.run(None, {"images": first.numpy()})
    with torch.no_grad():
        theirs = model([first])[0]
    print(f"{name}: {len(said[0])} in the file, {len(theirs['boxes'])} in PyTorch")
    kept = {next(iter(images)): _found(dict(zip(theirs, map(torch.from_numpy, said), strict=False)))}
    exporter = f"torchvision {torchvision.__version__} {name}"
    return Made(exporter, ("background", *LABELS[: classes - 1]), kept)


def _found(said: Mapping[str, torch.Tensor]) -> Found:
    best = said["scores"] >= 0.25
    boxes, scores, labels = (said[name][best].numpy() for name in ("boxes", "scores", "labels"))
    return Found(boxes, scores, labels)
