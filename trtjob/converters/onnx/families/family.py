"""What a family of detectors is: how its graph is known, what it expects of an image, and what its outputs mean."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.graph import Graph
from trtjob.converters.onnx.outputs import Layout
from trtjob.converters.onnx.ultralytics import PAD_VALUE
from trtjob.converters.pixels import Pixels
from trtjob.engines.protocol import Outputs
from trtjob.engines.spec import NmsKind, ResizeMode, Sampling

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Described:
    """What the user, or a node that was cut off, says of boxes and scores.

    boxes: corners or centre and size, in pixels of the input, with an n behind them as shares of it; scores: what makes
    scores of the values, None: they are some; background: the class that is none, 0 or -1 for the last; anchors: widths
    and heights by turns, of raw heads, the finest first; iou: of NMS; is_told: it is the graph that says so.
    """

    boxes: str = "xyxy"
    scores: str | None = None
    background: int | None = None
    anchors: tuple[float, ...] = ()
    iou: float = 0.45
    is_told: bool = False

    @property
    def form(self) -> tuple[str, bool]:
        """The order of a box's numbers, and whether they are shares of the input."""
        return self.boxes.removesuffix("n"), self.boxes.endswith("n")


@dataclass(frozen=True)
class Seen:
    """A graph as it was run once, on made-up images one at a time.

    inputs: names of all that it takes, with their shapes, before what is no image was filled in; outputs: what it gave
    for the first image, by name, in order; hw: of that image; channels: of it; operators: their names, with their
    domains'; metadata: the file's; config, preprocessor: Hugging Face's documents beside it, empty where there are
    none; classes: how many labels there are, 0 where they are not known; described: what is said of boxes and scores.
    """

    inputs: tuple[str, ...]
    outputs: dict[str, NDArray[Any]]
    hw: tuple[int, int]
    channels: int
    operators: frozenset[str]
    metadata: Mapping[str, str]
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0
    described: Described = Described()

    @cached_property
    def names(self) -> frozenset[str]:
        """The outputs' names, without what TensorFlow puts behind them."""
        return frozenset(name.removesuffix(":0") for name in self.outputs)

    def named(self, name: str) -> str:
        """Return an output's name as the graph has it."""
        return name if name in self.outputs else f"{name}:0"

    def shape(self, name: str) -> tuple[int, ...]:
        return self.outputs[self.named(name)].shape

    @property
    def outputs_shown(self) -> str:
        return ", ".join(f"'{name}' {array.dtype} {list(array.shape)}" for name, array in self.outputs.items())

    @property
    def is_no_classifier(self) -> bool:
        """Tell whether the first output has more than one number for each class, so that it cannot be scores."""
        shape = next(iter(self.outputs.values())).shape
        return len(shape) > 2 and max(shape[1:]) != np.prod(shape[1:])

    @property
    def beyond_boxes(self) -> tuple[str, ...]:
        """The names of what is said of each box besides: masks, [K, 1, h, w] or so, and what is called keypoints."""
        return tuple(
            name
            for name, array in self.outputs.items()
            if self.only is None and (array.ndim == 4 or "keypoint" in name)
        )

    @property
    def only(self) -> NDArray[Any] | None:
        """The output, where there is one alone."""
        return next(iter(self.outputs.values())) if len(self.outputs) == 1 else None


@dataclass(frozen=True, slots=True)
class Contract:
    """What a family's own tools do with an image before the network, and with its answer after it.

    pixels: None where they differ from model to model, and the user has to say it; is_final: no box has to be
    suppressed; multi_label: a box may carry several classes; guess: where `pixels` is one, a sentence for the user;
    assumed: what else may be otherwise, a sentence.
    """

    pixels: Pixels | None
    resize: ResizeMode
    sampling: Sampling = Sampling.HALF_PIXEL
    pad_value: int = PAD_VALUE
    iou: float = 0.45
    is_final: bool = False
    multi_label: bool = False
    guess: str | None = None
    assumed: str | None = None

    @property
    def nms_kind(self) -> NmsKind:
        return NmsKind.NONE if self.is_final else NmsKind.DEFAULT


@dataclass(frozen=True, slots=True)
class Rewired:
    """The one value that a graph gives now, and what it means."""

    name: str
    layout: Layout


@dataclass(frozen=True, slots=True)
class Family:
    """name: of --family; title, needs, gives: for a person: who exports so, what has to be said, what the graph gives.

    fits: whether a graph's outputs are of such kinds; recognises: whether they can be nothing else; describe: its
    contract; classes: how many labels there have to be, by its outputs, 0 where they do not tell; rewire: append to a
    graph what makes one value of its outputs, given the labels; read: the same in NumPy, of the graph's own outputs for
    one image, boxes float32 [1, K, 4], xyxy in pixels of the input, and scores [1, K, classes]; has_background: class 0
    is none, whether or not the labels name it; anchors: how many there are in a graph's heads, 0: its outputs are no
    such heads; None: it has none.
    """

    name: str
    title: str
    gives: str
    fits: Callable[[Seen], bool]
    describe: Callable[[Seen], Contract]
    classes: Callable[[Seen], int]
    rewire: Callable[[Graph, Seen, tuple[str, ...]], Rewired]
    read: Callable[[Arrays, Seen, tuple[str, ...]], Outputs]
    needs: str = "--labels"
    has_background: bool = False
    anchors: Callable[[Seen], int] | None = None
    recognises: Callable[[Seen], bool] = lambda _seen: False

    def document(self) -> dict[str, str]:
        """Return what a person has to know of it, for JSON."""
        return {"name": self.name, "title": self.title, "gives": self.gives, "needs": self.needs}
