"""YOLOX: a row for each place of three grids, decoded in the graph or not.

tools/export_onnx.py and yolox/models/yolo_head.py in Megvii-BaseDetection/YOLOX.
"""

import numpy as np

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Contract, Family, Rewired, Seen
from trtjob.converters.onnx.families.parts import as_float, part
from trtjob.converters.onnx.outputs import Layout
from trtjob.converters.pixels import Pixels
from trtjob.engines.protocol import FloatArray, Outputs
from trtjob.engines.spec import ResizeMode
from trtjob.imaging.boxes import xyxy_from_cxcywh

STRIDES = (8, 16, 32), (8, 16, 32, 64)


def places(hw: tuple[int, int], strides: tuple[int, ...]) -> int:
    """Return how many places grids of such strides have in an input."""
    return sum((hw[0] // stride) * (hw[1] // stride) for stride in strides)


def strides_of(seen: Seen, boxes_at_a_place: int) -> tuple[int, ...]:
    """Return the strides of the grids that an output has rows of, with an objectness; none where none has."""
    found = next((array for array in seen.outputs.values() if array.ndim == 3), None)
    if found is None or found.shape[2] < 6 or seen.classes not in (0, found.shape[2] - 5):
        return ()
    return grids(seen.hw, found.shape[1], boxes_at_a_place)


def grids(hw: tuple[int, int], rows: int, boxes_at_a_place: int) -> tuple[int, ...]:
    """Return the strides of grids that have so many rows; none where none have."""
    return next((strides for strides in STRIDES if boxes_at_a_place * places(hw, strides) == rows), ())


def _fits(seen: Seen) -> bool:
    return seen.only is not None and bool(strides_of(seen, 1))


def _is_decoded(seen: Seen) -> bool:
    return "Exp" in seen.operators


def _grid(seen: Seen) -> tuple[FloatArray, FloatArray]:
    """Return the corner of each place, [N, 2], and its stride, [N, 1]."""
    corners, strides = [], []
    for stride in strides_of(seen, 1):
        rows, columns = np.mgrid[: seen.hw[0] // stride, : seen.hw[1] // stride]
        corners.append(np.stack([columns, rows], -1).reshape(-1, 2))
        strides.append(np.full((rows.size, 1), stride))
    return np.concatenate(corners).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _rewire(graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
    x = as_float(graph, next(iter(seen.outputs)))
    if _is_decoded(seen):
        return Rewired(x, Layout.OBJECTNESS)
    corner, stride = (
        graph.constant(array, name) for array, name in zip(_grid(seen), ("corner", "stride"), strict=True)
    )
    centre = graph.add("Mul", graph.add("Add", part(graph, x, 0, 2), corner), stride)
    size = graph.add("Mul", graph.add("Exp", part(graph, x, 2, 4)), stride)
    assert seen.only is not None
    return Rewired(graph.add("Concat", centre, size, part(graph, x, 4, seen.only.shape[2]), axis=2), Layout.OBJECTNESS)


def _read(outputs: Arrays, seen: Seen, _labels: tuple[str, ...]) -> Outputs:
    (x,) = outputs.values()
    boxes = x[..., :4]
    if not _is_decoded(seen):
        corner, stride = _grid(seen)
        boxes = np.concatenate([(x[..., :2] + corner) * stride, np.exp(x[..., 2:4]) * stride], -1)
    return Outputs(xyxy_from_cxcywh(boxes), x[..., 5:] * x[..., 4:5])


def _describe(seen: Seen) -> Contract:
    pixels = Pixels((0.0,) * seen.channels, (1.0,) * seen.channels, "bgr" if seen.channels == 3 else "gray")
    return Contract(pixels, ResizeMode.CORNER)


FAMILY = Family(
    name="yolox",
    title="YOLOX",
    gives="[N, places of its grids, 5 + classes]",
    needs="--labels; --preprocess torch for its `legacy` models",
    fits=_fits,
    recognises=_fits,
    describe=_describe,
    classes=lambda seen: 0 if seen.only is None else seen.only.shape[2] - 5,
    rewire=_rewire,
    read=_read,
)
