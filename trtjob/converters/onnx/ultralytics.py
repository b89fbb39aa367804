"""What Ultralytics' exports say of themselves, and how their tools bring an image to a network.

Two programs write them. The `ultralytics` package gives `task`, `imgsz`, `stride`, `names` and more
(ultralytics/engine/exporter.py); the older YOLOv5 repository gives `stride` and `names` alone (yolov5/export.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trtjob.converters.onnx.files import NAMES_KEY
from trtjob.converters.texts import literal, shown
from trtjob.engines.spec import Task
from trtjob.errors import ConversionError

_TASKS = {
    "detect": Task.DETECT,
    "segment": Task.DETECT,
    "pose": Task.DETECT,
    "obb": Task.DETECT,
    "classify": Task.CLASSIFY,
}
_NOT_YET = {"semantic": "semantic segmentation", "depth": "depth estimation"}
# The head that places its boxes as shares of the image, in whatever shape its exporter's version gives them.
_RTDETR = "rtdetr"

# What their predictors take where nothing else is said (ultralytics/cfg/default.yaml, yolov5/detect.py).
CONF = 0.25
IOU, YOLOV5_IOU = 0.7, 0.45
PAD_VALUE = 114  # LetterBox in ultralytics/data/augment.py; letterbox in yolov5/utils/augmentations.py


@dataclass(frozen=True, slots=True)
class Export:
    """What an export says of itself.

    task: None of a YOLOv5, whose output alone tells.
    hw: the size that it was made for; stride: sides are multiples of it.
    is_final: whether the graph does without NMS or holds it, None where nothing is said.
    has_masks: of a YOLOv5, the outputs tell; keypoints: how many of each box, and how many numbers of each; is_rotated:
    whether boxes stand at an angle.
    """

    task: Task | None
    hw: tuple[int, int] | None
    stride: int
    is_final: bool | None = None
    has_masks: bool = False
    keypoints: tuple[int, int] | None = None
    is_rotated: bool = False

    @property
    def is_yolov5(self) -> bool:
        return self.task is None


def export_from(metadata: Mapping[str, str], path: Path) -> Export | None:
    """Return what a file says of itself, None where it comes from elsewhere.

    Raises ConversionError for tasks that are not supported.
    """
    if NAMES_KEY not in metadata or not ({"task", "stride"} & metadata.keys()):
        return None
    kind = metadata.get("task")
    if kind is not None and kind not in _TASKS:
        what = _NOT_YET.get(kind, f"the task {shown(kind)}")
        raise ConversionError(
            f"'{path}' was exported for {what}, which is not supported yet. Accepted are detection, segmentation, pose "
            "estimation, oriented boxes and classification"
        )
    return Export(
        None if kind is None else _TASKS[kind],
        _size(metadata),
        _stride(metadata),
        _is_final(metadata),
        has_masks=kind == "segment",
        keypoints=_keypoints(metadata, path) if kind == "pose" else None,
        is_rotated=kind == "obb",
    )


def is_rtdetr(metadata: Mapping[str, str]) -> bool:
    """Tell whether a file says that it is an RT-DETR."""
    return _RTDETR in (metadata.get("head", "") + metadata.get("description", "")).lower().replace("-", "")


def _size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    match literal(metadata.get("imgsz", "")):
        case [int(height), int(width)] | (int(height), int(width)):
            return height, width
        case int(side):
            return side, side
    return None


def _keypoints(metadata: Mapping[str, str], path: Path) -> tuple[int, int]:
    match literal(metadata.get("kpt_shape", "")):
        case [int(count), 2 | 3 as values] | (int(count), 2 | 3 as values) if count > 0:
            return count, values
    raise ConversionError(
        f"'{path}' was exported for pose estimation, but does not say how many keypoints it has: its metadata "
        "'kpt_shape' should be such as [17, 3]. Export it again with a newer Ultralytics"
    )


def _stride(metadata: Mapping[str, str]) -> int:
    stride = literal(metadata.get("stride", ""))
    return stride if isinstance(stride, int) and stride > 0 else 1


def _is_final(metadata: Mapping[str, str]) -> bool | None:
    args, end2end = (literal(metadata.get(key, "")) for key in ("args", "end2end"))
    if isinstance(args, dict) and args.get("nms") is True:
        return True
    return end2end if isinstance(end2end, bool) else None
