"""The output of a layer."""

from dataclasses import dataclass


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
