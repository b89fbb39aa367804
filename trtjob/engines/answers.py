"""One image's compact answer: the outputs that count, in one array, so that it has one place wherever it goes.

A classifier's is its scores, a detector's its candidates; of one that gives masks, the candidates' numbers and behind
them those of the prototypes.
"""

from collections.abc import Mapping
from math import prod

import numpy as np

from trtjob.engines.candidates import WIDTH, candidates_from
from trtjob.engines.protocol import FloatArray, Outputs, answer_names
from trtjob.engines.spec import CANDIDATES_NAME, PROTOTYPES_NAME, ModelSpec, Task


def answer_shape_of(shapes: Mapping[str, tuple[int, ...]], spec: ModelSpec) -> tuple[int, ...]:
    """Return the shape of an image's answer. shapes: of its outputs, by name."""
    parts = [shapes[name] for name in answer_names(spec)]
    return parts[0] if len(parts) == 1 else (sum(map(prod, parts)),)


def parts_of(answer: FloatArray, spec: ModelSpec) -> dict[str, FloatArray]:
    """Return views of an answer's parts, by output. answer: in one piece.

    >>> spec = ModelSpec(task="detect", labels=("cat",), input_hw=(8, 8), prototypes=(2, 4, 4))
    >>> {name: part.shape for name, part in parts_of(np.zeros(3 * 8 + 32, np.float32), spec).items()}
    {'candidates': (3, 8), 'prototypes': (2, 4, 4)}
    """
    if spec.prototypes is None:
        return {answer_names(spec)[0]: answer}
    at = answer.size - prod(spec.prototypes)
    return {
        CANDIDATES_NAME: answer[:at].reshape(-1, WIDTH + spec.extras),
        PROTOTYPES_NAME: answer[at:].reshape(spec.prototypes),
    }


def answers_from(outputs: Outputs, spec: ModelSpec) -> FloatArray:
    """Return each image's answer, of all that a model says of a batch."""
    if spec.task is Task.CLASSIFY:
        return outputs.scores
    candidates = candidates_from(outputs, spec)
    if outputs.prototypes is None:
        return candidates
    count = len(candidates)
    return np.concatenate([candidates.reshape(count, -1), outputs.prototypes.reshape(count, -1)], axis=1)
