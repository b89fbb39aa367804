"""TensorFlow's object detection API, as tf2onnx names it (research/object_detection/exporter_lib_v2.py)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import (
    after_background,
    as_float,
    columns,
    final,
    scaled,
    scaled_boxes,
    single,
)
from trtjob.converters.onnx.families.roles import Roles, are_boxes, are_scores
from trtjob.converters.pixels import pixels_of_mode
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode


def _are_whole(array: NDArray[Any]) -> bool:
    """Tell whether there is a class for each box, which it gives as floats."""
    return are_scores(array) and array.shape[1] > 1 and bool((array == np.floor(array)).all())


_ROLES = Roles(
    {"detection_boxes": are_boxes, "detection_scores": are_scores, "detection_classes": are_scores},
    {
        "detection_scores": lambda array: are_scores(array) and array.shape[1] > 1 and not _are_whole(array),
        "detection_classes": _are_whole,
    },
)
_X_FIRST = [1, 0, 3, 2]  # its boxes are y, x, y, x


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    boxes, scores, class_ids = _ROLES.names(seen)
    return final(
        graph,
        scaled(graph, columns(graph, as_float(graph, boxes), *_X_FIRST), seen.hw),
        scores,
        after_background(graph, class_ids),
    )


def _read(outputs: Arrays, seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, scores, class_ids = _ROLES.arrays(outputs, seen)
    return single(scaled_boxes(boxes[..., _X_FIRST], seen.hw), scores, class_ids - 1, labels)


FAMILY = Family(
    name="tensorflow",
    title="TensorFlow's object detection API, SSD and EfficientDet in it",
    gives="'detection_boxes' [N, K, 4], 'detection_scores' and 'detection_classes' [N, K]",
    needs="--labels, from its class 1 on or with `background` first; --size where it is open",
    has_background=True,
    fits=_ROLES.fit,
    recognises=lambda seen: _ROLES.fit(seen) and _ROLES.are_named(seen),
    describe=lambda seen: Contract(pixels_of_mode("none", seen.channels), ResizeMode.STRETCH, is_final=True),
    classes=lambda _seen: 0,
    rewire=_rewire,
    read=_read,
)
