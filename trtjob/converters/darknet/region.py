"""The [region] layer of YOLOv2 and YOLO9000."""

from dataclasses import dataclass, replace

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.decode import add_head
from trtjob.converters.darknet.files import beside
from trtjob.converters.darknet.heads import Decoder, Head, columns, map_rows, nms_of
from trtjob.converters.darknet.network import Network
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.darknet.tree import Tree, group_softmax, probabilities, read_map, tree_of
from trtjob.converters.darknet.yolo import anchor_pairs, check_channels
from trtjob.converters.graph import Graph

# A class of a tree is taken where it and its ancestors together are more probable than this (get_region_boxes).
_TREE_THRESHOLD = 0.5
# Darknet's own for objects, unless it is called with another: from there on it reports the class's probability.
_OBJECT_THRESHOLD = 0.25


@dataclass(frozen=True, slots=True)
class RegionDecoder:
    """x, y, w, h, objectness, classes (get_region_boxes in region_layer.c)."""

    values: int
    softmax: bool
    anchor_side: int = 0

    def rows(self, graph: Graph, head: Head) -> str:
        return map_rows(graph, head, 5 + self.values)

    def best(self, graph: Graph, rows: str) -> str:
        return graph.add("ReduceMax", self.scores(graph, rows), graph.integers(2), keepdims=0)

    def scores(self, graph: Graph, rows: str) -> str:
        classes = columns(graph, rows, 5, None)
        if self.softmax:
            classes = graph.add("Softmax", classes, axis=2)
        return graph.add("Mul", classes, objectness(graph, rows))

    def place(self, graph: Graph, rows: str) -> tuple[str, str]:
        return graph.add("Sigmoid", columns(graph, rows, 0, 2)), graph.add("Exp", columns(graph, rows, 2, 4))


@dataclass(frozen=True, slots=True)
class TreeDecoder:
    """The same with a tree of classes.

    Without `labels`, an object is of the most special class that is probable enough. Its score is how probable that is,
    where Darknet would take it for an object; below, it is the objectness, which is less. With `labels`, each stands
    for a class of the tree.
    """

    tree: Tree
    labels: tuple[int, ...] = ()
    anchor_side: int = 0

    def rows(self, graph: Graph, head: Head) -> str:
        return map_rows(graph, head, 5 + len(self.tree.parents))

    def best(self, graph: Graph, rows: str) -> str:
        """Go by the objectness: this saves thousands of classes for what is no object."""
        return graph.add("Squeeze", objectness(graph, rows), graph.integers(2))

    def scores(self, graph: Graph, rows: str) -> str:
        tree, score = self.tree, objectness(graph, rows)
        classes = probabilities(graph, tree, group_softmax(graph, tree, columns(graph, rows, 5, None)))
        if self.labels:
            of_labels = graph.add("Gather", classes, graph.constant(np.array(self.labels), "labels"), axis=2)
            return graph.add("Mul", of_labels, score)
        # Children come after their parents, so of the probable classes the last is the most special.
        ranks = graph.constant(np.arange(1, len(tree.parents) + 1, dtype=np.float32), "ranks")
        nothing, threshold = (graph.constant(np.array(value, np.float32)) for value in (0, _TREE_THRESHOLD))
        probable = graph.add("Where", graph.add("Greater", classes, threshold), ranks, nothing)
        last = graph.add("ReduceMax", probable, graph.integers(2), keepdims=1)
        object_threshold = graph.constant(np.array(_OBJECT_THRESHOLD, np.float32))
        shown = graph.add("Where", graph.add("Greater", score, object_threshold), classes, score)
        return graph.add("Where", graph.add("Equal", ranks, last), shown, nothing)

    def place(self, graph: Graph, rows: str) -> tuple[str, str]:
        return RegionDecoder(len(self.tree.parents), softmax=True).place(graph, rows)


def objectness(graph: Graph, rows: str) -> str:
    """Append the probability that a row is an object, [N, rows, 1]."""
    return graph.add("Sigmoid", columns(graph, rows, 4, 5))


def region(net: Network, section: Section, x: Tensor) -> Tensor:
    """Note a head; its anchors are in cells (region_layer.c)."""
    section.expect("coords", "4")
    for name in ("background", "classfix"):
        section.expect(name, "0")
    section.text("sqrt", "")  # has a meaning in [detection] alone
    classes = section.integer("classes", 20, least=1)
    anchors = anchor_pairs(section)[: section.integer("num", 1, least=1)]
    check_channels(section, x, len(anchors), 5 + classes)
    nms_of(section)
    decoder, count = _decoder(net, section, classes)
    stride = np.array([net.input_hw[1] / x.width, net.input_hw[0] / x.height], np.float32)
    add_head(net, Head(x, section, decoder, anchors * stride, count, x.hw))
    return replace(x, is_head=True)


def _decoder(net: Network, section: Section, classes: int) -> tuple[Decoder, int]:
    """Return the decoder, and how many classes come out of it."""
    is_softmax = bool(section.integer("softmax", 0))
    tree, path = tree_of(section, net.weights.path), beside(section, "map", net.weights.path)
    if tree is None:
        return RegionDecoder(classes, is_softmax), classes
    tree.expect(section, classes)
    # The map is for those who want its labels alone; who has all names of the tree wants the tree.
    labels = () if path is None else read_map(path, classes)
    if labels and len(labels) == net.label_count:
        return TreeDecoder(tree, labels), len(labels)
    return TreeDecoder(tree), classes
