"""Boxes as float32 arrays [N, 4]: xyxy in pixels, x2 >= x1 and y2 >= y1."""

import numpy as np

from trtjob.engines.protocol import FloatArray


def areas(boxes: FloatArray) -> FloatArray:
    """Return the area of each box, (N,)."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), np.float32)


def iou_matrix(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the intersection over union of every pair.

    a: (N, 4), b: (M, 4). Returns (N, M) in [0, 1]; a pair whose union is empty gives 0.

    >>> iou_matrix(np.float32([[0, 0, 2, 2]]), np.float32([[0, 0, 2, 4], [8, 8, 9, 9]])).tolist()
    [[0.5, 0.0]]
    """
    widths = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    heights = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    intersections = np.maximum(widths, 0) * np.maximum(heights, 0)
    unions = areas(a)[:, None] + areas(b)[None, :] - intersections
    shares = np.divide(intersections, unions, out=np.zeros_like(intersections), where=unions > 0)
    return np.asarray(shares, np.float32)


def diou_matrix(a: FloatArray, b: FloatArray, beta: float) -> FloatArray:
    """Return IoU - (d^2 / c^2)^beta of every pair, (N, M): d between the centres, c the diagonal around both boxes.

    Darknet's box_diounms (box.c); with beta = 1 the distance-IoU of Zheng et al., arXiv:1911.08287, section 3.2.
    Where both boxes are the same point it is the IoU.
    """
    widths = np.maximum(a[:, None, 2], b[None, :, 2]) - np.minimum(a[:, None, 0], b[None, :, 0])
    heights = np.maximum(a[:, None, 3], b[None, :, 3]) - np.minimum(a[:, None, 1], b[None, :, 1])
    diagonals = widths**2 + heights**2
    centres_a, centres_b = (a[:, :2] + a[:, 2:]) / 2, (b[:, :2] + b[:, 2:]) / 2
    distances = ((centres_a[:, None] - centres_b[None]) ** 2).sum(2)
    ratios = np.divide(distances, diagonals, out=np.zeros_like(distances), where=diagonals > 0)
    return np.asarray(iou_matrix(a, b) - ratios**beta, np.float32)


def xyxy_from_cxcywh(boxes: FloatArray) -> FloatArray:
    """Return the corners, float32 [..., 4], of boxes that are given by centre and size.

    boxes: [..., 4] or more; what stands behind the four is left out.

    >>> xyxy_from_cxcywh(np.float32([[5, 5, 2, 4]])).tolist()
    [[4.0, 3.0, 6.0, 7.0]]
    """
    centres, halves = boxes[..., :2], boxes[..., 2:4] / 2
    return np.asarray(np.concatenate([centres - halves, centres + halves], axis=-1), np.float32)


def in_order(boxes: FloatArray) -> FloatArray:
    """Return the boxes with the left edge before the right one and the upper before the lower, as hardly trained
    networks without DFL may not give them.

    >>> in_order(np.float32([[4, 2, 1, 3]])).tolist()
    [[1.0, 2.0, 4.0, 3.0]]
    """
    first, second = boxes[:, :2], boxes[:, 2:]
    return np.concatenate([np.minimum(first, second), np.maximum(first, second)], axis=1)


def clip(boxes: FloatArray, hw: tuple[int, int]) -> FloatArray:
    """Return the boxes, cut at the edges of an image of (height, width)."""
    height, width = hw
    return np.clip(boxes, 0, np.array([width, height, width, height], np.float32))
