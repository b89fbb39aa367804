"""RF-DETR by its own `export`, and what its `predict` finds."""

from collections.abc import Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import rfdetr
import torch
from numpy.typing import NDArray
from PIL import Image

from scripts.detector_cases.case import CONF, LABELS, Found, Made, Maker, make_sure

SIDE = 192


def cases() -> Iterator[tuple[str, Maker]]:
    for name in ("RFDETRNano", "RFDETRSegNano"):
        yield f"rfdetr_{name.lower()}", partial(_made, name)


def _made(name: str, folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    torch.manual_seed(len(name))
    model = getattr(rfdetr, name)(pretrain_weights=None, num_classes=len(LABELS), device="cpu", resolution=SIDE)
    pictures = {key: Image.fromarray(image) for key, image in images.items()}

    def run() -> None:
        for picture in pictures.values():
            model.predict(picture, threshold=0.0)

    network = model.model.model
    make_sure(network.class_embed, run, sure=lambda channel: channel < len(LABELS))
    with torch.no_grad():
        network.class_embed.bias[len(LABELS) :] = -10  # the background
    found = {}
    for key, picture in pictures.items():
        said = model.predict(picture, threshold=CONF)
        found[key] = Found(said.xyxy, said.confidence, said.class_id)
    model.export(output_dir=str(folder), shape=(SIDE, SIDE), verbose=False)
    next(folder.glob("rfdetr-*.onnx")).rename(folder / "model.onnx")
    return Made(f"rfdetr {version('rfdetr')} {name}", LABELS, found)
