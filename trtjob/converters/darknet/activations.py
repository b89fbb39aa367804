"""Darknet's activations, by the name they have in a cfg. Adding one takes a line here and a case in its test."""

from collections.abc import Callable

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.graph import Graph

ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "linear": lambda _, x: x,
    "leaky": lambda graph, x: graph.add("LeakyRelu", x, alpha=0.1),
    "relu": lambda graph, x: graph.add("Relu", x),
    "logistic": lambda graph, x: graph.add("Sigmoid", x),
    "mish": lambda graph, x: graph.add("Mish", x),
    "swish": lambda graph, x: graph.add("Mul", x, graph.add("Sigmoid", x)),
}


def activate(graph: Graph, section: Section, x: str, *, default: str) -> str:
    """Apply the section's activation. Raises DarknetParseError for one that is not known: Darknet would take ReLU."""
    name = section.text("activation", default)
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise section.error(f"unknown activation '{name}': expected one of {known}", "activation")
    return ACTIVATIONS[name](graph, x)
