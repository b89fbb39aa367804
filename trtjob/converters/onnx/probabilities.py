"""Does a classifier end in probabilities, or in logits that still need a softmax?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtjob.converters.onnx.signature import Foreign
from trtjob.converters.request import ConversionRequest
from trtjob.converters.scores import (
    GUESSED,
    ONE_NUMBER,
    SIGMOID_OPS,
    SOFTMAX_OPS,
    ChosenEnding,
    Ending,
    ending_asked_for,
    last_operator,
)

# Half the last digit of float16 near 1, for a thousand classes that are rounded each on its own.
_SUM_TOLERANCE = 2e-3


def ending_of(
    foreign: Foreign,
    raw: NDArray[np.floating],
    request: ConversionRequest,
    *,
    gives_logits: bool,
    config: Mapping[str, Any],
) -> ChosenEnding:
    """Return how a classifier ends: as the user says, by its last operator where that tells, else by what it answers.

    raw: its output for several images, a softmax of which sums to 1 however it was written down; gives_logits: its
    exporter's models do, of one class among many, unless they end in probabilities; config: of Hugging Face,
    empty where there is none. Raises ConversionError.
    """
    last = last_operator(foreign.model.graph.node, foreign.output.name)
    values = raw.reshape(len(raw), -1).astype(np.float64)
    one = values.shape[1] == 1
    if (asked := ending_asked_for(request, last, values.shape[1])) is not None:
        return ChosenEnding(asked, f"It ends in {last}: --scores {request.scores} says what its output is.")
    if config.get("problem_type") == "multi_label_classification" and last not in SIGMOID_OPS:
        return ChosenEnding(Ending.SIGMOIDS, "config.json says that each class stands for itself: a sigmoid was added.")
    as_they_are = Ending.PAIR if one else Ending.NOTHING
    if last in SOFTMAX_OPS:
        return ChosenEnding(as_they_are, "It ends in a softmax: its scores are taken as they are.")
    if last in SIGMOID_OPS:
        note = "It ends in a sigmoid: its scores are taken as they are, each class for itself."
        return ChosenEnding(as_they_are, note)
    if one:
        raise foreign.error(ONE_NUMBER)
    if (values >= 0).all() and np.abs(values.sum(1) - 1).max() <= _SUM_TOLERANCE:
        return ChosenEnding(as_they_are, f"It ends in {last}, but its scores sum to 1: they are taken as they are.")
    if gives_logits or last == "LogSoftmax":
        return ChosenEnding(Ending.SOFTMAX, f"It ends in {last}, and its scores do not sum to 1: a softmax was added.")
    return ChosenEnding(Ending.SOFTMAX, f"It ends in {last}, and its scores do not sum to 1: {GUESSED}", is_guess=True)
