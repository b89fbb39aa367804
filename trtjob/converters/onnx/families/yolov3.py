"""YOLOv3 and Tiny YOLOv3 of the ONNX model zoo, which come from qqwweee/keras-yolo3, with NMS inside.

They place boxes in an image of the size that `image_shape` says, which is filled in with the input's.
"""

import numpy as np
from onnx import TensorProto

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import as_float, columns, padded, part, single
from trtjob.converters.pixels import unit_pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import ResizeMode, Sampling

_GREY = 128  # around an image
_X_FIRST = (1, 0, 3, 2)


def _fits(seen: Seen) -> bool:
    if len(seen.outputs) != 3:
        return False
    boxes, scores, chosen = seen.outputs.values()
    has_pairs = boxes.ndim == scores.ndim == 3 and boxes.shape[2] == 4 and scores.shape[2] == boxes.shape[1]
    return has_pairs and chosen.ndim in (2, 3) and chosen.shape[-1] == 3 and np.issubdtype(chosen.dtype, np.integer)


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    boxes, scores, chosen = seen.outputs
    every = graph.add("Reshape", graph.add("Cast", chosen, to=TensorProto.INT64), graph.integers(-1, 3))
    flat = columns(graph, graph.add("Reshape", as_float(graph, boxes), graph.integers(-1, 4)), *_X_FIRST)
    score = graph.add("Unsqueeze", graph.add("GatherND", as_float(graph, scores), every), graph.integers(1))
    found = graph.add("GatherND", flat, part(graph, every, 2, 3))
    return padded(graph, graph.add("Concat", found, score, as_float(graph, part(graph, every, 1, 2)), axis=1))


def _read(outputs: Arrays, _seen: Seen, labels: tuple[str, ...]) -> Outputs:
    boxes, scores, chosen = outputs.values()
    image, class_id, box = chosen.reshape(-1, 3).T
    found = boxes[image, box][:, _X_FIRST]
    return single(found[None], scores[image, class_id, box][None], class_id[None], labels)


FAMILY = Family(
    name="yolov3",
    title="YOLOv3 and Tiny YOLOv3 of the ONNX model zoo",
    gives="boxes [1, K, 4], scores [1, classes, K] and, integers, which were chosen [M, 3]",
    needs="--labels and --size, 416x416 as they were trained",
    fits=_fits,
    recognises=lambda seen: _fits(seen) and "image_shape" in seen.inputs,
    describe=lambda seen: Contract(
        unit_pixels(seen.channels), ResizeMode.LETTERBOX, Sampling.BICUBIC, pad_value=_GREY, is_final=True
    ),
    classes=lambda seen: list(seen.outputs.values())[1].shape[1],
    rewire=_rewire,
    read=_read,
)
