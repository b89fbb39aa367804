"""A network under construction: its layers so far, and what they are built into."""

from dataclasses import dataclass, field

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.heads import Head
from trtjob.converters.darknet.tensor import Tensor
from trtjob.converters.darknet.tree import Tree
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray


@dataclass(frozen=True, slots=True)
class Kernel:
    """A convolution's weights as constants of the graph, for the layers that share them. shape: of the kernel."""

    weights: str
    bias: str
    shape: tuple[int, ...]


@dataclass(slots=True)
class Network:
    """A network under construction. outputs: of each layer so far, by its number, counted from 0 as Darknet does.

    input_scale: a factor that the first layer still has to apply to the bytes it gets.
    label_count: how many names of classes are at hand; 0: not known. tree: of the last [softmax] that has one.
    is_pjreddies: computed as pjreddie's Darknet does where the two differ.
    """

    graph: Graph
    weights: WeightsReader
    input_hw: tuple[int, int]
    input_scale: float = 1.0
    label_count: int = 0
    is_pjreddies: bool = False
    outputs: list[Tensor] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    kernels: dict[int, Kernel] = field(default_factory=dict)
    tree: Tree | None = None

    def take(self, section: Section, name: str, *shape: int) -> FloatArray:
        """Return the layer's next weights."""
        return self.weights.take(len(self.outputs), self._place(section), name, shape)

    def suspect(self, section: Section, message: str) -> None:
        """Note that the layer's weights cannot be right."""
        self.weights.suspect(len(self.outputs), f"{self.weights.path}: {self._place(section)}: {message}")

    def _place(self, section: Section) -> str:
        return f"layer {len(self.outputs)} ([{section.kind}], line {section.line} of {section.path})"

    def index(self, section: Section, number: int, name: str) -> int:
        """Return an earlier layer's number, counted from 0; a negative one counts back from this layer."""
        index = number if number >= 0 else len(self.outputs) + number
        if not 0 <= index < len(self.outputs):
            raise section.error(
                f"{name}={number}: there is no such layer before this one, which is layer {len(self.outputs)}", name
            )
        return index

    def layer(self, section: Section, number: int, name: str) -> Tensor:
        """Return an earlier layer's output; a negative number counts back from this layer."""
        tensor = self.outputs[self.index(section, number, name)]
        if tensor.is_head:
            raise section.error(f"{name}={number}: reading the values of a head such as [yolo] is not supported", name)
        return tensor
