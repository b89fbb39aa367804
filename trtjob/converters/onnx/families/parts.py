"""What several families' outputs are made of, each in the graph and in NumPy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.families.family import Rewired
from trtjob.converters.onnx.outputs import Layout
from trtjob.engines.protocol import FloatArray, Outputs

MOST_FOUND = 300  # boxes of an image, where the graph gives as many as it finds


# -- in the graph -----------------------------------------------------------------------------------------------------


def as_float(graph: Graph, x: str) -> str:
    """Append a value as float32."""
    return graph.add("Cast", x, to=TensorProto.FLOAT)


def part(graph: Graph, x: str, start: int, end: int, axis: int = -1) -> str:
    """Append a slice of the last axis, or another."""
    return graph.add("Slice", x, graph.integers(start), graph.integers(end), graph.integers(axis))


def columns(graph: Graph, x: str, *order: int) -> str:
    """Append the last axis in another order."""
    return graph.add("Gather", x, graph.constant(np.array(order, np.int64), "order"), axis=-1)


def scaled(graph: Graph, x: str, hw: tuple[int, int]) -> str:
    """Append shares of the input, x and y by turns, in pixels."""
    return graph.add("Mul", x, graph.constant(_sides(hw), "sides"))


def corners(graph: Graph, x: str) -> str:
    """Append xyxy of centre and size."""
    centre, size = part(graph, x, 0, 2), part(graph, x, 2, 4)
    half = graph.add("Mul", size, graph.constant(np.array(0.5, np.float32), "half"))
    return graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), axis=-1)


def rows(graph: Graph, boxes: str, scores: str) -> Rewired:
    """Append boxes [N, K, 4] beside their scores [N, K, classes]."""
    return Rewired(graph.add("Concat", boxes, scores, axis=2), Layout.ROWS)


def final(graph: Graph, boxes: str, scores: str, class_ids: str) -> Rewired:
    """Append boxes [N, K, 4], the score and the class of each, [N, K] and of any type."""
    last = graph.integers(-1)
    score, class_id = (graph.add("Unsqueeze", as_float(graph, x), last) for x in (scores, class_ids))
    return Rewired(graph.add("Concat", as_float(graph, boxes), score, class_id, axis=-1), Layout.FINAL)


def after_background(graph: Graph, class_ids: str) -> str:
    """Append classes that begin with 1, for 0 is the background, as numbers of their labels."""
    return graph.add("Sub", as_float(graph, class_ids), graph.constant(np.array(1, np.float32), "one"))


def padded(graph: Graph, found: str) -> Rewired:
    """Append the best of what was found in one image, [M, 6] as `final` has it, as [1, MOST_FOUND, 6]."""
    nothing = np.zeros((MOST_FOUND, 6), np.float32)
    nothing[:, 5] = -1  # no class
    every = graph.add("Concat", as_float(graph, found), graph.constant(nothing, "nothing"), axis=0)
    scores = graph.add("Squeeze", part(graph, every, 4, 5), graph.integers(1))
    _, best = graph.top_k(scores, MOST_FOUND, axis=0)
    return Rewired(graph.add("Unsqueeze", graph.add("Gather", every, best, axis=0), graph.integers(0)), Layout.FINAL)


def final_of_one(graph: Graph, boxes: str, scores: str, class_ids: str) -> Rewired:
    """Append as `final` does what is given of one image alone, in as many rows as are found."""
    every = final(graph, boxes, scores, class_ids).name
    return padded(graph, graph.add("Squeeze", every, graph.integers(0)))


# -- in NumPy ---------------------------------------------------------------------------------------------------------


def _sides(hw: tuple[int, int]) -> FloatArray:
    height, width = hw
    return np.array([width, height, width, height], np.float32)


def scaled_boxes(boxes: NDArray[Any], hw: tuple[int, int]) -> FloatArray:
    """Return shares of the input, x and y by turns, in pixels. hw: of the input."""
    return np.asarray(boxes * _sides(hw), np.float32)


def single(boxes: NDArray[Any], scores: NDArray[Any], class_ids: NDArray[Any], labels: tuple[str, ...]) -> Outputs:
    """Return outputs of boxes that have one class each. boxes: [1, K, 4]; scores, class_ids: [1, K]."""
    is_its_own = class_ids[..., None] == np.arange(len(labels))
    return Outputs(np.asarray(boxes, np.float32), np.asarray(scores[..., None] * is_its_own, np.float32))


def probabilities(logits: NDArray[Any]) -> FloatArray:
    """Return softmax over the last axis."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(powers / powers.sum(-1, keepdims=True), np.float32)


def sigmoids(logits: NDArray[Any]) -> FloatArray:
    """Return the sigmoid of each, computed in float64."""
    return np.asarray(1 / (1 + np.exp(-logits.astype(np.float64))), np.float32)
