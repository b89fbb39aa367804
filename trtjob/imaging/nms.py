"""Non-maximum suppression: of boxes of one class that overlap, the best stays."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import NmsKind
from trtjob.imaging.boxes import diou_matrix

IntArray = NDArray[np.intp]

# Up to here one pass over all classes costs less than one for each.
_TOGETHER = 192


def nms(
    boxes: FloatArray,
    scores: FloatArray,
    class_ids: IntArray,
    *,
    iou: float,
    kind: NmsKind = NmsKind.DEFAULT,
    beta: float = 0.6,
) -> IntArray:
    """Return the indices of the boxes that stay, by falling score; equal scores in the order given.

    boxes: (N, 4) xyxy; scores, class_ids: (N,). A box goes where a better one of its class overlaps it by more than
    `iou`. kind: `diounms` measures the overlap with `diou_matrix`, the others by IoU (do_nms_sort and diounms_sort in
    Darknet's box.c).

    >>> boxes = np.float32([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]])
    >>> nms(boxes, np.float32([0.8, 0.9, 0.5]), np.array([0, 0, 0]), iou=0.45).tolist()
    [1, 2]
    """
    order = np.argsort(-scores, kind="stable")
    if kind is NmsKind.NONE:
        return order
    boxes, scores, class_ids = boxes[order], scores[order], class_ids[order]
    if len(order) <= _TOGETHER:
        groups = [np.arange(len(order))]
    else:
        groups = [np.flatnonzero(class_ids == class_id) for class_id in np.unique(class_ids)]
    stays = np.zeros(len(order), bool)
    for group in groups:
        if kind is NmsKind.DIOU:
            suppresses = diou_matrix(boxes[group], boxes[group], beta) > iou
            suppresses &= class_ids[group][:, None] == class_ids[group][None, :]
            stays[group] = _greedy(suppresses)
        else:
            stays[group[_by_iou(boxes[group], scores[group], class_ids[group], iou)]] = True
    return order[stays]


def _by_iou(boxes: FloatArray, scores: FloatArray, class_ids: IntArray, iou: float) -> IntArray:
    """Return the indices of the boxes that stay; what has no inside overlaps none, while OpenCV takes two for one."""
    corners_and_sizes = boxes.astype(np.float64)
    corners_and_sizes[:, 2:] -= corners_and_sizes[:, :2]
    has_inside = (corners_and_sizes[:, 2:] > 0).all(1)
    if not has_inside.all():
        proper = np.flatnonzero(has_inside)
        kept = proper[_by_iou(boxes[proper], scores[proper], class_ids[proper], iou)] if len(proper) else proper
        return np.concatenate([kept, np.flatnonzero(~has_inside)])
    suppress: Any = cv2.dnn.NMSBoxesBatched  # its types say lists, which it takes too, more slowly
    kept = suppress(corners_and_sizes, scores, class_ids.astype(np.int32), -math.inf, iou)
    return np.asarray(kept, np.intp).reshape(-1)


def _greedy(suppresses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which boxes stay, the best coming first: each that stands takes those that it suppresses.

    suppresses: [N, N], of which the diagonal is cleared.
    """
    stands = np.ones(len(suppresses), bool)
    # Most boxes overlap no other one; only those that do need the walk.
    np.fill_diagonal(suppresses, val=False)
    for index in np.flatnonzero(suppresses.any(1)):
        if stands[index]:
            stands[index + 1 :] &= ~suppresses[index, index + 1 :]
    return stands
