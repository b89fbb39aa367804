"""RT-DETR as Ultralytics exports it: shares of the input (nn/modules/head.py, models/rtdetr/predict.py)."""

import numpy as np

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import (
    as_float,
    corners,
    part,
    rows,
    scaled,
    scaled_boxes,
    single,
)
from trtjob.converters.onnx.outputs import Layout
from trtjob.converters.onnx.ultralytics import is_rtdetr
from trtjob.converters.pixels import unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode
from trtjob.imaging.boxes import xyxy_from_cxcywh


def _fits(seen: Seen) -> bool:
    """Its boxes are shares of the input."""
    if seen.only is None or seen.only.ndim != 3 or seen.only.shape[2] < 5:
        return False
    has_labels = _is_top(seen) or seen.classes in (0, seen.only.shape[2] - 4)
    return has_labels and bool(np.all((seen.only[..., :4] >= 0) & (seen.only[..., :4] <= 1)))


def _is_top(seen: Seen) -> bool:
    """Tell whether each row has a score and a class, as from 8.4 on, and not a score for each class."""
    assert seen.only is not None
    return seen.only.shape[2] == 6 and seen.classes != 2


def _describe(seen: Seen) -> Contract:
    pixels = unit_pixels(seen.channels)
    return Contract(pixels, ResizeMode.STRETCH, is_final=True, multi_label=not _is_top(seen))


def _rewire(graph: Graph, seen: Seen, labels: tuple[str, ...]) -> Rewired:
    found = as_float(graph, next(iter(seen.outputs)))
    boxes = corners(graph, scaled(graph, part(graph, found, 0, 4), seen.hw))
    if _is_top(seen):
        return Rewired(graph.add("Concat", boxes, part(graph, found, 4, 6), axis=2), Layout.FINAL)
    return rows(graph, boxes, part(graph, found, 4, 4 + len(labels)))


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    (found,) = outputs.values()
    boxes = xyxy_from_cxcywh(scaled_boxes(found[..., :4], seen.hw))
    if _is_top(seen):
        return single(boxes, found[..., 4], found[..., 5], labels)
    return Outputs(boxes, found[..., 4:])


FAMILY = Family(
    name="ultralytics-rtdetr",
    title="RT-DETR by Ultralytics",
    gives="[N, Q, 6] or [N, Q, 4 + classes]",
    needs="nothing: its metadata has the labels",
    fits=_fits,
    recognises=lambda seen: is_rtdetr(seen.metadata) and _fits(seen),
    describe=_describe,
    classes=lambda seen: 0 if _is_top(seen) or seen.only is None else seen.only.shape[2] - 4,
    rewire=_rewire,
    read=_read,
)
