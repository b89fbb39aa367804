"""Azure Custom Vision's detectors (Azure-Samples/customvision-export-samples, samples/python/onnx)."""

from dataclasses import replace

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.anchored import in_pixels
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.heads import Heads
from trtjob.converters.onnx.families.parts import as_float, final_of_one, scaled, scaled_boxes, single
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_class_ids, are_scores
from trtjob.converters.pixels import Color, Pixels, unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode, Sampling

_FORMAT, _RANGE = "Image.BitmapPixelFormat", "Image.NominalPixelRange"  # in the metadata
_ROLES = Roles({"detected_boxes": are_boxes, "detected_scores": are_scores, "detected_classes": are_class_ids})


def _says_it_is(seen: Seen) -> bool:
    return bool({_FORMAT, _RANGE} & seen.metadata.keys())


def _describe(seen: Seen) -> Contract:
    is_bytes = seen.metadata.get(_RANGE) == "NominalRange_0_255"
    color: Color = "bgr" if seen.metadata.get(_FORMAT) == "Bgr8" else "rgb"
    unit = unit_pixels(seen.channels)
    pixels = Pixels(unit.mean, (1.0,) * seen.channels if is_bytes else unit.std, color)
    return Contract(pixels, ResizeMode.STRETCH, Sampling.BICUBIC, is_final=True)


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    boxes, scores, class_ids = _ROLES.names(seen)
    return final_of_one(graph, scaled(graph, as_float(graph, boxes), seen.hw), scores, class_ids)


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, scores, class_ids = _ROLES.arrays(outputs, seen)
    return single(scaled_boxes(boxes, seen.hw), scores, class_ids, labels)


FAMILY = Family(
    name="azure",
    title="Azure Custom Vision, General (compact) [S1]",
    gives="'detected_boxes' [1, M, 4], 'detected_scores' and 'detected_classes' [1, M]",
    fits=_ROLES.fit,
    recognises=lambda seen: _ROLES.fit(seen) and (_ROLES.are_named(seen) or _says_it_is(seen)),
    describe=_describe,
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)

# A centre is within its place already (object_detection/predict.py).
_HEAD = Heads(
    (in_pixels(((0.573, 0.677), (1.87, 2.06), (3.34, 5.47), (7.88, 3.53), (9.77, 9.17))),),
    "in channels",
    {},
    centre="none",
    classes="softmax",
    is_in_cells=True,
)
COMPACT = Family(
    name="azure-compact",
    title="Azure Custom Vision, General (compact)",
    gives="one head [N, 5 * (5 + classes), H / 32, W / 32]",
    fits=_HEAD.fits,
    recognises=lambda seen: _HEAD.fits(seen) and _says_it_is(seen),
    describe=lambda seen: replace(_describe(seen), is_final=False),
    classes=_HEAD.count,
    rewire=_HEAD.rewire,
    read=_HEAD.read,
)
