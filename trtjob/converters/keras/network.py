"""A Keras model under translation: the values of its graph so far, and what they are built into."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray
from trtjob.errors import ConversionError


class UntranslatableError(ConversionError):
    """A layer that has no translation of ours; TensorFlow's own graph is the way then."""


@dataclass(frozen=True, slots=True)
class Value:
    """A float32 tensor of the graph.

    shape: of one image, as Keras has it; (height, width, channels) is [N, channels, height, width] in the graph.
    margins: zeros around it that no node has added yet (top, left, bottom, right): a convolution adds them itself.
    """

    name: str
    shape: tuple[int, ...]
    margins: tuple[int, ...] = (0, 0, 0, 0)

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 3

    @property
    def channel_axis(self) -> int:
        """The graph's axis that is Keras's last."""
        return 1 if self.is_map else len(self.shape)

    def padded(self, top: int, left: int, bottom: int, right: int) -> "Value":
        """Return a map with wider margins; its shape has them, too."""
        height, width, channels = self.shape
        added = (top, left, bottom, right)
        margins = tuple(before + more for before, more in zip(self.margins, added, strict=True))
        return Value(self.name, (height + top + bottom, width + left + right, channels), margins)


@dataclass(slots=True)
class Network:
    """A model under translation. count: of its layers so far.

    norms: the batch normalisations that a layer takes into its own weights, by its id.
    """

    graph: Graph
    norms: dict[int, Any] = field(default_factory=dict)
    count: int = 0

    def add(self, op: str, x: Value, *others: str, shape: tuple[int, ...] | None = None, **attributes: Any) -> Value:
        """Append a node on a value, margins included."""
        x = self.settled(x)
        return Value(self.graph.add(op, x.name, *others, **attributes), x.shape if shape is None else shape)

    def number(self, value: float) -> str:
        return self.graph.constant(np.array(value, np.float32), "number")

    def constant(self, array: NDArray[Any], name: str) -> str:
        return self.graph.constant(np.asarray(array, np.float32), name)

    def per_channel(self, x: Value, array: NDArray[Any], name: str) -> str:
        """Add a constant that holds one number for each of the value's channels, or one for all; return its name."""
        array = np.asarray(array, np.float32).reshape(-1)
        return self.graph.constant(array.reshape(-1, 1, 1) if x.is_map else array, name)

    def like(self, x: Value, array: NDArray[Any]) -> str:
        """Add a constant that goes with a value, its axes Keras's and fewer perhaps; return its name."""
        array = np.asarray(array, np.float32)
        axes = len(x.shape) + 1
        fits = array.ndim < axes or (array.ndim == axes and len(array) == 1)
        expect(fits, "it is given numbers for more than one image")
        if array.ndim > 1 and x.is_map:
            array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(0, 3, 1, 2)
        return self.graph.constant(array.reshape(-1, 1, 1) if array.ndim == 1 and x.is_map else array, "numbers")

    def settled(self, x: Value) -> Value:
        """Return a value without margins: they are zeros of the graph now."""
        if not any(x.margins):
            return x
        top, left, bottom, right = x.margins
        pads = self.graph.integers(0, 0, top, left, 0, 0, bottom, right)
        return Value(self.graph.add("Pad", x.name, pads, mode="constant"), x.shape)

    def as_keras_has_it(self, x: Value) -> Value:
        """Return a value with its axes in Keras's order. Only what moves its numbers needs that."""
        return self._moved(x, (0, 2, 3, 1))

    def as_graph_has_it(self, x: Value) -> Value:
        """Return a value whose axes are in Keras's order with those of the graph."""
        return self._moved(x, (0, 3, 1, 2))

    def _moved(self, x: Value, perm: tuple[int, ...]) -> Value:
        if not x.is_map:
            return x
        x = self.settled(x)
        height, width, channels = x.shape
        if height * width == 1 or channels == 1:  # the numbers lie the same way either way
            sizes = (0, *((height, width, channels) if perm[1] == 2 else (channels, height, width)))
            return replace(x, name=self.graph.add("Reshape", x.name, self.graph.integers(*sizes)))
        return replace(x, name=self.graph.add("Transpose", x.name, perm=perm))


Translate = Callable[..., Value]  # of a network, a layer and its inputs


def weights_of(variable: Any) -> FloatArray:
    """Return a variable's numbers; large ones are not copied."""
    # `numpy()` copies; a tensor of TensorFlow lends its memory to an array.
    return np.asarray(np.asarray(variable.value.read_value()), np.float32)


def expect(is_so: bool, what: str) -> None:
    """Raise UntranslatableError where a layer is set to something that has no translation of ours."""
    if not is_so:
        raise UntranslatableError(what)


def expect_channels_last(layer: Any) -> None:
    """Raise UntranslatableError for a layer whose channels come first."""
    expect(getattr(layer, "data_format", None) in {"channels_last", None}, "its data_format is not channels_last")
