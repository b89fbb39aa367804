"""Hugging Face's detectors: DETR, Table Transformer, YOLOS, RT-DETR, D-FINE; `logits` and `pred_boxes`.

Exported by optimum (exporters/onnx/model_configs.py); read as transformers' image processors do
(post_process_object_detection), whose settings lie beside the file.
"""

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import (
    as_float,
    corners,
    part,
    probabilities,
    rows,
    scaled,
    scaled_boxes,
    sigmoids,
)
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_logits, are_logits_and_no_boxes
from trtjob.converters.onnx.huggingface import pixels_of, sampling_of
from trtjob.converters.onnx.signature import HUGGING_FACE_INPUT
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode
from trtjob.imaging.boxes import xyxy_from_cxcywh

_ROLES = Roles({"logits": are_logits, "pred_boxes": are_boxes}, {"logits": are_logits_and_no_boxes})


def _is_one(seen: Seen) -> bool:
    return _ROLES.fit(seen) and (_ROLES.are_named(seen) or HUGGING_FACE_INPUT in seen.inputs)


def _columns(seen: Seen) -> int:
    return int(seen.outputs[_ROLES.names(seen)[0]].shape[2])


def _has_nothing(seen: Seen) -> bool:
    """Tell whether the last class is "no object": then the classes share 1, else each stands for itself."""
    return seen.classes == 0 or _columns(seen) == seen.classes + 1


def _describe(seen: Seen) -> Contract:
    pixels, sampling = pixels_of(seen.preprocessor, seen.channels), sampling_of(seen.preprocessor)
    return Contract(pixels, ResizeMode.STRETCH, sampling, is_final=True, multi_label=not _has_nothing(seen))


def _rewire(graph: Graph, seen: Seen, labels: tuple[str, ...]) -> Rewired:
    logits, boxes = (as_float(graph, name) for name in _ROLES.names(seen))
    if _has_nothing(seen):
        scores = part(graph, graph.add("Softmax", logits, axis=2), 0, len(labels))
    else:
        scores = graph.add("Sigmoid", logits)
    return rows(graph, corners(graph, scaled(graph, boxes, seen.hw)), scores)


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    logits, boxes = _ROLES.arrays(outputs, seen)
    scores = probabilities(logits)[..., : len(labels)] if _has_nothing(seen) else sigmoids(logits)
    return Outputs(xyxy_from_cxcywh(scaled_boxes(boxes, seen.hw)), scores)


def _classes(seen: Seen) -> int:
    return _columns(seen) - _has_nothing(seen)


FAMILY = Family(
    name="huggingface",
    title="Hugging Face: DETR, Table Transformer, YOLOS, RT-DETR, D-FINE",
    gives="'logits' [N, Q, classes, or one more] and 'pred_boxes' [N, Q, 4]",
    needs="config.json and preprocessor_config.json beside it, or --labels and --preprocess; --size where it is open",
    fits=_ROLES.fit,
    recognises=_is_one,
    describe=_describe,
    classes=_classes,
    rewire=_rewire,
    read=_read,
)
