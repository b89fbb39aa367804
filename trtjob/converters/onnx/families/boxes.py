"""Any pair of boxes and scores, [N, K, 4] and [N, K, classes], as the user describes it, or NMS's own node does."""

import numpy as np

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import (
    as_float,
    columns,
    corners,
    part,
    probabilities,
    rows,
    scaled,
    scaled_boxes,
    sigmoids,
)
from trtjob.converters.pixels import unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode
from trtjob.imaging.boxes import xyxy_from_cxcywh

_X_FIRST = (1, 0, 3, 2)


def _names(seen: Seen) -> tuple[str, str] | None:
    """Return the names of boxes and scores; None: there is no such pair."""
    for boxes, array in seen.outputs.items():
        if array.ndim != 3 or array.shape[2] != 4:
            continue
        for scores, other in seen.outputs.items():
            if scores != boxes and other.ndim == 3 and other.shape[:2] == array.shape[:2]:
                return boxes, scores
    return None


def _kept(seen: Seen) -> tuple[int, int]:
    """Return where the classes begin and end among the scores, without the background."""
    names = _names(seen)
    assert names is not None
    count = seen.outputs[names[1]].shape[2]
    match seen.described.background:
        case None:
            return 0, count
        case 0:
            return 1, count
        case _:
            return 0, count - 1


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    names = _names(seen)
    assert names is not None
    boxes, scores = (as_float(graph, name) for name in names)
    form, is_share = seen.described.form
    if form == "yxyx":
        boxes = columns(graph, boxes, *_X_FIRST)
    if is_share:
        boxes = scaled(graph, boxes, seen.hw)
    if form == "cxcywh":
        boxes = corners(graph, boxes)
    if seen.described.scores == "softmax":
        scores = graph.add("Softmax", scores, axis=2)
    elif seen.described.scores == "sigmoid":
        scores = graph.add("Sigmoid", scores)
    return rows(graph, boxes, part(graph, scores, *_kept(seen)))


def _read(outputs: Arrays, seen: Seen, _labels: tuple[str, ...]) -> Outputs:
    names = _names(seen)
    assert names is not None
    boxes, scores = (outputs[name] for name in names)
    form, is_share = seen.described.form
    if form == "yxyx":
        boxes = boxes[..., list(_X_FIRST)]
    if is_share:
        boxes = scaled_boxes(boxes, seen.hw)
    if form == "cxcywh":
        boxes = xyxy_from_cxcywh(boxes)
    if seen.described.scores == "softmax":
        scores = probabilities(scores)
    elif seen.described.scores == "sigmoid":
        scores = sigmoids(scores)
    first, end = _kept(seen)
    return Outputs(np.asarray(boxes, np.float32), np.asarray(scores[..., first:end], np.float32))


def _classes(seen: Seen) -> int:
    first, end = _kept(seen)
    return end - first


FAMILY = Family(
    name="boxes",
    title="any other, before NMS",
    gives="boxes [N, K, 4] and scores [N, K, classes]",
    needs="--labels; --boxes where they are not corners in pixels, --scores where they are logits, --background where "
    "a class is none, --preprocess and --resize",
    fits=lambda seen: _names(seen) is not None,
    recognises=lambda seen: seen.described.is_told and _names(seen) is not None,
    describe=lambda seen: Contract(unit_pixels(seen.channels), ResizeMode.LETTERBOX, iou=seen.described.iou),
    classes=_classes,
    rewire=_rewire,
    read=_read,
)
