"""What the layers of a network are built into: an ONNX graph that grows node by node."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.engines.protocol import FloatArray

MAX_SIDE = 16_384  # of an input or a layer's output, in pixels
_SHARED_BYTES = 4096  # smaller constants that are equal become one


@dataclass(frozen=True, slots=True)
class Tensor:
    """The output of a layer: float32 [N, channels, height, width].

    is_head: of a [yolo], whose activations are applied only at the end of the graph: no other layer can read it.
    """

    name: str
    channels: int
    height: int
    width: int
    is_head: bool = False

    @property
    def hw(self) -> tuple[int, int]:
        return self.height, self.width


class Graph:
    """Nodes and constants; the names of values say in which layer they are."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.scope = "input"
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._names: dict[str, int] = {}

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node with one output and return the output's name."""
        output = output or self._name(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def top_k(self, scores: str, k: int) -> str:
        """Append a TopK over axis 1 and return the name of the indices, int64 [N, k], best first."""
        values, indices = self._name("best"), self._name("indices")
        node = helper.make_node("TopK", [scores, self.integers(k)], [values, indices], name=indices, axis=1, sorted=1)
        self.nodes.append(node)
        return indices

    def constant(self, array: NDArray[Any], name: str = "constant") -> str:
        """Add a constant and return its name."""
        array = np.ascontiguousarray(array)
        key = (array.dtype.str, array.shape, array.tobytes()) if array.nbytes <= _SHARED_BYTES else None
        if key is not None and key in self._shared:
            return self._shared[key]
        full_name = self._name(name)
        self.constants.append(numpy_helper.from_array(array, full_name))
        if key is not None:
            self._shared[key] = full_name
        return full_name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64), "integers")

    def _name(self, what: str) -> str:
        name = f"{self.scope}/{what}"
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}_{count}"


@dataclass(frozen=True, slots=True)
class YoloHead:
    """A [yolo] layer. anchors: float32 [A, 2], width and height in pixels of the network input."""

    tensor: Tensor
    section: Section
    anchors: FloatArray
    classes: int
    scale_x_y: float
    new_coords: bool


@dataclass(slots=True)
class Network:
    """A network under construction. outputs: of each layer so far, by its number, counted from 0 as Darknet does.

    input_scale: a factor that the first layer still has to apply to the bytes it gets.
    """

    graph: Graph
    weights: WeightsReader
    input_hw: tuple[int, int]
    input_scale: float = 1.0
    outputs: list[Tensor] = field(default_factory=list)
    heads: list[YoloHead] = field(default_factory=list)

    def take(self, section: Section, name: str, *shape: int) -> FloatArray:
        """Return the layer's next weights."""
        return self.weights.take(len(self.outputs), self._place(section), name, shape)

    def suspect(self, section: Section, message: str) -> None:
        """Note that the layer's weights cannot be right."""
        self.weights.suspect(len(self.outputs), f"{self.weights.path}: {self._place(section)}: {message}")

    def _place(self, section: Section) -> str:
        return f"layer {len(self.outputs)} ([{section.kind}], line {section.line} of {section.path})"

    def layer(self, section: Section, number: int, name: str) -> Tensor:
        """Return an earlier layer's output; a negative number counts back from this layer."""
        index = number if number >= 0 else len(self.outputs) + number
        if not 0 <= index < len(self.outputs):
            raise section.error(
                f"{name}={number}: there is no such layer before this one, which is layer {len(self.outputs)}", name
            )
        if self.outputs[index].is_head:
            raise section.error(f"{name}={number}: reading the values of a [yolo] is not supported", name)
        return self.outputs[index]
