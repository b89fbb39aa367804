"""A case: a model as its family's exporter writes it, and what the family's own code finds on photographs."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

PHOTOGRAPHS = ("coffee.png", "grace_hopper.jpg", "chelsea.png")
LABELS = ("apple", "bolt", "crate", "drone", "eagle")
CONF = 0.25
_LITTLE = 0.4
FOUND = 12  # places of a batch that a head is made sure of


@dataclass(frozen=True, slots=True)
class Found:
    """What an owner's code finds on one photograph: xyxy in its pixels, scores, and numbers of labels."""

    boxes: NDArray[Any]
    scores: NDArray[Any]
    classes: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Made:
    """What a maker has written into a case's folder: `model.onnx` and, by the photograph's name, what is found there.

    exporter: with its version; labels: by number, as the owner counts; more: what else `expected.json` says; beyond:
    the same of a photograph.
    """

    exporter: str
    labels: Sequence[str]
    found: Mapping[str, Found]
    more: Mapping[str, Any] = field(default_factory=dict)
    beyond: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


Maker = Callable[[Path, Mapping[str, NDArray[np.uint8]]], Made]


def photographs(folder: Path) -> dict[str, NDArray[np.uint8]]:
    """Return the photographs, RGB, by name."""
    images = {}
    for name in PHOTOGRAPHS:
        image = cv2.imread(str(folder / name))
        assert image is not None, name
        images[name] = np.asarray(image[..., ::-1], np.uint8, copy=True)
    return images


def write(folder: Path, made: Made, images: Mapping[str, NDArray[np.uint8]]) -> None:
    """Write expected.json."""
    document = {
        "family": made.exporter,
        "labels": list(made.labels),
        "conf": CONF,
        **made.more,
        "images": {
            name: {
                "size": [images[name].shape[1], images[name].shape[0]],
                "boxes": np.round(np.asarray(found.boxes, float), 4).tolist(),
                "scores": np.round(np.asarray(found.scores, float), 6).tolist(),
                "classes": np.asarray(found.classes, int).tolist(),
                **made.beyond.get(name, {}),
            }
            for name, found in made.found.items()
        },
    }
    (folder / "expected.json").write_text(json.dumps(document, indent=1))


def revive(model: torch.nn.Module, run: Callable[[], Any], seed: int) -> None:
    """Give a network random weights under which its activations neither die nor explode. run: feeds it photographs."""
    torch.manual_seed(seed)
    model.eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(module.weight)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean of all batches
        norm.reset_running_stats()
        norm.train()
    with torch.no_grad():
        run()
    model.eval()


def make_sure(
    layer: torch.nn.Conv2d | torch.nn.Linear,
    run: Callable[[], Any],
    *,
    spread: float = 2.0,
    sure: Callable[[int], bool] = lambda _channel: True,
) -> None:
    """Scale and shift a layer of logits so that a few of those that `run` sees are likely, and all differ.

    sure: which channels tell, where others say something else, such as a box: these are spread a little around 0.
    """
    with seen_by(layer) as outputs, torch.no_grad():
        run()
    if not outputs:  # of training alone
        return
    axes = 1 if isinstance(layer, torch.nn.Conv2d) else -1
    last = [output.movedim(axes, -1) for output in outputs]
    images = [image for output in last for image in (output.flatten(1, -2) if output.ndim > 2 else output[None])]
    logits = torch.cat(images)
    with torch.no_grad():
        logits = logits - (0 if layer.bias is None else layer.bias)
        telling = torch.tensor([sure(channel) for channel in range(logits.shape[1])])
        mean, gain = logits.mean(0), torch.where(telling, spread, _LITTLE) / logits.std(0).clamp_min(1e-6)
        layer.weight.mul_(gain.view(-1, *[1] * (layer.weight.ndim - 1)))
        spread_out = (((logits - mean) * gain)[:, telling].flatten()).split(
            [len(one) * int(telling.sum()) for one in images]
        )
        even = torch.stack([image.topk(min(FOUND, len(image) - 1)).values[-1] for image in spread_out]).mean()
        assert layer.bias is not None
        layer.bias.copy_(-mean * gain + (math.log(CONF / (1 - CONF)) - even) * telling)


@contextmanager
def seen_by(module: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what a module gives."""
    outputs: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    yield outputs
    hook.remove()


def as_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    """Return an image, RGB, as float32 [3, H, W], 0 to 1."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float() / 255
