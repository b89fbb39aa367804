"""The [detection] layer of the first YOLO."""

from dataclasses import dataclass, replace

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.decode import add_head
from trtjob.converters.darknet.heads import Head, columns, nms_of
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.graph import Graph


@dataclass(frozen=True, slots=True)
class DetectionDecoder:
    """One vector: the classes of each cell, an objectness for each of its boxes, and then their x, y, w, h.

    All are linear. sqrt: the sides are given as their square roots (get_detection_detections in detection_layer.c).
    """

    classes: int
    softmax: bool
    sqrt: bool
    anchor_side: int = 0

    def rows(self, graph: Graph, head: Head) -> str:
        """Append x, y, w, h, objectness and the classes of each box; boxes of one cell have the same classes."""
        cells, boxes = head.grid_hw[0] * head.grid_hw[1], len(head.anchors)
        flat = graph.add("Reshape", head.tensor.name, graph.integers(0, 1, -1))
        ends = [cells * self.classes, cells * (self.classes + boxes)]
        parts = [columns(graph, flat, 0, ends[0]), columns(graph, flat, *ends), columns(graph, flat, ends[1], None)]
        classes = graph.add("Reshape", parts[0], graph.integers(0, cells, self.classes))
        if self.softmax:
            classes = graph.add("Softmax", classes, axis=2)
        repeated = classes if boxes == 1 else graph.add("Concat", *[classes] * boxes, axis=1)
        objectness, places = (
            _by_box(graph, part, cells, boxes, size) for part, size in zip(parts[1:], (1, 4), strict=True)
        )
        return graph.add("Concat", places, objectness, repeated, axis=2)

    def best(self, graph: Graph, rows: str) -> str:
        return graph.add("ReduceMax", self.scores(graph, rows), graph.integers(2), keepdims=0)

    def scores(self, graph: Graph, rows: str) -> str:
        return graph.add("Mul", columns(graph, rows, 5, None), columns(graph, rows, 4, 5))

    def place(self, graph: Graph, rows: str) -> tuple[str, str]:
        side = columns(graph, rows, 2, 4)
        return columns(graph, rows, 0, 2), graph.add("Mul", side, side) if self.sqrt else side


def _by_box(graph: Graph, x: str, cells: int, boxes: int, size: int) -> str:
    """Append [N, 1, cells * boxes * size] as [N, boxes * cells, size]."""
    apart = graph.add("Reshape", x, graph.integers(0, cells, boxes, size))
    turned = graph.add("Transpose", apart, perm=[0, 2, 1, 3])
    return graph.add("Reshape", turned, graph.integers(0, boxes * cells, size))


def detection(net: Network, section: Section, x: Tensor) -> Tensor:
    """Note a head; its boxes are shares of the whole image, and their centres of a cell."""
    coords = section.integer("coords", 1)
    if coords != 4:
        raise section.error(f"coords={coords}: expected coords=4", "coords")
    classes, boxes = section.integer("classes", 1, least=1), section.integer("num", 1, least=1)
    side = section.integer("side", 7, least=1)
    section.expect("reorg", "0")
    if x.size != (wanted := side * side * (classes + 5 * boxes)):
        raise section.error(
            f"side={side}, num={boxes} and classes={classes} need {wanted} values, but the layer before has {x.size}. "
            f"Set its output={wanted}, or correct 'classes'",
            "classes",
        )
    nms_of(section)
    decoder = DetectionDecoder(classes, *(bool(section.integer(name, 0)) for name in ("softmax", "sqrt")))
    whole = np.tile(np.array(net.input_hw[::-1], np.float32), (boxes, 1))
    add_head(net, Head(x, section, decoder, whole, classes, (side, side)))
    return replace(x, is_head=True)
