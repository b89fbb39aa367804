"""The [yolo] layer, and [Gaussian_yolo], which says of each coordinate how uncertain it is."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.decode import add_head
from trtjob.converters.darknet.heads import Decoder, Head, columns, map_rows, nms_of
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray

log = logging.getLogger(__name__)

_MISSING_ANCHOR = 0.5  # make_yolo_layer
_POINTS = {"center": 0, "left_top": 1, "right_bottom": -1}


@dataclass(frozen=True, slots=True)
class YoloDecoder:
    """x, y, w, h, objectness, classes (get_yolo_box and get_yolo_detections in yolo_layer.c)."""

    classes: int
    new_coords: bool
    anchor_side: int = 0

    def rows(self, graph: Graph, head: Head) -> str:
        return map_rows(graph, head, 5 + self.classes)

    def best(self, graph: Graph, rows: str) -> str:
        """The sigmoid rises, so it is enough to take it of the largest."""
        best = graph.add("ReduceMax", columns(graph, rows, 5, None), graph.integers(2), keepdims=0)
        objectness = graph.add("Squeeze", columns(graph, rows, 4, 5), graph.integers(2))
        return graph.add("Mul", self._probability(graph, best), self._probability(graph, objectness))

    def scores(self, graph: Graph, rows: str) -> str:
        parts = columns(graph, rows, 5, None), columns(graph, rows, 4, 5)
        return graph.add("Mul", *(self._probability(graph, part) for part in parts))

    def place(self, graph: Graph, rows: str) -> tuple[str, str]:
        offset, side = columns(graph, rows, 0, 2), columns(graph, rows, 2, 4)
        if not self.new_coords:
            return graph.add("Sigmoid", offset), graph.add("Exp", side)
        doubled = graph.add("Add", side, side)
        return offset, graph.add("Mul", doubled, doubled)

    def _probability(self, graph: Graph, x: str) -> str:
        return x if self.new_coords else graph.add("Sigmoid", x)


@dataclass(frozen=True, slots=True)
class GaussianDecoder:
    """Mean and deviation of x, y, w and h in turn, objectness, classes (gaussian_yolo_layer.c).

    Scores are less by the mean of the four deviations.
    """

    classes: int
    anchor_side: int

    def rows(self, graph: Graph, head: Head) -> str:
        return map_rows(graph, head, 9 + self.classes)

    def best(self, graph: Graph, rows: str) -> str:
        best = graph.add("Sigmoid", graph.add("ReduceMax", columns(graph, rows, 9, None), graph.integers(2)))
        return graph.add("Squeeze", graph.add("Mul", best, self._certainty(graph, rows)), graph.integers(2))

    def scores(self, graph: Graph, rows: str) -> str:
        classes = graph.add("Sigmoid", columns(graph, rows, 9, None))
        return graph.add("Mul", classes, self._certainty(graph, rows))

    def place(self, graph: Graph, rows: str) -> tuple[str, str]:
        offset = graph.add("Sigmoid", columns(graph, rows, 0, 4, 2))
        return offset, graph.add("Exp", columns(graph, rows, 4, 8, 2))

    def _certainty(self, graph: Graph, rows: str) -> str:
        deviations = graph.add("Sigmoid", columns(graph, rows, 1, 8, 2))
        uncertain = graph.add("ReduceMean", deviations, graph.integers(2))
        certain = graph.add("Sub", graph.constant(np.array(1, np.float32), "one"), uncertain)
        return graph.add("Mul", graph.add("Sigmoid", columns(graph, rows, 8, 9)), certain)


def yolo(net: Network, section: Section, x: Tensor) -> Tensor:
    """Note a head; all heads are decoded together at the end (yolo_layer.c)."""
    classes = section.integer("classes", 20, least=1)
    return _add(net, section, x, YoloDecoder(classes, bool(section.integer("new_coords", 0))), classes, 5)


def gaussian_yolo(net: Network, section: Section, x: Tensor) -> Tensor:
    """Note a head that has a deviation beside each coordinate (gaussian_yolo_layer.c)."""
    point = section.text("yolo_point", "center")
    if point not in _POINTS:
        raise section.error(f"unknown yolo_point={point}: expected one of {', '.join(_POINTS)}", "yolo_point")
    classes = section.integer("classes", 20, least=1)
    return _add(net, section, x, GaussianDecoder(classes, _POINTS[point]), classes, 9)


def _add(net: Network, section: Section, x: Tensor, decoder: Decoder, classes: int, others: int) -> Tensor:
    """Note a head whose anchors have as many values besides the classes."""
    anchors = _anchors(section)
    check_channels(section, x, len(anchors), others + classes)
    nms_of(section)
    add_head(net, Head(x, section, decoder, anchors, classes, x.hw, section.number("scale_x_y", 1.0)))
    return replace(x, is_head=True)


def _anchors(section: Section) -> FloatArray:
    """Return the anchors of the head's mask, in pixels of the input."""
    pairs = anchor_pairs(section)
    section.integer("num", len(pairs))
    mask = section.integers("mask") or list(range(len(pairs)))
    if not all(0 <= index < len(pairs) for index in mask):
        raise section.error(f"mask={mask}: there are {len(pairs)} anchors, numbered from 0", "mask")
    return pairs[mask]


def anchor_pairs(section: Section) -> FloatArray:
    """Return all anchors of a head, float32 [A, 2]."""
    anchors = section.numbers("anchors")
    if len(anchors) % 2 and len(anchors) < 2 * section.integer("num", 1):
        # A comma is missing somewhere, but the weights were trained with what Darknet made of it.
        log.warning(
            "%s:%d: anchors: expected pairs of numbers, found %d numbers: the last pair ends in %g, as in Darknet",
            section.path,
            section.options["anchors"].line,
            len(anchors),
            _MISSING_ANCHOR,
        )
        anchors.append(_MISSING_ANCHOR)
    if not anchors or len(anchors) % 2:
        raise section.error(f"needs pairs of numbers as 'anchors', found {len(anchors)} numbers", "anchors")
    return np.array(anchors, np.float32).reshape(-1, 2)


def check_channels(section: Section, x: Tensor, anchors: int, values: int) -> None:
    """Raise DarknetParseError unless a head's input has its values for each of its anchors."""
    if x.channels != (wanted := anchors * values):
        raise section.error(
            f"{anchors} anchors and classes={section.integer('classes', 20)} need {wanted} channels, "
            f"but the layer before has {x.channels}. Set its filters={wanted}, or correct 'classes'",
            "classes",
        )
