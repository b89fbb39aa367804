"""Detectors by their own repositories' exporters, clones of which lie in one folder, named in DETECTOR_REPOSITORIES."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from subprocess import check_output
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from PIL import Image

from scripts.detector_cases.case import CONF, LABELS, Found, Made, Maker, make_sure, revive

SIDE = 256
_SHORT_NAMES = frozenset({"models", "utils", "export", "yolov6", "src", "yolox"})
REPOSITORIES = Path(os.environ.get("DETECTOR_REPOSITORIES", "repositories"))


def cases() -> Iterator[tuple[str, Maker]]:
    for form in ("heads", "grid", "end2end"):
        yield f"yolov7_{form}", partial(_yolov7, form, LABELS)
    yield "yolov7_grid_of_one_class", partial(_yolov7, "grid", LABELS[:1])
    for clone in ("yolov5", "yolov5-6.1"):
        yield clone, partial(_yolov5, clone)
    yield "yolov9", _yolov9
    yield "dfine", _dfine
    yield "yolov6", partial(_yolov6, is_end2end=False)
    yield "yolov6_end2end", partial(_yolov6, is_end2end=True)


def _yolov7(form: str, labels: Sequence[str], folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    with _repository("yolov7"):
        yolo, experimental = import_module("models.yolo"), import_module("models.experimental")
        datasets, general = import_module("utils.datasets"), import_module("utils.general")
        model = yolo.Model("cfg/deploy/yolov7-tiny.yaml", ch=3, nc=len(labels)).float()
        batch = torch.cat([_letterboxed(datasets.letterbox, image) for image in images.values()])
        revive(model, lambda: model(batch), seed=7)
        for layer in model.model[-1].m:  # of each anchor: centre, size, objectness, classes
            make_sure(layer, lambda: model(batch), spread=1.5, sure=partial(_is_objectness, layer.out_channels // 3))
        model = model.fuse().eval()
        head = model.model[-1]
        options: dict[str, Any] = {"opset_version": 12, "input_names": ["images"], "dynamo": False}
        one = batch[:1]
        with torch.no_grad():
            raw = model(batch)[0]
        if form == "heads":
            head.export = True
            torch.onnx.export(model, one, str(folder / "model.onnx"), output_names=["classes", "boxes"], **options)
        elif form == "grid":
            head.concat = True
            torch.onnx.export(model, one, str(folder / "model.onnx"), output_names=["output"], **options)
        else:
            whole = experimental.End2End(model, 100, 0.45, CONF, SIDE * 4, torch.device("cpu"), len(labels))
            torch.onnx.export(whole, one, str(folder / "model.onnx"), output_names=["output"], **options)
        found = _suppressed(general, raw, batch, images)
        more: dict[str, Any] = {"iou": 0.45, "options": {"family": "yolov5-heads"} if form == "heads" else {}}
        return Made(f"WongKinYiu/yolov7 {_version()}, yolov7-tiny, {form}", labels, found, more)


def _yolov5(clone: str, folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    """By export_onnx of its export.py."""
    with _repository(clone):
        yolo, exporter = import_module("models.yolo"), import_module("export")
        letterbox = (import_module("utils.augmentations")).letterbox
        general = import_module("utils.general")
        model = yolo.Model("models/yolov5n.yaml", ch=3, nc=len(LABELS)).float()
        model.names = list(LABELS)
        batch = torch.cat([_letterboxed(letterbox, image) for image in images.values()])
        revive(model, lambda: model(batch), seed=5)
        for layer in model.model[-1].m:  # of each anchor: centre, size, objectness, classes
            make_sure(layer, lambda: model(batch), spread=1.5, sure=partial(_is_objectness, layer.out_channels // 3))
        model = model.fuse().eval()
        with torch.no_grad():
            raw = model(batch)[0]
        head = model.model[-1]
        head.inplace = False
        head.export = clone == "yolov5"
        if clone == "yolov5":
            exporter.export_onnx(model, batch[:1], folder / "model.onnx", 12, False, False)
        else:  # as its export_onnx does: this torch's own needs to be told of the older exporter
            names = ["output"]
            torch.onnx.export(
                model,
                batch[:1],
                str(folder / "model.onnx"),
                opset_version=12,
                input_names=["images"],
                output_names=names,
                dynamo=False,
            )
        return Made(
            f"ultralytics/yolov5 {_version()}, yolov5n", LABELS, _suppressed(general, raw, batch, images), {"iou": 0.45}
        )


def _yolov9(folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    with _repository("yolov9"):
        yolo, general = import_module("models.yolo"), import_module("utils.general")
        letterbox = import_module("utils.augmentations").letterbox
        model = yolo.Model("models/detect/gelan-t.yaml", ch=3, nc=len(LABELS)).float()
        batch = torch.cat([_letterboxed(letterbox, image) for image in images.values()])
        revive(model, lambda: model(batch), seed=9)
        for branch in model.model[-1].cv3:
            make_sure(branch[-1], lambda: model(batch), spread=1.5)
        model = model.fuse().eval()
        with torch.no_grad():
            raw = model(batch)[0]
        model.model[-1].export = True
        options: dict[str, Any] = {"opset_version": 12, "input_names": ["images"], "output_names": ["output0"]}
        torch.onnx.export(model, batch[:1], str(folder / "model.onnx"), dynamo=False, **options)
        found = _suppressed(general, raw, batch, images)
        return Made(f"WongKinYiu/yolov9 {_version()}, gelan-t, no metadata", LABELS, found, {"iou": 0.45})


def _yolov6(folder: Path, images: Mapping[str, NDArray[np.uint8]], *, is_end2end: bool) -> Made:
    with _repository("YOLOv6"):
        yolo, config = import_module("yolov6.models.yolo"), import_module("yolov6.utils.config")
        letterbox = import_module("yolov6.data.data_augment").letterbox
        nms = import_module("yolov6.utils.nms")
        inferer = import_module("yolov6.core.inferer").Inferer
        settings = config.Config.fromfile("configs/yolov6n.py")
        settings.training_mode = "repvgg"  # as tools/train.py has it
        model = yolo.build_model(settings, len(LABELS), torch.device("cpu")).float()
        batch = torch.cat([_letterboxed(letterbox, image) for image in images.values()])
        revive(model, lambda: model(batch), seed=6)
        for layer in model.detect.cls_preds:
            make_sure(layer, lambda: model(batch), spread=1.5)
        model = import_module("yolov6.utils.torch_utils").fuse_model(model)
        for module in model.modules():
            if hasattr(module, "switch_to_deploy"):
                module.switch_to_deploy()
        model.eval()
        with torch.no_grad():
            raw = model(batch)[0]
        options: dict[str, Any] = {"opset_version": 13, "input_names": ["images"], "dynamo": False}
        names, whole = ["outputs"], model
        if is_end2end:
            end2end = import_module("yolov6.models.end2end")
            whole = end2end.End2End(model, 100, 0.45, CONF, device=torch.device("cpu"), ort=True)
            names = ["num_dets", "det_boxes", "det_scores", "det_classes"]
        torch.onnx.export(whole, batch[:1], str(folder / "model.onnx"), output_names=names, **options)
        found = {}
        for number, (name, image) in enumerate(images.items()):
            if is_end2end:
                session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
                told = session.run(None, {"images": batch[number : number + 1].numpy()})
                _, boxes, scores, classes = (torch.from_numpy(array).float() for array in told)
                said = torch.cat([boxes[0], scores[0, :, None], classes[0, :, None]], 1)[classes[0] >= 0]
            else:
                (said,) = nms.non_max_suppression(raw[number : number + 1].clone(), CONF, 0.45)
            said[:, :4] = inferer.rescale(batch.shape[2:], said[:, :4], image.shape)
            found[name] = Found(said[:, :4].numpy(), said[:, 4].numpy(), said[:, 5].numpy())
        end = ", end2end for ONNX Runtime" if is_end2end else ""
        return Made(f"meituan/YOLOv6 {_version()}, yolov6n{end}", LABELS, found, {"iou": 0.45})


def _dfine(folder: Path, images: Mapping[str, NDArray[np.uint8]]) -> Made:
    """As tools/deployment/export_onnx.py does."""
    with _repository("D-FINE"):
        changed = {"eval_spatial_size": [SIDE, SIDE], "num_classes": len(LABELS), "remap_mscoco_category": False}
        config = import_module("src.core").YAMLConfig("configs/dfine/dfine_hgnetv2_n_coco.yml", **changed)
        config.yaml_cfg["HGNetv2"]["pretrained"] = False
        network, post = config.model.deploy(), config.postprocessor.deploy()
        fed = [torch.from_numpy(_stretched(image)) for image in images.values()]
        sizes = [torch.tensor([[image.shape[1], image.shape[0]]]) for image in images.values()]

        class Whole(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model, self.postprocessor = network, post

            def forward(self, images: torch.Tensor, orig_target_sizes: torch.Tensor) -> Any:
                return self.postprocessor(self.model(images), orig_target_sizes)

        whole = Whole()

        def run() -> None:
            for image, size in zip(fed, sizes, strict=True):
                whole(image, size)

        revive(whole, run, seed=3)
        for layer in (network.decoder.enc_score_head, network.decoder.dec_score_head[-1]):
            make_sure(layer, run)
        torch.onnx.export(
            whole,
            (fed[0], sizes[0]),
            str(folder / "model.onnx"),
            input_names=["images", "orig_target_sizes"],
            output_names=["labels", "boxes", "scores"],
            dynamic_axes={"images": {0: "N"}, "orig_target_sizes": {0: "N"}},
            opset_version=16,
            dynamo=False,
        )
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        found = {}
        for name, one, size in zip(images, fed, sizes, strict=True):
            told = {"images": one.numpy(), "orig_target_sizes": size.numpy()}
            labels, boxes, scores = (array[0] for array in session.run(None, told))
            best = scores >= CONF
            found[name] = Found(boxes[best], scores[best], labels[best])
        return Made(f"Peterande/D-FINE {_version()}, dfine-n", LABELS, found)


def _is_objectness(values: int, channel: int) -> bool:
    return channel % values == 4


def _stretched(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    resized = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(np.asarray(resized).transpose(2, 0, 1)[None] / 255, np.float32)


def _suppressed(
    general: Any, raw: torch.Tensor, batch: torch.Tensor, images: Mapping[str, NDArray[np.uint8]]
) -> dict[str, Found]:
    """Return what a repository's own NMS leaves, in pixels of the photographs."""
    moved = getattr(general, "scale_boxes", None) or general.scale_coords
    found = {}
    for number, (name, image) in enumerate(images.items()):
        (said,) = general.non_max_suppression(raw[number : number + 1].clone(), CONF, 0.45)
        said[:, :4] = moved(batch.shape[2:], said[:, :4], image.shape)
        found[name] = Found(said[:, :4].numpy(), said[:, 4].numpy(), said[:, 5].numpy())
    return found


def _letterboxed(letterbox: Any, image: NDArray[np.uint8]) -> torch.Tensor:
    padded = letterbox(image, SIDE, auto=False)[0]
    return torch.from_numpy(padded.transpose(2, 0, 1)[None].copy()).float() / 255


@contextmanager
def _repository(name: str) -> Iterator[None]:
    """Stand in a clone, whose modules alone are found by their short names."""
    place = str((REPOSITORIES / name).resolve())
    before, here = set(sys.modules), Path.cwd()
    sys.path.insert(0, place)
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(here)
        sys.path.remove(place)
        for module in set(sys.modules) - before:
            if module.split(".")[0] in _SHORT_NAMES:
                del sys.modules[module]


def _version() -> str:
    return check_output(["git", "log", "-1", "--format=%h of %cs"], text=True).strip()
