"""What is looked at of a detector's answer: a few (box, class) pairs, the best first.

A graph gives them as `candidates` (trtjob/converters/candidates.py); here they are computed of its other outputs.
"""

import numpy as np

from trtjob.engines.protocol import FloatArray, Outputs
from trtjob.engines.spec import ModelSpec

WIDTH = 6  # x1, y1, x2, y2, score, class id; behind them the box's extras


def count_of(boxes: int, classes: int, spec: ModelSpec) -> int:
    """Return how many candidates an image has, M, of a graph that gives so many boxes."""
    return min(spec.candidates, boxes * classes if spec.multi_label else boxes)


def candidates_from(outputs: Outputs, spec: ModelSpec) -> FloatArray:
    """Return a detector's candidates, float32 [N, M, 6 + extras]: xyxy in pixels of the network's input, score,
    class id, and what else it says of the box.

    By falling score, of every class of a box where the model is multi-label, else of its best class; equal ones in the
    order of the boxes.

    >>> spec = ModelSpec(task="detect", labels=("cat", "dog"), input_hw=(100, 100), candidates=1)
    >>> boxes, scores = np.float32([[[0, 0, 9, 9], [5, 5, 7, 7]]]), np.float32([[[0.25, 0], [0, 0.5]]])
    >>> candidates_from(Outputs(boxes, scores), spec).tolist()
    [[[5.0, 5.0, 7.0, 7.0, 0.5, 1.0]]]
    """
    assert outputs.boxes is not None  # a detector's
    scores, classes = outputs.scores, outputs.scores.shape[2]
    count = count_of(scores.shape[1], classes, spec)
    if spec.multi_label:
        pairs = np.arange(scores.shape[1] * classes).reshape(1, -1)
    else:
        pairs = np.arange(scores.shape[1]) * classes + scores.argmax(2)
    pairs = np.broadcast_to(pairs, (len(scores), pairs.shape[1]))
    best = np.take_along_axis(scores.reshape(len(scores), -1), pairs, 1)
    order = np.argsort(-best, axis=1, kind="stable")[:, :count]
    rows, class_ids = np.divmod(np.take_along_axis(pairs, order, 1), classes)
    boxes = np.take_along_axis(outputs.boxes, rows[..., None], 1)
    chosen = np.take_along_axis(best, order, 1)
    extras = [] if outputs.extras is None else [np.take_along_axis(outputs.extras, rows[..., None], 1)]
    return np.concatenate([boxes, chosen[..., None], class_ids[..., None], *extras], 2).astype(np.float32)
