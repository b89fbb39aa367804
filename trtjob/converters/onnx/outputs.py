"""The ways in which foreign models give their answers, and the graph's end that makes boxes and scores of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from onnx import TensorProto

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.surgery import END
from trtjob.converters.scores import Ending, add_scores
from trtjob.engines.spec import BOXES_NAME, EXTRAS_NAME, PROTOTYPES_NAME, SCORES_NAME

# From it on, reductions take their axes as an input.
_AXES_INPUT_OPSET = 18


class Layout(StrEnum):
    """What an output means; boxes are pixels of the network's input. The first three may have the boxes' extras behind.

    COLUMNS: centre, size and classes, the boxes last (YOLOv8 and after).
    OBJECTNESS: centre, size, objectness and classes of each box (YOLOv5).
    FINAL: corners, of a rotated box centre and size, score and class of each, after NMS or trained to do without.
    ROWS: corners and a score for each class of each box.
    CLASSES: of the whole image.
    """

    COLUMNS = "[N, 4 + classes, boxes]"
    OBJECTNESS = "[N, boxes, 5 + classes]"
    FINAL = "[N, boxes, 6]"
    ROWS = "[N, boxes, corners + classes]"
    CLASSES = "[N, classes]"


@dataclass(frozen=True, slots=True)
class Answer:
    """A foreign model's output.

    shape: of one image, with its batch; ending: of a classifier; most: boxes that are kept, of a detector; extras:
    numbers of each box behind its scores; prototypes: the name of that output, None where there is none.
    """

    name: str
    layout: Layout
    shape: tuple[int, ...]
    classes: int
    ending: Ending = Ending.NOTHING
    most: int = 0
    extras: int = 0
    is_rotated: bool = False
    prototypes: str | None = None

    def renamed(self, names: Mapping[str, str]) -> "Answer":
        """Return the same of a graph some of whose values have other names. names: these, by the old ones."""
        prototypes = None if self.prototypes is None else names.get(self.prototypes, self.prototypes)
        return replace(self, name=names.get(self.name, self.name), prototypes=prototypes)

    @property
    def boxes(self) -> int | None:
        """The number of boxes that are kept, K; None of a classifier."""
        if self.layout is Layout.CLASSES:
            return None
        return min(self.most, self.shape[2 if self.layout is Layout.COLUMNS else 1])


def layout_of(
    shape: tuple[int, ...], classes: int, *, is_yolov5: bool, is_final: bool | None, extras: int = 0
) -> Layout | None:
    """Return what a detector's output of one image means, None where its shape is none that is known.

    extras: numbers of each box behind its scores.
    is_yolov5: of the YOLOv5 repository, none of whose exports is final: with one class both have six values.
    is_final: what the file says; an older one says nothing, and its shape tells.
    """
    if len(shape) != 3 or 0 in shape:
        return None
    fitting = {Layout.COLUMNS: shape[1] == 4 + classes + extras, Layout.FINAL: shape[2] == 6 + extras}
    if is_yolov5:
        # YOLOv9's repository writes the same metadata as YOLOv5's, and columns without an objectness.
        fitting = {
            Layout.OBJECTNESS: shape[2] == 5 + classes + extras,
            Layout.COLUMNS: shape[1] == 4 + classes + extras,
        }
    elif is_final is not None:
        del fitting[Layout.COLUMNS if is_final else Layout.FINAL]
    return next((layout for layout, fits in fitting.items() if fits), None)


def add_end(graph: Graph, answer: Answer, opset: int) -> None:
    """Append what makes `scores`, and what else a detector gives, of the foreign graph's outputs."""
    graph.scope = END
    x = graph.add("Cast", answer.name, to=TensorProto.FLOAT)
    _ENDS[answer.layout](graph, answer, x, opset)
    if answer.prototypes is not None:
        graph.add("Cast", answer.prototypes, to=TensorProto.FLOAT, output=PROTOTYPES_NAME)


def _add_columns(graph: Graph, answer: Answer, x: str, opset: int) -> None:
    best = _max(graph, _slice(graph, x, 4, 4 + answer.classes, axis=1), 1, opset)
    rows = _best_rows(graph, answer, graph.add("Transpose", x, perm=[0, 2, 1]), best)
    _add_corners(graph, rows)
    graph.add("Identity", _slice(graph, rows, 4, 4 + answer.classes), output=SCORES_NAME)
    _add_extras(graph, answer, rows, 4 + answer.classes)


def _add_objectness(graph: Graph, answer: Answer, x: str, opset: int) -> None:
    last = 5 + answer.classes
    best = _max(graph, _slice(graph, x, 5, last), 2, opset)
    objectness = graph.add("Squeeze", _slice(graph, x, 4, 5), graph.integers(2))
    rows = _best_rows(graph, answer, x, graph.add("Mul", best, objectness))
    _add_corners(graph, rows)
    graph.add("Mul", _slice(graph, rows, 5, last), _slice(graph, rows, 4, 5), output=SCORES_NAME)
    _add_extras(graph, answer, rows, last)


def _add_final(graph: Graph, answer: Answer, x: str, _opset: int) -> None:
    if answer.shape[1] > answer.most:
        x = _best_rows(graph, answer, x, graph.add("Squeeze", _slice(graph, x, 4, 5), graph.integers(2)))
    if answer.is_rotated:
        _add_corners(graph, x)
    else:
        graph.add("Identity", _slice(graph, x, 0, 4), output=BOXES_NAME)
    _add_extras(graph, answer, x, 6)
    every_class = graph.constant(np.arange(answer.classes, dtype=np.float32), "classes")
    is_its_own = graph.add("Equal", _slice(graph, x, 5, 6), every_class)
    nothing = graph.constant(np.array(0, np.float32), "zero")
    graph.add("Where", is_its_own, _slice(graph, x, 4, 5), nothing, output=SCORES_NAME)


def _add_rows(graph: Graph, answer: Answer, x: str, opset: int) -> None:
    best = _max(graph, _slice(graph, x, 4, 4 + answer.classes), 2, opset)
    rows = _best_rows(graph, answer, x, best)
    graph.add("Identity", _slice(graph, rows, 0, 4), output=BOXES_NAME)
    graph.add("Identity", _slice(graph, rows, 4, 4 + answer.classes), output=SCORES_NAME)


def _add_classes(graph: Graph, answer: Answer, x: str, _opset: int) -> None:
    if len(answer.shape) > 2:
        x = graph.add("Flatten", x, axis=1)
    add_scores(graph, x, answer.ending)


_ENDS: dict[Layout, Callable[[Graph, Answer, str, int], None]] = {
    Layout.COLUMNS: _add_columns,
    Layout.OBJECTNESS: _add_objectness,
    Layout.FINAL: _add_final,
    Layout.ROWS: _add_rows,
    Layout.CLASSES: _add_classes,
}


def _best_rows(graph: Graph, answer: Answer, rows: str, scores: str) -> str:
    """Append the rows [N, K, values] of the best scores [N, rows]: all that follows is done for them alone."""
    assert answer.boxes is not None
    _, chosen = graph.top_k(scores, answer.boxes)
    return graph.add("GatherND", rows, graph.add("Unsqueeze", chosen, graph.integers(2)), batch_dims=1)


def _add_extras(graph: Graph, answer: Answer, rows: str, start: int) -> None:
    if answer.extras:
        graph.add("Identity", _slice(graph, rows, start, start + answer.extras), output=EXTRAS_NAME)


def _add_corners(graph: Graph, rows: str) -> None:
    centre, side = _slice(graph, rows, 0, 2), _slice(graph, rows, 2, 4)
    half = graph.add("Mul", side, graph.constant(np.array(0.5, np.float32), "half"))
    graph.add("Concat", graph.add("Sub", centre, half), graph.add("Add", centre, half), output=BOXES_NAME, axis=2)


def _slice(graph: Graph, x: str, start: int, end: int, axis: int = 2) -> str:
    return graph.add("Slice", x, *(graph.integers(value) for value in (start, end, axis)))


def _max(graph: Graph, x: str, axis: int, opset: int) -> str:
    if opset >= _AXES_INPUT_OPSET:
        return graph.add("ReduceMax", x, graph.integers(axis), keepdims=0)
    return graph.add("ReduceMax", x, axes=[axis], keepdims=0)
