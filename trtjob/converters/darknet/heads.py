"""A detector's heads: what each says of itself, and what its values mean."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import NmsKind

NMS_BETA = 0.6  # Darknet's beta_nms unless told


class Decoder(Protocol):
    """What the values of one kind of head mean. Heads whose decoders are equal are decoded together.

    anchor_side: where in its box the point is that the head places: 0 in the middle, 1 at the left and top, -1 at the
    right and bottom.
    """

    @property
    def anchor_side(self) -> int: ...

    def rows(self, graph: Graph, head: "Head") -> str:
        """Append the values as [N, anchors * cells, values]."""

    def best(self, graph: Graph, rows: str) -> str:
        """Append the score of each row's best class, [N, rows]."""

    def scores(self, graph: Graph, rows: str) -> str:
        """Append the scores of all classes, [N, rows, classes]."""

    def place(self, graph: Graph, rows: str) -> tuple[str, str]:
        """Append the offset in the cell, before it is scaled, and the side over the anchor's: [N, rows, 2] each."""


@dataclass(frozen=True, slots=True)
class Head:
    """A [yolo] layer or the like. anchors: float32 [A, 2], width and height in pixels; grid_hw: its cells."""

    tensor: Tensor
    section: Section
    decoder: Decoder
    anchors: FloatArray
    classes: int
    grid_hw: tuple[int, int]
    scale_x_y: float = 1.0

    @property
    def rows(self) -> int:
        return len(self.anchors) * self.grid_hw[0] * self.grid_hw[1]


def nms_of(section: Section) -> tuple[NmsKind, float]:
    """Return how a head wants overlapping boxes suppressed, and beta; Darknet asks the last one (detector.c)."""
    kind = section.text("nms_kind", NmsKind.DEFAULT.value)
    known = (NmsKind.DEFAULT, NmsKind.GREEDY, NmsKind.DIOU)
    if kind not in known:
        raise section.error(f"unknown nms_kind={kind}: expected one of {', '.join(known)}", "nms_kind")
    beta = section.number("beta_nms", NMS_BETA)
    if beta <= 0:
        raise section.error(f"beta_nms={beta:g}: expected a number above 0", "beta_nms")
    return NmsKind(kind), beta


def map_rows(graph: Graph, head: Head, values: int) -> str:
    """Append a map of [N, anchors * values, height, width] as [N, anchors * height * width, values]."""
    anchors, cells = len(head.anchors), head.grid_hw[0] * head.grid_hw[1]
    apart = graph.add("Reshape", head.tensor.name, graph.integers(0, anchors, values, cells))
    last = graph.add("Transpose", apart, perm=[0, 1, 3, 2])
    return graph.add("Reshape", last, graph.integers(0, anchors * cells, values))


def columns(graph: Graph, rows: str, start: int, end: int | None, step: int = 1) -> str:
    """Append some of each row's values."""
    stop = np.iinfo(np.int64).max if end is None else end
    bounds = [graph.integers(value) for value in (start, int(stop), 2)]
    return graph.add("Slice", rows, *bounds, *([] if step == 1 else [graph.integers(step)]))
