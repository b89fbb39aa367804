"""Does a classifier end in probabilities, or in logits that still need a softmax?"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto

from trtjob.converters.onnx.signature import Foreign

# What leaves the values as they are.
_PASSING = frozenset({"Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Dropout"})
# Half the last digit of float16 near 1, for a thousand classes that are rounded each on its own.
_SUM_TOLERANCE = 2e-3


@dataclass(frozen=True, slots=True)
class Ending:
    """Whether a softmax has to be appended, and why."""

    with_softmax: bool
    note: str


def ending_of(foreign: Foreign, raw: NDArray[np.floating]) -> Ending:
    """Return how a classifier ends: by its last operator where that tells, else by what it says of images.

    raw: its output for several images, a softmax of which sums to 1 however it was written down.
    """
    last = _last_operator(foreign.model, foreign.output.name)
    if last == "Softmax":
        return Ending(False, "It ends in a softmax: its scores are taken as they are.")
    if last == "Sigmoid":
        return Ending(False, "It ends in a sigmoid: its scores are taken as they are, each class for itself.")
    values = raw.reshape(len(raw), -1).astype(np.float64)
    are_shares = (values >= 0).all() and np.abs(values.sum(1) - 1).max() <= _SUM_TOLERANCE
    if are_shares and values.shape[1] > 1:
        return Ending(False, f"It ends in {last}, but its scores sum to 1: they are taken as they are.")
    return Ending(True, f"It ends in {last}, and its scores do not sum to 1: a softmax was added.")


def _last_operator(model: ModelProto, output: str) -> str:
    makers: dict[str, NodeProto] = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None and node.op_type in _PASSING and node.input:
        earlier = makers.get(node.input[0])
        if earlier is None:
            break
        node = earlier
    return "nothing" if node is None else node.op_type
