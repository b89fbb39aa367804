"""The end of the graph: probabilities, whatever the network gives."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from trtjob.converters.graph import Graph
from trtjob.converters.request import ConversionRequest
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import SCORES_NAME
from trtjob.errors import ConversionError

# What leaves the values as they are.
_PASSING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Dropout"})
# The last operators that tell what a network's output is: of classes that share 1, or each for itself.
SOFTMAX_OPS = frozenset({"Softmax"})
SIGMOID_OPS = frozenset({"Sigmoid", "HardSigmoid"})

GUESSED = (
    "a softmax was added, as if one class alone could be right. That is a guess: if each class stands for itself, "
    "convert it with --scores sigmoid; if its numbers are scores already, with --scores none; and if the guess is "
    "right, with --scores softmax."
)
ONE_NUMBER = (
    "its output is one number without bounds for each image. If it is the logit of the second of two classes, say "
    "--scores sigmoid; if it is a probability already, --scores none"
)


class Ending(Enum):
    """What has to be done to a network's output. PAIR: of one probability two are made, the other's first."""

    NOTHING = "nothing"
    SOFTMAX = "softmax"
    SIGMOIDS = "sigmoids"
    PAIR = "pair"
    PAIR_OF_LOGIT = "pair of logit"


@dataclass(frozen=True, slots=True)
class ChosenEnding:
    """What has to be done to an output, why, and whether that is a guess."""

    ending: Ending
    note: str = ""
    is_guess: bool = False


def last_operator(nodes: Iterable[NodeProto], output: str) -> str:
    """Return the operator that makes a value, before what leaves it as it is; `nothing` for a graph's input."""
    makers = {name: node for node in nodes for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING and node.input and node.input[0] in makers:
        node = makers[node.input[0]]
    return "nothing" if node is None else node.op_type


def ending_asked_for(request: ConversionRequest, last: str, outputs: int) -> Ending | None:
    """Return what --scores asks for; None where nothing is asked.

    last: the operator that the network ends in. Raises ConversionError where that says otherwise.
    """
    asked, one = request.scores, outputs == 1
    if asked is None:
        return None
    if (asked == "softmax" and (last in SIGMOID_OPS or one)) or (asked == "sigmoid" and last in SOFTMAX_OPS):
        why = "has one output" if one and last not in SOFTMAX_OPS else f"ends in a {last.lower()}"
        raise ConversionError(f"--scores {asked}: '{request.model}' {why}. Leave --scores out")
    if asked == "none" or last in SOFTMAX_OPS | SIGMOID_OPS:
        return Ending.PAIR if one else Ending.NOTHING
    if asked == "softmax":
        return Ending.SOFTMAX
    return Ending.PAIR_OF_LOGIT if one else Ending.SIGMOIDS


def is_multi_label(ending: Ending, last: str) -> bool:
    """Tell whether each class of a classifier stands for itself. last: the operator that the network ends in."""
    return ending is Ending.SIGMOIDS or (ending is Ending.NOTHING and last in SIGMOID_OPS)


def classes_of(ending: Ending, outputs: int) -> int:
    """Return how many scores an ending makes."""
    return 2 if ending in {Ending.PAIR, Ending.PAIR_OF_LOGIT} else outputs


def add_scores(graph: Graph, x: str, ending: Ending) -> None:
    """Append the graph's end: `scores` [N, classes], of a value [N, outputs]."""
    match ending:
        case Ending.NOTHING:
            graph.add("Identity", x, output=SCORES_NAME)
        case Ending.SOFTMAX:
            graph.add("Softmax", x, output=SCORES_NAME, axis=1)
        case Ending.SIGMOIDS:
            graph.add("Sigmoid", x, output=SCORES_NAME)
        case Ending.PAIR | Ending.PAIR_OF_LOGIT:
            one = x if ending is Ending.PAIR else graph.add("Sigmoid", x)
            other = graph.add("Sub", graph.constant(np.array(1, np.float32), "one"), one)
            graph.add("Concat", other, one, output=SCORES_NAME, axis=1)


def scores_from(outputs: NDArray[np.floating], ending: Ending) -> FloatArray:
    """Return what `add_scores` gives, of what the original gives."""
    values = outputs.astype(np.float64)
    if ending is Ending.SOFTMAX:
        values = np.exp(values - values.max(1, keepdims=True))
        values /= values.sum(1, keepdims=True)
    if ending in {Ending.SIGMOIDS, Ending.PAIR_OF_LOGIT}:
        values = 1 / (1 + np.exp(-values))
    if ending in {Ending.PAIR, Ending.PAIR_OF_LOGIT}:
        values = np.concatenate([1 - values, values], axis=1)
    return values.astype(np.float32)
