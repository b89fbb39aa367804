"""The end of the graph: probabilities, whatever the network gives."""

from enum import Enum

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.graph import Graph
from trtjob.converters.keras.network import Network, Value
from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import SCORES_NAME

_PROBABILITIES = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})
_CARRIES = frozenset({"Identity", "Flatten", "Reshape", "Squeeze", "Cast"})


class Ending(Enum):
    """What has to be done to a network's output. PAIR: of one probability two are made, the other's first."""

    NOTHING = "nothing"
    SOFTMAX = "softmax"
    SIGMOIDS = "sigmoids"
    PAIR = "pair"
    PAIR_OF_LOGIT = "pair of logit"


# By whether there is one output alone, and whether it was trained on what comes before softmax or sigmoid.
_ENDINGS = {
    (False, False): Ending.NOTHING,
    (False, True): Ending.SOFTMAX,
    (True, False): Ending.PAIR,
    (True, True): Ending.PAIR_OF_LOGIT,
}


def ends_in_probabilities(graph: Graph, output: str) -> bool:
    """Tell whether a value comes from a softmax or sigmoid."""
    makers = {name: node for node in graph.nodes for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _CARRIES:
        node = makers.get(node.input[0])
    return node is not None and node.op_type in _PROBABILITIES


def ending_of(outputs: int, *, from_logits: bool, is_multi_label: bool = False) -> Ending:
    """Return what makes probabilities of so many outputs. from_logits: it is known that these are none yet."""
    if from_logits and is_multi_label and outputs > 1:
        return Ending.SIGMOIDS
    return _ENDINGS[outputs == 1, from_logits]


def classes_of(ending: Ending, outputs: int) -> int:
    return 2 if ending in {Ending.PAIR, Ending.PAIR_OF_LOGIT} else outputs


def add_scores(net: Network, x: Value, ending: Ending) -> None:
    """Append the graph's end: `scores` [N, classes]."""
    graph = net.graph
    graph.scope = "classify"
    match ending:
        case Ending.NOTHING:
            graph.add("Identity", x.name, output=SCORES_NAME)
        case Ending.SOFTMAX:
            graph.add("Softmax", x.name, output=SCORES_NAME, axis=1)
        case Ending.SIGMOIDS:
            graph.add("Sigmoid", x.name, output=SCORES_NAME)
        case Ending.PAIR | Ending.PAIR_OF_LOGIT:
            one = x.name if ending is Ending.PAIR else graph.add("Sigmoid", x.name)
            other = graph.add("Sub", net.number(1), one)
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
