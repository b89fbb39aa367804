"""Walk through a graph of ONNX, and the graphs inside its nodes: the bodies of loops, the two sides of a branch."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # whoever has a graph has imported it
    from onnx import GraphProto, NodeProto, TensorProto


def inner_graphs(node: "NodeProto") -> Iterator["GraphProto"]:
    """Yield the graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def graphs_of(graph: "GraphProto") -> Iterator["GraphProto"]:
    """Yield a graph and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for inner in inner_graphs(node):
            yield from graphs_of(inner)


def values_read(node: "NodeProto") -> Iterator[str]:
    """Yield the names that a node reads, those that the graphs inside it read or make included.

    An input that is left out has no name.
    """
    yield from filter(None, node.input)
    for graph in inner_graphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from values_read(inner)


def external_locations(graph: "GraphProto") -> Iterator[str]:
    """Yield where, beside the model's file, the constants of a graph, and of those inside it, lie.

    Raises UnicodeDecodeError where that is no text.
    """
    for part in graphs_of(graph):
        for tensor in (*part.initializer, *(array for node in part.node for array in _arrays(node))):
            yield from (text(entry.value) for entry in tensor.external_data if text(entry.key) == "location")


def _arrays(node: "NodeProto") -> Iterator["TensorProto"]:
    for attribute in node.attribute:
        yield from ([attribute.t] if attribute.HasField("t") else [])
        yield from attribute.tensors


def text(value: str | bytes) -> str:
    """Return a text; protobuf gives bytes where they are not UTF-8, and raises UnicodeDecodeError in other versions."""
    return value if isinstance(value, str) else value.decode()
