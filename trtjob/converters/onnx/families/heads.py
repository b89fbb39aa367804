"""Heads that are not decoded: a box is told from its place and from anchors, which are not in the file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Arrays, Rewired, Seen
from trtjob.converters.onnx.families.parts import as_float, part, probabilities, sigmoids
from trtjob.converters.onnx.outputs import Layout
from trtjob.engines.protocol import FloatArray, Outputs
from trtjob.imaging.boxes import xyxy_from_cxcywh

_BOX, _FIXED = 4, 5  # values of a box, and with its objectness

Order = Literal["anchors first", "anchors last", "in channels"]
Activation = Literal["sigmoid", "softmax", "exp", "square", "none"]
Anchors = Mapping[int, Sequence[Sequence[float]]]  # widths and heights by stride, in pixels of the input


@dataclass(frozen=True, slots=True)
class Heads:
    """What a family's heads are.

    anchors: the tables that its networks have, by the strides of their heads; order: where the anchors stand,
    [N, anchors, H, W, values], [N, H, W, anchors, values] or [N, anchors * values, H, W]; reach: how many places wide
    the range of a centre is, by stride, 1 where nothing is said; centre, size, objectness, classes: what is done to
    them; a size is `square`: four times its sigmoid's square; is_in_cells: people write its anchors in
    places of a head, and not in pixels.
    """

    anchors: tuple[Anchors, ...]
    order: Order
    reach: Mapping[int, float]
    centre: Activation = "sigmoid"
    size: Activation = "exp"
    objectness: Activation = "sigmoid"
    classes: Activation = "sigmoid"
    is_in_cells: bool = False

    def fits(self, seen: Seen) -> bool:
        """Tell whether a graph's outputs are such heads, and nothing else."""
        return self._table(seen) is not None

    def count(self, seen: Seen) -> int:
        """Return the number of classes."""
        return self._values(next(iter(seen.outputs.values())), self._at_a_place(seen)) - _FIXED

    def anchors_in(self, seen: Seen) -> int:
        """Return how many anchors the heads have together, 0 where the outputs are no such heads."""
        heads = list(seen.outputs.values())
        if not self._are_heads(heads) or not all(self._stride(head, seen) for head in heads):
            return 0
        if self.order == "in channels":
            values = seen.classes + _FIXED
            return heads[0].shape[1] // values if seen.classes and not heads[0].shape[1] % values else 0
        return sum(array.shape[1 if self.order == "anchors first" else 3] for array in heads)

    def rewire(self, graph: Graph, seen: Seen, _labels: tuple[str, ...]) -> Rewired:
        values = self.count(seen) + _FIXED
        flat = [self._flat(graph, as_float(graph, name), seen) for name in seen.outputs]
        x = graph.add("Concat", *flat, axis=1) if len(flat) > 1 else flat[0]
        offset, gain, anchors = (
            graph.constant(array, name)
            for array, name in zip(self._places(seen), ("offset", "gain", "anchors"), strict=True)
        )
        ends = (0, 2, _BOX, _FIXED, values)
        centre, size, objectness, classes = (
            _IN_GRAPH[activation](graph, part(graph, x, start, end))
            for activation, start, end in zip(self._activations, ends, ends[1:], strict=False)
        )
        if self._is_objectness_all(seen):
            classes = graph.constant(np.ones((1, 1, 1), np.float32), "one")
            classes = graph.add("Expand", classes, graph.add("Shape", objectness))
        centre = graph.add("Add", graph.add("Mul", centre, gain), offset)
        size = graph.add("Mul", size, anchors)
        return Rewired(graph.add("Concat", centre, size, objectness, classes, axis=2), Layout.OBJECTNESS)

    def read(self, outputs: Arrays, seen: Seen, _labels: tuple[str, ...]) -> Outputs:
        x = np.concatenate([self._rows(array, seen) for array in outputs.values()], axis=1)
        offset, gain, anchors = self._places(seen)
        ends = (0, 2, _BOX, _FIXED, x.shape[2])
        centre, size, objectness, classes = (
            _IN_NUMPY[activation](x[..., start:end])
            for activation, start, end in zip(self._activations, ends, ends[1:], strict=False)
        )
        if self._is_objectness_all(seen):
            classes = np.ones_like(objectness)
        boxes = xyxy_from_cxcywh(np.concatenate([centre * gain + offset, size * anchors], axis=-1))
        return Outputs(boxes, np.asarray(classes * objectness, np.float32))

    def _is_objectness_all(self, seen: Seen) -> bool:
        """Tell whether a lone class is not looked at, as YOLOv7 does, which does not train it; nor does YOLOv5."""
        return self.size == "square" and self.count(seen) == 1

    @property
    def _activations(self) -> tuple[Activation, ...]:
        return self.centre, self.size, self.objectness, self.classes

    def _are_heads(self, arrays: Sequence[NDArray[Any]]) -> bool:
        rank = 4 if self.order == "in channels" else 5
        return all(array.ndim == rank and array.shape[0] == 1 for array in arrays)

    def _at_a_place(self, seen: Seen) -> int:
        """Return how many anchors each head has at each of its places."""
        if seen.described.anchors:
            return len(seen.described.anchors) // 2 // len(seen.outputs)
        return len(next(iter(self.anchors[0].values())))

    def _table(self, seen: Seen) -> Anchors | None:
        """Return the anchors for the strides that the outputs have; None: they are no such heads."""
        heads = list(seen.outputs.values())
        if not self._are_heads(heads):
            return None
        values = {self._values(array, self._at_a_place(seen)) for array in heads}
        if len(values) != 1 or min(values) <= _FIXED or seen.classes not in (0, min(values) - _FIXED):
            return None
        strides = sorted(self._stride(array, seen) for array in heads)
        return next((table for table in self._tables(seen, strides) if strides == sorted(table)), None)

    def _tables(self, seen: Seen, strides: Sequence[int]) -> Sequence[Anchors]:
        """Return the anchors that the user gives, for heads of these strides, else those that were published."""
        if not seen.described.anchors:
            return self.anchors
        unit = strides[0] if self.is_in_cells else 1
        sizes = iter((np.reshape(seen.described.anchors, (-1, 2)) * unit).tolist())
        return [{stride: tuple(next(sizes) for _ in range(self._at_a_place(seen))) for stride in strides}]

    def _values(self, head: NDArray[Any], anchors: int) -> int:
        """Return how many values each anchor has at a place; 0: the head has other anchors."""
        match self.order:
            case "anchors first":
                return head.shape[4] if head.shape[1] == anchors else 0
            case "anchors last":
                return head.shape[4] if head.shape[3] == anchors else 0
            case "in channels":
                return 0 if not anchors or head.shape[1] % anchors else head.shape[1] // anchors

    def _grid(self, head: NDArray[Any]) -> tuple[int, int]:
        height, width = head.shape[1:3] if self.order == "anchors last" else head.shape[2:4]
        return height, width

    def _stride(self, head: NDArray[Any], seen: Seen) -> int:
        """Return a head's stride, 0 where its places do not fit the input."""
        (height, width), hw = self._grid(head), seen.hw
        stride = hw[0] // height if height else 0
        return stride if (height * stride, width * stride) == hw else 0

    def _places(self, seen: Seen) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return for each row what is added to its centre and what it is times, and its anchor: [K, 2], [K, 1], [K, 2].

        A centre is from 0 to 1 of its place, or so far beyond on both sides as `reach` says.
        """
        table = self._table(seen)
        assert table is not None
        offsets, gains, anchors = [], [], []
        for head in seen.outputs.values():
            height, width = self._grid(head)
            stride = self._stride(head, seen)
            reach, sizes = self.reach.get(stride, 1.0), np.array(table[stride])
            ys, xs = np.mgrid[:height, :width]
            corner = np.broadcast_to(np.stack([xs, ys], -1), (len(sizes), height, width, 2))
            anchor = np.broadcast_to(sizes[:, None, None], corner.shape)
            if self.order == "anchors last":
                corner, anchor = corner.transpose(1, 2, 0, 3), anchor.transpose(1, 2, 0, 3)
            offsets.append((corner.reshape(-1, 2) + (1 - reach) / 2) * stride)
            gains.append(np.full((anchor.size // 2, 1), reach * stride))
            anchors.append(anchor.reshape(-1, 2))
        offset, gain, anchor = (np.concatenate(arrays).astype(np.float32) for arrays in (offsets, gains, anchors))
        return offset, gain, anchor

    def _flat(self, graph: Graph, head: str, seen: Seen) -> str:
        """Append a head as rows, [N, K, values]."""
        values = self.count(seen) + _FIXED
        if self.order == "in channels":
            apart = graph.add("Reshape", head, graph.integers(0, self._at_a_place(seen), values, -1))
            head = graph.add("Transpose", apart, perm=[0, 1, 3, 2])
        return graph.add("Reshape", head, graph.integers(0, -1, values))

    def _rows(self, head: NDArray[Any], seen: Seen) -> FloatArray:
        """Return the same in NumPy."""
        values = self.count(seen) + _FIXED
        if self.order == "in channels":
            head = head.reshape(len(head), self._at_a_place(seen), values, -1).transpose(0, 1, 3, 2)
        return np.asarray(head.reshape(len(head), -1, values), np.float32)


def _square(graph: Graph, x: str) -> str:
    twice = graph.add("Mul", graph.add("Sigmoid", x), graph.constant(np.array(2, np.float32), "two"))
    return graph.add("Mul", twice, twice)


_IN_GRAPH: dict[Activation, Callable[[Graph, str], str]] = {
    "sigmoid": lambda graph, x: graph.add("Sigmoid", x),
    "softmax": lambda graph, x: graph.add("Softmax", x, axis=2),
    "exp": lambda graph, x: graph.add("Exp", x),
    "square": _square,
    "none": lambda _graph, x: x,
}
_IN_NUMPY: dict[Activation, Callable[[FloatArray], FloatArray]] = {
    "sigmoid": sigmoids,
    "softmax": probabilities,
    "exp": np.exp,
    "square": lambda x: 4 * sigmoids(x) ** 2,
    "none": lambda x: x,
}
