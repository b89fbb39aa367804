"""RF-DETR: `dets`, shares of the input, and `labels`, a logit for each class (rfdetr's export/prepare.py)."""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import (
    as_float,
    corners,
    part,
    rows,
    scaled,
    scaled_boxes,
    sigmoids,
)
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_logits, are_logits_and_no_boxes
from trtjob.converters.pixels import torch_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode
from trtjob.imaging.boxes import xyxy_from_cxcywh

_COCO = 91  # its checkpoints of COCO have a column for each of COCO's ids, and none for the background

_ROLES = Roles({"dets": are_boxes, "labels": are_logits}, {"labels": are_logits_and_no_boxes})


def _classes(seen: Seen) -> int:
    """The last column is the background's (export/_class_layout.py)."""
    logits = int(seen.outputs[_ROLES.names(seen)[1]].shape[2])
    return logits if logits == _COCO or seen.classes == logits else logits - 1


def _rewire(graph: Graph, seen: Seen, labels: tuple[str, ...]) -> Rewired:
    boxes, logits = (as_float(graph, name) for name in _ROLES.names(seen))
    scores = graph.add("Sigmoid", part(graph, logits, 0, len(labels)))
    return rows(graph, corners(graph, scaled(graph, boxes, seen.hw)), scores)


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, logits = _ROLES.arrays(outputs, seen)
    return Outputs(xyxy_from_cxcywh(scaled_boxes(boxes, seen.hw)), sigmoids(logits[..., : len(labels)]))


FAMILY = Family(
    name="rfdetr",
    title="RF-DETR",
    gives="'dets' [N, Q, 4] and 'labels' float [N, Q, classes + 1]",
    fits=_ROLES.fit,
    recognises=lambda seen: _ROLES.fit(seen) and _ROLES.are_named(seen),
    describe=lambda _seen: Contract(torch_pixels(), ResizeMode.STRETCH, is_final=True, multi_label=True),
    classes=_classes,
    rewire=_rewire,
    read=_read,
)
