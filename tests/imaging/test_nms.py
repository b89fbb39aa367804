"""Non-maximum suppression against ten lines that do the same slowly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import NmsKind
from trtjob.imaging.boxes import diou_matrix, iou_matrix
from trtjob.imaging.nms import IntArray, nms

KINDS = [pytest.param(kind, id=kind.value) for kind in NmsKind if kind is not NmsKind.NONE]
BETA = 0.6
Candidates = tuple[FloatArray, FloatArray, IntArray]


def overlap(a: FloatArray, b: FloatArray, kind: NmsKind) -> float:
    matrix = diou_matrix(a[None], b[None], BETA) if kind is NmsKind.DIOU else iou_matrix(a[None], b[None])
    return float(matrix[0, 0])


def naive_nms(boxes: FloatArray, scores: FloatArray, class_ids: IntArray, iou: float, kind: NmsKind) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        rivals = (other for other in kept if class_ids[other] == class_ids[index])
        if all(overlap(boxes[index], boxes[other], kind) <= iou for other in rivals):
            kept.append(index)
    return kept


def candidates(random: Generator, count: int, classes: int = 3) -> Candidates:
    """Crowded boxes, with scores that are all different."""
    corners = random.uniform(0, 60, (count, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 40, (count, 2))]).astype(np.float32)
    scores = (random.permutation(count) + 1).astype(np.float32) / (count + 1)
    return boxes, scores.astype(np.float32), random.integers(0, classes, count)


# Both sides of the size from which each class has a matrix of its own.
sizes = st.sampled_from([0, 1, 2, 7, 40, 192, 193, 260])
seeds = st.integers(0, 2**32 - 1)
thresholds = st.sampled_from([0.0, 0.2, 0.45, 0.7, 1.0])


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, count=st.sampled_from([0, 1, 2, 7, 40]), iou=thresholds)
def test_the_fast_nms_equals_a_naive_one(kind: NmsKind, seed: int, count: int, iou: float) -> None:
    boxes, scores, class_ids = candidates(np.random.default_rng(seed), count)
    kept = nms(boxes, scores, class_ids, iou=iou, kind=kind, beta=BETA)
    assert kept.tolist() == naive_nms(boxes, scores, class_ids, iou, kind)


@given(seed=seeds, count=sizes, iou=thresholds)
def test_where_the_model_has_done_it_every_box_stays(seed: int, count: int, iou: float) -> None:
    boxes, scores, class_ids = candidates(np.random.default_rng(seed), count)
    kept = nms(boxes, scores, class_ids, iou=iou, kind=NmsKind.NONE)
    assert kept.tolist() == np.argsort(-scores).tolist()


@pytest.mark.parametrize("count", [pytest.param(192, id="one-matrix"), pytest.param(193, id="a-matrix-a-class")])
@pytest.mark.parametrize("kind", [pytest.param(NmsKind.GREEDY, id="greedy"), pytest.param(NmsKind.DIOU, id="diou")])
def test_the_fast_nms_equals_a_naive_one_where_its_method_changes(kind: NmsKind, count: int) -> None:
    boxes, scores, class_ids = candidates(np.random.default_rng(count), count, classes=12)
    kept = nms(boxes, scores, class_ids, iou=0.45, kind=kind, beta=BETA)
    assert kept.tolist() == naive_nms(boxes, scores, class_ids, 0.45, kind)


@given(seed=seeds, count=sizes, iou=thresholds)
def test_kept_boxes_of_a_class_overlap_at_most_the_threshold(seed: int, count: int, iou: float) -> None:
    boxes, scores, class_ids = candidates(np.random.default_rng(seed), count)
    kept = nms(boxes, scores, class_ids, iou=iou)
    overlaps = iou_matrix(boxes[kept], boxes[kept])
    is_rival = (class_ids[kept][:, None] == class_ids[kept]) & ~np.eye(len(kept), dtype=bool)
    assert (overlaps[is_rival] <= iou + 1e-6).all()  # OpenCV takes what is nearly equal for equal


@given(seed=seeds, count=sizes, iou=thresholds)
def test_the_order_of_the_input_does_not_matter(seed: int, count: int, iou: float) -> None:
    random = np.random.default_rng(seed)
    boxes, scores, class_ids = candidates(random, count)
    order = random.permutation(count)
    kept = nms(boxes, scores, class_ids, iou=iou)
    shuffled = nms(boxes[order], scores[order], class_ids[order], iou=iou)
    assert order[shuffled].tolist() == kept.tolist()


@given(seed=seeds, count=sizes)
def test_the_best_box_of_each_class_stays(seed: int, count: int) -> None:
    boxes, scores, class_ids = candidates(np.random.default_rng(seed), count)
    kept = set(nms(boxes, scores, class_ids, iou=0.0).tolist())
    for class_id in np.unique(class_ids):
        members = np.flatnonzero(class_ids == class_id)
        assert members[scores[members].argmax()] in kept


SAME = np.array([[0, 0, 9, 9]] * 3, np.float32)


def test_of_equal_scores_the_first_stays() -> None:
    assert nms(SAME, np.array([0.5, 0.5, 0.5], np.float32), np.zeros(3, np.intp), iou=0.5).tolist() == [0]


def test_boxes_of_other_classes_are_left_alone() -> None:
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    assert nms(SAME, scores, np.array([0, 1, 2]), iou=0.5).tolist() == [1, 2, 0]


def test_an_overlap_of_exactly_the_threshold_stays() -> None:
    boxes = np.array([[0, 0, 2, 2], [0, 0, 2, 4]], np.float32)  # an IoU of a half
    scores, class_ids = np.array([0.9, 0.8], np.float32), np.zeros(2, np.intp)
    assert nms(boxes, scores, class_ids, iou=0.5).tolist() == [0, 1]
    assert nms(boxes, scores, class_ids, iou=0.499).tolist() == [0]


def test_a_box_that_is_gone_suppresses_nothing() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    scores = np.array([0.9, 0.8, 0.7], np.float32)
    assert nms(boxes, scores, np.zeros(3, np.intp), iou=0.3).tolist() == [0, 2]


def test_distance_iou_keeps_a_neighbour_that_greedy_suppresses() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10]], np.float32)  # IoU 0.43, with centres apart
    scores, class_ids = np.array([0.9, 0.8], np.float32), np.zeros(2, np.intp)
    assert nms(boxes, scores, class_ids, iou=0.4, kind=NmsKind.GREEDY).tolist() == [0]
    assert nms(boxes, scores, class_ids, iou=0.4, kind=NmsKind.DIOU).tolist() == [0, 1]
