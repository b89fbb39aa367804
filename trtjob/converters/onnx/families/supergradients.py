"""YOLO-NAS and its relatives by super-gradients, with NMS inside: in batches, or flat.

module_interfaces/exportable_detector.py and conversion/onnx/nms.py in Deci-AI/super-gradients.
"""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import columns, final, padded, single
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_class_ids, are_scores, are_several_class_ids
from trtjob.converters.pixels import pixels_of_mode
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode

_BATCH = Roles(
    {"pred_boxes": are_boxes, "pred_scores": are_scores, "pred_classes": are_class_ids},
    {"pred_classes": are_several_class_ids},
)
_FLAT = "flat_predictions"


def _describe(seen: Seen) -> Contract:
    # What is to be done to pixels is in the graph, as its export has it unless told otherwise.
    return Contract(pixels_of_mode("none", seen.channels), ResizeMode.LETTERBOX, is_final=True)


def _rewire_batch(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    return final(graph, *_BATCH.names(seen))


def _read_batch(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, scores, class_ids = _BATCH.arrays(outputs, seen)
    return single(boxes, scores, class_ids, labels)


def _is_flat(seen: Seen) -> bool:
    return seen.names == {_FLAT} and len(seen.shape(_FLAT)) == 2 and seen.shape(_FLAT)[1] == 7


def _rewire_flat(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    return padded(graph, columns(graph, seen.named(_FLAT), 1, 2, 3, 4, 5, 6))


def _read_flat(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    found = outputs[seen.named(_FLAT)][None]
    return single(found[..., 1:5], found[..., 5], found[..., 6], labels)


BATCH = Family(
    name="super-gradients",
    title="YOLO-NAS and others by super-gradients",
    gives="'num_predictions', 'pred_boxes' [N, K, 4], 'pred_scores' and 'pred_classes' [N, K]",
    needs="--labels; --preprocess where it was exported without its own",
    fits=lambda seen: len(seen.outputs) == 4 and _BATCH.fit(seen),
    recognises=lambda seen: _BATCH.fit(seen) and _BATCH.are_named(seen),
    describe=_describe,
    classes=lambda _seen: 0,
    rewire=_rewire_batch,
    read=_read_batch,
)
FLAT = Family(
    name="super-gradients-flat",
    title="the same, with flat results",
    gives=f"'{_FLAT}' [M, 7]",
    needs="--labels; --preprocess where it was exported without its own",
    fits=_is_flat,
    recognises=_is_flat,
    describe=_describe,
    classes=lambda _seen: 0,
    rewire=_rewire_flat,
    read=_read_flat,
)
