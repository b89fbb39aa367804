"""Darknet's activations, by the name they have in a cfg. Adding one takes a line here and a case in its test.

Formulas: activations.h and activations.c of AlexeyAB/darknet. The kinks of the piecewise ones are written with Clip.
"""

import re
from collections.abc import Callable

import numpy as np

from trtjob.converters.darknet.cfg import Section
from trtjob.converters.graph import Graph

_CHANNELS_EPSILON = 1e-4  # activate_array_normalize_channels


def activate(graph: Graph, section: Section, x: str, *, default: str) -> str:
    """Apply the section's activation. Raises DarknetParseError for one that is not known: Darknet would take ReLU."""
    name = re.split("[#;]", section.text("activation", default))[0]
    if name not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise section.error(
            f"unknown activation '{name}': expected one of {known}. Darknet warns of it and takes relu: write "
            "activation=relu to have the same",
            "activation",
        )
    return ACTIVATIONS[name](graph, x)


def _number(graph: Graph, value: float) -> str:
    return graph.constant(np.array(value, np.float32), "number")


def _times(graph: Graph, x: str, factor: float) -> str:
    return graph.add("Mul", x, _number(graph, factor))


def _clip(graph: Graph, x: str, low: float, high: float) -> str:
    return graph.add("Clip", x, _number(graph, low), _number(graph, high))


def _sloped_outside(graph: Graph, x: str, low: float, high: float, slope: float) -> tuple[str, str]:
    """Return x within its bounds, and what is beyond them times a slope."""
    inside = _clip(graph, x, low, high)
    return inside, _times(graph, graph.add("Sub", x, inside), slope)


def _swish(graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _ramp(graph: Graph, x: str) -> str:
    return graph.add("Add", graph.add("Relu", x), _times(graph, x, 0.1))


def _loggy(graph: Graph, x: str) -> str:
    return graph.add("Sub", _times(graph, graph.add("Sigmoid", x), 2), _number(graph, 1))


def _plse(graph: Graph, x: str) -> str:
    inside, beyond = _sloped_outside(graph, x, -4, 4, 0.01)
    return graph.add("Add", graph.add("Add", _times(graph, inside, 0.125), _number(graph, 0.5)), beyond)


def _lhtan(graph: Graph, x: str) -> str:
    return graph.add("Add", *_sloped_outside(graph, x, 0, 1, 0.001))


def _stair(graph: Graph, x: str) -> str:
    """Half as steep as x: flat where floor(x) is even, steep where it is odd."""
    floor, half = graph.add("Floor", x), graph.add("Floor", _times(graph, x, 0.5))
    is_odd = graph.add("Sub", floor, _times(graph, half, 2))
    return graph.add("Add", half, graph.add("Mul", is_odd, graph.add("Sub", x, floor)))


def _gelu(graph: Graph, x: str) -> str:
    """The approximation with tanh, with Darknet's own roundings of sqrt(2 / pi)."""
    cube = graph.add("Mul", graph.add("Mul", x, x), x)
    inner = graph.add("Add", _times(graph, x, 0.797885), _times(graph, cube, 0.035677))
    return graph.add("Mul", _times(graph, x, 0.5), graph.add("Add", graph.add("Tanh", inner), _number(graph, 1)))


def _hard_mish(graph: Graph, x: str) -> str:
    raised = graph.add("Max", x, _number(graph, -2))
    negative = graph.add("Min", raised, _number(graph, 0))
    return graph.add("Add", raised, _times(graph, graph.add("Mul", negative, negative), 0.5))


def _over_sum(graph: Graph, x: str) -> str:
    total = graph.add("ReduceSum", x, graph.integers(1), keepdims=1)
    return graph.add("Div", x, graph.add("Add", total, _number(graph, _CHANNELS_EPSILON)))


def _channels_softmax_of_largest(graph: Graph, x: str) -> str:
    largest = graph.add("ReduceMax", x, graph.integers(1), keepdims=1)
    return _over_sum(graph, graph.add("Exp", graph.add("Sub", x, largest)))


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "linear": lambda _, x: x,
    "leaky": lambda graph, x: graph.add("LeakyRelu", x, alpha=0.1),
    "revleaky": lambda graph, x: graph.add("LeakyRelu", x, alpha=0.1),  # differs in training only
    "relie": lambda graph, x: graph.add("LeakyRelu", x, alpha=0.01),
    "relu": lambda graph, x: graph.add("Relu", x),
    "relu6": lambda graph, x: _clip(graph, x, 0, 6),
    "ramp": _ramp,
    "elu": lambda graph, x: graph.add("Elu", x, alpha=1.0),
    "selu": lambda graph, x: graph.add("Selu", x, alpha=1.6732, gamma=1.0507),
    "gelu": _gelu,
    "logistic": lambda graph, x: graph.add("Sigmoid", x),
    "loggy": _loggy,
    "tanh": lambda graph, x: graph.add("Tanh", x),
    "hardtan": lambda graph, x: _clip(graph, x, -1, 1),
    "lhtan": _lhtan,
    "plse": _plse,
    "stair": _stair,
    "swish": _swish,
    "mish": lambda graph, x: graph.add("Mish", x),
    "hard_mish": _hard_mish,
    "normalize_channels": lambda graph, x: _over_sum(graph, graph.add("Relu", x)),
    "normalize_channels_softmax": lambda graph, x: _over_sum(graph, graph.add("Exp", x)),
    "normalize_channels_softmax_maxval": _channels_softmax_of_largest,
}
