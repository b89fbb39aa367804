"""RT-DETR's own repositories, D-FINE and DEIM: `labels`, `boxes` and `scores` of the best queries.

lyuwenyu/RT-DETR tools/export_onnx.py and rtdetr_postprocessor.py; Peterande/D-FINE tools/deployment/export_onnx.py.
"""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import final, single
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_class_ids, are_scores
from trtjob.converters.pixels import unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode, Sampling

_ROLES = Roles({"boxes": are_boxes, "scores": are_scores, "labels": are_class_ids})


def _describe(seen: Seen) -> Contract:
    # Resized by Pillow (configs/rtdetrv2/include/dataloader.yml): bilinear, which averages when it shrinks.
    return Contract(unit_pixels(seen.channels), ResizeMode.STRETCH, Sampling.ANTIALIAS, is_final=True)


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    return final(graph, *_ROLES.names(seen))


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, scores, class_ids = _ROLES.arrays(outputs, seen)
    return single(boxes, scores, class_ids, labels)


FAMILY = Family(
    name="rtdetr",
    title="RT-DETR (lyuwenyu's), D-FINE, DEIM",
    gives="'labels' int64 [N, Q], 'boxes' [N, Q, 4] and 'scores' [N, Q]",
    fits=_ROLES.fit,
    recognises=lambda seen: _ROLES.fit(seen) and "orig_target_sizes" in seen.inputs,
    describe=_describe,
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)
