import math

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trtjob.imaging.rotated import Float64Array, around, corners, probiou_matrix, rotated_from, rotated_nms, rounded

COORDINATES = st.floats(-50, 50, width=32)
SIZES = st.floats(1, 40, width=32) | st.floats(-40, -1, width=32)  # a network may turn a box over
ANGLES = st.floats(-7, 7, width=32)
BOXES = st.lists(st.tuples(COORDINATES, COORDINATES, SIZES, SIZES, ANGLES), min_size=1, max_size=12).map(np.array)


@given(BOXES)
def test_a_box_is_the_one_that_opencv_turns(boxes: Float64Array) -> None:
    half = boxes[:, 2:4] / 2
    turned = rotated_from(np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1), boxes[:, 4])
    for (x, y, width, height, angle), found in zip(boxes.tolist(), corners(turned), strict=True):
        wanted = cv2.boxPoints(((x, y), (abs(width), abs(height)), math.degrees(angle)))
        assert all(np.abs(wanted - point).max(1).min() < 0.01 for point in found)
        assert cv2.contourArea(found.astype(np.float32), oriented=True) > 0  # clockwise, y down


@given(BOXES)
def test_the_angle_goes_from_the_first_corner_to_the_second(boxes: Float64Array) -> None:
    half = boxes[:, 2:4] / 2
    turned = rotated_from(
        np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1).astype(np.float32),
        boxes[:, 4].astype(np.float32),
    )
    for one in rounded(turned, corners(turned)):
        (x1, y1), (x2, y2) = one.corners[:2]
        assert -90 <= one.angle <= 90
        along = math.degrees(math.atan2(y2 - y1, x2 - x1))
        assert abs((along - one.angle + 180) % 360 - 180) < 2


@given(BOXES)
def test_half_a_turn_changes_nothing(boxes: Float64Array) -> None:
    half = boxes[:, 2:4] / 2
    xyxy = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], 1)
    once = corners(rotated_from(xyxy, boxes[:, 4]))
    again = corners(rotated_from(xyxy, boxes[:, 4] + math.pi))
    np.testing.assert_allclose(around(once), around(again), atol=1e-6)


@given(BOXES)
def test_likeness_is_mutual_and_a_box_is_like_itself(boxes: Float64Array) -> None:
    found = probiou_matrix(boxes, boxes)
    np.testing.assert_allclose(found, found.T, atol=1e-6)
    assert found.diagonal().min() > 0.99
    assert -1e-6 <= found.min() <= found.max() <= 1


def test_likeness_is_that_of_ultralytics() -> None:
    # batch_probiou of ultralytics 8.4 on these boxes, worked out by hand from its formula
    a = np.array([[100, 100, 40, 20, 0.0]])
    b = np.array([[100, 100, 40, 20, math.pi / 2], [110, 105, 30, 20, 0.3]])
    np.testing.assert_allclose(probiou_matrix(a, b), [[1 - math.sqrt(1 - 0.8), naive(a[0], b[1])]], atol=1e-4)


def naive(a: Float64Array, b: Float64Array) -> float:
    """Return 1 - the Hellinger distance of two Gaussians, from their covariance matrices."""
    matrices = []
    for box in (a, b):
        turn = np.array([[math.cos(box[4]), -math.sin(box[4])], [math.sin(box[4]), math.cos(box[4])]])
        matrices.append(turn @ np.diag(box[2:4] ** 2 / 12) @ turn.T)
    mean = (matrices[0] + matrices[1]) / 2
    away = a[:2] - b[:2]
    distance = away @ np.linalg.inv(mean) @ away / 8
    distance += math.log(np.linalg.det(mean) / math.sqrt(np.prod([np.linalg.det(each) for each in matrices]))) / 2
    return float(1 - math.sqrt(1 - math.exp(-distance)))


@given(BOXES, st.integers(0, 3))
def test_a_box_stays_where_no_better_one_of_its_class_is_like_it(boxes: Float64Array, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, classes = random.random(len(boxes)).astype(np.float32), random.integers(0, 2, len(boxes))
    kept = set(rotated_nms(boxes, scores, classes, iou=0.3).tolist())
    like = probiou_matrix(boxes, boxes)
    for index in range(len(boxes)):
        better = (scores > scores[index]) & (classes == classes[index])
        assert (index in kept) == (not (like[index][better] >= 0.3).any())


def test_many_boxes_are_compared_in_parts_with_the_same_result() -> None:
    random = np.random.default_rng(1)
    boxes = np.concatenate(
        [random.uniform(0, 200, (600, 2)), random.uniform(5, 40, (600, 2)), random.random((600, 1))], 1
    )
    scores, classes = random.random(600).astype(np.float32), np.zeros(600, np.intp)
    kept = rotated_nms(boxes, scores, classes, iou=0.2).tolist()
    order = np.argsort(-scores)
    like = np.triu(probiou_matrix(boxes[order], boxes[order]) >= 0.2, 1).any(0)
    assert kept == order[~like].tolist()
