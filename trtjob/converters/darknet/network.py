"""A network under construction: its layers so far, and what they are built into."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.darknet.weights import WeightsReader
from trtjob.converters.graph import Graph
from trtjob.engines.protocol import FloatArray

if TYPE_CHECKING:
    from trtjob.converters.darknet.heads import Head
    from trtjob.converters.darknet.tree import Tree

MAX_SIDE = 16_384  # of an input or a layer's output, in pixels


@dataclass(frozen=True, slots=True)
class Tensor:
    """The output of a layer: float32 [N, channels, height, width]; a vector has a height and a width of 1.

    is_head: of a [yolo] or the like, whose activations are applied only at the end of the graph: no other layer can
    read it.
    """

    name: str
    channels: int
    height: int
    width: int
    is_head: bool = False

    @property
    def hw(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def size(self) -> int:
        """The number of values of one image."""
        return self.channels * self.height * self.width


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
    heads: "list[Head]" = field(default_factory=list)
    kernels: dict[int, Kernel] = field(default_factory=dict)
    tree: "Tree | None" = None

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
