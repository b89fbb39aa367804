"""Make, where Ultralytics is, its export of YOLOv8n with random weights: `python -m scripts.gpu_models.yolov8n FOLDER`.

Needs the packages ultralytics and onnx, and trtjob's own; no weights are downloaded.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch  # type: ignore[import-not-found, unused-ignore]
from ultralytics import YOLO  # type: ignore[import-not-found, unused-ignore]
from ultralytics.nn.modules import Bottleneck  # type: ignore[import-not-found, unused-ignore]

from scripts.gpu_models.cfg import LOST
from trtjob.bench.synthetic_images import make_picture
from trtjob.converters.calibration_images import generated_image
from trtjob.engines.protocol import UInt8Array

SEED, SIDE, PAD = 8, 640, 114
PICTURES = 12
BRANCH = 0.3  # of what a block adds: else rounding errors grow with each
FOUND = 15  # class scores of each image above CONF, at each head
CONF_LOGIT = -1.1  # of a score of 0.25
SPREAD = 4.0  # logits between a head's median and those that are found
BOX_DEVIATION = 1.5  # of the logits of a side's place
OPSET = 17


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.gpu_models.yolov8n", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the model goes")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    exported = Path(lively().export(format="onnx", dynamic=True, imgsz=SIDE, opset=OPSET, simplify=False))
    print(exported.rename(folder / "yolov8n.onnx"))
    return 0


def lively() -> Any:
    """Return the model, with the same weights every time."""
    torch.manual_seed(SEED)
    model = YOLO("yolov8n.yaml")
    with torch.no_grad():
        make_lively(model.model.eval(), _pictures())
    return model


def make_lively(net: Any, images: Any) -> None:
    """Give batch normalisations statistics of images, as cfg.py explains, and spread what the heads say."""
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.normal_(norm.bias, 0, 0.1)
    for module in net.modules():
        if isinstance(module, Bottleneck) and module.add:
            torch.nn.init.constant_(module.cv2.bn.weight, BRANCH)
    hooks = [norm.register_forward_pre_hook(_take_statistics) for norm in norms]
    net(images)
    for hook in hooks:
        hook.remove()
    head = net.model[-1]
    for branch in head.cv2:
        branch[-1].weight *= BOX_DEVIATION / _outputs_of(net, branch[-1], images).std()
    for branch in head.cv3:
        _spread(net, branch[-1], images)


def _take_statistics(norm: Any, inputs: Any) -> None:
    mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
    norm.running_mean.copy_(LOST * mean)
    norm.running_var.copy_(variance + ((1 - LOST) * mean) ** 2)


def _spread(net: Any, layer: Any, images: Any) -> None:
    """Scale and shift a head's class logits so that a few of each image are found."""
    layer.bias.zero_()
    layer.bias.copy_(-_outputs_of(net, layer, images).mean((0, 2, 3)))
    values = _outputs_of(net, layer, images).flatten()
    top = values.topk(FOUND * len(images)).values[-1]
    scale = SPREAD / (top - values.median())
    layer.weight *= scale
    layer.bias.copy_((layer.bias - top) * scale + CONF_LOGIT)


def _outputs_of(net: Any, layer: Any, images: Any) -> Any:
    found = []
    hook = layer.register_forward_hook(lambda _layer, _inputs, outputs: found.append(outputs))
    net(images)
    hook.remove()
    return found[0]


def _pictures() -> Any:
    images = [generated_image(index) for index in range(PICTURES // 2)]
    images += [make_picture("640x480", index) for index in range(PICTURES - len(images))]
    planes = np.stack([_framed(image) for image in images]).transpose(0, 3, 1, 2)
    return torch.from_numpy(planes.astype(np.float32) / 255)


def _framed(image: UInt8Array) -> UInt8Array:
    """Return a picture of 640x480 as Ultralytics feeds it: RGB, a grey border above and below."""
    framed = np.full((SIDE, SIDE, 3), PAD, np.uint8)
    top = (SIDE - image.shape[0]) // 2
    framed[top : top + image.shape[0]] = image[:, :, ::-1]
    return framed


if __name__ == "__main__":
    sys.exit(main())
