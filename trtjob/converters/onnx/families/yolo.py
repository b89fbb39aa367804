"""YOLO detectors by their own repositories: YOLOv5 and YOLOv7 decoded, YOLOv6, and YOLOv7 with NMS inside."""

import numpy as np

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import (
    as_float,
    columns,
    corners,
    final_of_one,
    padded,
    part,
    rows,
    single,
)
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_class_ids, are_scores, are_several_class_ids
from trtjob.converters.onnx.families.yolox import grids, strides_of
from trtjob.converters.onnx.outputs import Layout
from trtjob.converters.pixels import unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode
from trtjob.imaging.boxes import xyxy_from_cxcywh

_ANCHORS = 3  # at each place


def _describe(seen: Seen) -> Contract:
    return Contract(unit_pixels(seen.channels), ResizeMode.LETTERBOX)


def _first(seen: Seen) -> str:
    """Return the output of all rows; the heads that may stand beside it are of five sizes."""
    return next((name for name, array in seen.outputs.items() if array.ndim == 3), next(iter(seen.outputs)))


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    return Rewired(as_float(graph, _first(seen)), Layout.OBJECTNESS)


def _read(outputs: Arrays, seen: Seen, _labels: tuple[str, ...]) -> Outputs:
    x = outputs[_first(seen)]
    return Outputs(xyxy_from_cxcywh(x[..., :4]), x[..., 5:] * x[..., 4:5])


def _classes(seen: Seen) -> int:
    return int(seen.outputs[_first(seen)].shape[2]) - 5


def _is_grid(seen: Seen) -> bool:
    """Besides the decoded rows, the heads themselves may be outputs, as in YOLOv5 up to 6.1 (export.py)."""
    others = [array for name, array in seen.outputs.items() if name != _first(seen)]
    return bool(strides_of(seen, _ANCHORS)) and all(array.ndim == 5 for array in others)


def _is_yolov6(seen: Seen) -> bool:
    """Its objectness is always 1 (yolov6/models/effidehead.py)."""
    return bool(seen.only is not None and strides_of(seen, 1) and np.all(seen.only[..., 4] == 1))


def _is_yolov7_of_one_class(seen: Seen) -> bool:
    """Tell whether classes say nothing: YOLOv7 does not train that of one, and YOLOv5 would give its heads, too.

    utils/general.py (non_max_suppression) and models/experimental.py (End2End) in WongKinYiu/yolov7.
    """
    return seen.only is not None and _classes(seen) == 1


def _rewire_grid(graph: Graph, seen: Seen, labels: tuple[str, ...]) -> Rewired:
    if not _is_yolov7_of_one_class(seen):
        return _rewire(graph, seen, labels)
    found = as_float(graph, _first(seen))
    return rows(graph, corners(graph, part(graph, found, 0, 4)), part(graph, found, 4, 5))


def _read_grid(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    if not _is_yolov7_of_one_class(seen):
        return _read(outputs, seen, labels)
    x = outputs[_first(seen)]
    return Outputs(xyxy_from_cxcywh(x[..., :4]), np.asarray(x[..., 4:5], np.float32))


GRID = Family(
    name="yolo-grid",
    title="YOLOv5 and YOLOv7 by their own repositories (YOLOv7 with --grid)",
    gives="[N, 3 boxes at each place, 5 + classes], decoded",
    fits=_is_grid,
    recognises=_is_grid,
    describe=_describe,
    classes=_classes,
    rewire=_rewire_grid,
    read=_read_grid,
)
YOLOV6 = Family(
    name="yolov6",
    title="YOLOv6",
    gives="[N, places of its grids, 5 + classes], with 1 as objectness",
    fits=_is_yolov6,
    recognises=_is_yolov6,
    describe=_describe,
    classes=_classes,
    rewire=_rewire,
    read=_read,
)


def _is_columns(seen: Seen) -> bool:
    return seen.only is not None and seen.only.ndim == 3 and bool(grids(seen.hw, seen.only.shape[2], 1))


def _read_columns(outputs: Arrays, seen: Seen, _labels: tuple[str, ...]) -> Outputs:
    x = outputs[_first(seen)].transpose(0, 2, 1)
    return Outputs(xyxy_from_cxcywh(x[..., :4]), x[..., 4:])


def _column_classes(seen: Seen) -> int:
    return int(seen.outputs[_first(seen)].shape[1]) - 4


COLUMNS = Family(
    name="yolov8",
    title="YOLOv8, YOLOv9, YOLO11 without their metadata",
    gives="[N, 4 + classes, places of its grids]",
    fits=_is_columns,
    recognises=lambda seen: _is_columns(seen) and seen.classes == _column_classes(seen),
    describe=lambda seen: Contract(unit_pixels(seen.channels), ResizeMode.LETTERBOX, iou=0.7),
    classes=_column_classes,
    rewire=lambda graph, seen, _labels: Rewired(as_float(graph, _first(seen)), Layout.COLUMNS),
    read=_read_columns,
)


def _describe_final(seen: Seen) -> Contract:
    return Contract(unit_pixels(seen.channels), ResizeMode.LETTERBOX, is_final=True)


def _is_final(seen: Seen) -> bool:
    return seen.only is not None and seen.only.ndim == 3 and seen.only.shape[2] == 6


def _read_final(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    x = outputs[_first(seen)]
    return single(x[..., :4], x[..., 4], x[..., 5], labels)


FINAL = Family(
    name="yolov10",
    title="YOLOv10, YOLO26 and what has NMS inside, without their metadata",
    gives="[N, K, 6]: corners, score and class",
    fits=_is_final,
    describe=_describe_final,
    classes=lambda _seen: 0,
    rewire=lambda graph, seen, _labels: Rewired(as_float(graph, _first(seen)), Layout.FINAL),
    read=_read_final,
)

_IMAGE_BOX_CLASS_SCORE = 7
_NMS = "NonMaxSuppression"


def _is_end2end(seen: Seen) -> bool:
    return seen.only is not None and seen.only.ndim == 2 and seen.only.shape[1] == _IMAGE_BOX_CLASS_SCORE


def _rewire_end2end(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    return padded(graph, columns(graph, as_float(graph, _first(seen)), 1, 2, 3, 4, 6, 5))


def _read_end2end(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    found = outputs[_first(seen)][None]
    return single(found[..., 1:5], found[..., 6], found[..., 5], labels)


END2END = Family(
    name="yolov7-end2end",
    title="YOLOv7 with NMS inside, for ONNX Runtime (--grid --end2end --max-wh)",
    gives="[M, 7]: image, corners, class and score",
    fits=_is_end2end,
    recognises=lambda seen: _is_end2end(seen) and _NMS in seen.operators,  # a classifier may have seven classes
    describe=_describe_final,
    classes=lambda _seen: 0,
    rewire=_rewire_end2end,
    read=_read_end2end,
)

_PADDED = Roles(
    {"det_boxes": are_boxes, "det_scores": are_scores, "det_classes": are_class_ids},
    {"det_classes": are_several_class_ids},
)


def _rewire_padded_end(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    return final_of_one(graph, *_PADDED.names(seen))


def _read_padded_end(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, scores, class_ids = _PADDED.arrays(outputs, seen)
    return single(boxes, scores, class_ids, labels)


YOLOV6_END2END = Family(
    name="yolov6-end2end",
    title="YOLOv6 with NMS inside, for ONNX Runtime (--end2end --ort)",
    gives="'num_dets', 'det_boxes' [1, M, 4], 'det_scores' and 'det_classes' [1, M]",
    needs="--labels; --preprocess none --color bgr where it was exported --with-preprocess",
    fits=lambda seen: len(seen.outputs) == 4 and _PADDED.fit(seen),
    recognises=lambda seen: _PADDED.fit(seen) and _PADDED.are_named(seen),
    describe=_describe_final,
    classes=lambda _seen: 0,
    rewire=_rewire_padded_end,
    read=_read_padded_end,
)
