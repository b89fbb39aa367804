"""Boxes that stand at an angle, as arrays [N, 5]: centre, width, height, and angle in radians, clockwise."""

import math

import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import FloatArray
from trtjob.imaging.detections import ANGLE_DECIMALS, POINT_DECIMALS, RotatedBox

Float64Array = NDArray[np.float64]

_EPSILON = 1e-7
_ROWS = 256  # boxes that are compared with all others at once


def rotated_from(xyxy: NDArray[np.floating], angles: NDArray[np.floating]) -> Float64Array:
    """Return rotated boxes. xyxy: (N, 4), as they stand before they are turned about their centres; angles: (N,).

    The same box has its angle from -90 up to 90 degrees: turned by half a turn, it is the same. So it is where a
    network gives it a negative size.
    """
    boxes = np.asarray(xyxy, np.float64)
    sizes = boxes[:, 2:] - boxes[:, :2]
    turns = np.mod(np.asarray(angles, np.float64) + math.pi / 2, math.pi) - math.pi / 2
    return np.concatenate([boxes[:, :2] + sizes / 2, np.abs(sizes), turns[:, None]], axis=1)


def corners(boxes: Float64Array) -> Float64Array:
    """Return the corners, [N, 4, 2], clockwise from what was the upper left before the box was turned.

    >>> corners(np.array([[10, 10, 4, 2, np.pi / 2]])).round(3).tolist()
    [[[11.0, 8.0], [11.0, 12.0], [9.0, 12.0], [9.0, 8.0]]]
    """
    centres, half_w, half_h = boxes[:, :2], boxes[:, 2:3] / 2, boxes[:, 3:4] / 2
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    along, down = half_w * np.stack([cos, sin], 1), half_h * np.stack([-sin, cos], 1)
    steps = (-along - down, along - down, along + down, down - along)
    return np.stack([centres + step for step in steps], axis=1)


def around(points: Float64Array) -> Float64Array:
    """Return the upright boxes around corners, xyxy (N, 4)."""
    return np.concatenate([points.min(1), points.max(1)], axis=1)


def rounded(boxes: Float64Array, points: Float64Array) -> list[RotatedBox]:
    """Return boxes and their corners, [N, 4, 2], as a record has them: rounded, the angle in degrees."""
    angles = np.degrees(boxes[:, 4]).round(ANGLE_DECIMALS).tolist()
    return [
        RotatedBox((tuple(a), tuple(b), tuple(c), tuple(d)), angle)
        for (a, b, c, d), angle in zip(points.round(POINT_DECIMALS).tolist(), angles, strict=True)
    ]


def probiou_matrix(a: Float64Array, b: Float64Array) -> Float64Array:
    """Return how alike every pair is, (N, M), 0 to 1: 1 less the Hellinger distance of the boxes as Gaussians.

    Llerena et al., arXiv:2106.06072; batch_probiou in ultralytics/utils/metrics.py.

    >>> box = np.array([[0, 0, 4, 2, 0.5]])
    >>> probiou_matrix(box, np.array([[0, 0, 4, 2, 0.5], [90, 0, 4, 2, 0.5]])).round(3).tolist()
    [[1.0, -0.0]]
    """
    (xx_a, yy_a, xy_a), (xx_b, yy_b, xy_b) = _covariances(a), _covariances(b)
    xx, yy, xy = (ours[:, None] + theirs for ours, theirs in ((xx_a, xx_b), (yy_a, yy_b), (xy_a, xy_b)))
    x, y = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    determinant = xx * yy - xy**2
    apart = ((xx * y**2 + yy * x**2) / 4 - xy * x * y / 2) / (determinant + _EPSILON)
    areas = [
        np.maximum(first * second - mixed**2, 0) for first, second, mixed in ((xx_a, yy_a, xy_a), (xx_b, yy_b, xy_b))
    ]
    shapes = np.log(determinant / (4 * np.sqrt(areas[0][:, None] * areas[1]) + _EPSILON) + _EPSILON) / 2
    bhattacharyya = np.clip(apart + shapes, _EPSILON, 100)
    return np.asarray(1 - np.sqrt(1 - np.exp(-bhattacharyya) + _EPSILON))


def _covariances(boxes: Float64Array) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Return the variances along x and y, and the covariance, of boxes as Gaussians."""
    long, short = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return long * cos**2 + short * sin**2, long * sin**2 + short * cos**2, (long - short) * cos * sin


def rotated_nms(
    boxes: Float64Array, scores: FloatArray, class_ids: NDArray[np.intp], *, iou: float
) -> NDArray[np.intp]:
    """Return the indices of the boxes that stay, by falling score; equal scores in the order given.

    A box goes where any better one of its class is as like it as `iou`, be that one gone itself, as in Ultralytics'
    fast_nms (ultralytics/utils/nms.py).

    >>> boxes = np.array([[10, 10, 8, 4, 0.1], [10, 10, 8, 4, 0.2], [10, 10, 4, 8, 0.1]])
    >>> rotated_nms(boxes, np.float32([0.8, 0.9, 0.5]), np.array([0, 0, 0]), iou=0.7).tolist()
    [1, 2]
    """
    order = np.argsort(-scores, kind="stable")
    boxes, class_ids = boxes[order], class_ids[order]
    goes = np.zeros(len(order), np.bool_)
    for start in range(0, len(order), _ROWS):
        rows = slice(start, start + _ROWS)
        is_like = probiou_matrix(boxes[rows], boxes) >= iou
        is_like &= class_ids[rows, None] == class_ids[None]
        goes |= np.triu(is_like, start + 1).any(0)
    return order[~goes]
