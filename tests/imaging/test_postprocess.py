"""From arrays to a record's detections and classes."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtjob.engines.candidates import candidates_from
from trtjob.engines.protocol import FloatArray, Outputs
from trtjob.engines.spec import ModelSpec, NmsKind, ResizeMode, Sampling, Task
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.detections import Classification, Detection
from trtjob.imaging.postprocess import classes_from, detections_from, labels_from
from trtjob.imaging.resize import Placement, prepare

LABELS = ("cat", "dog", "bird")
AS_IT_IS = Placement((0.0, 0.0), (1.0, 1.0))


def model(*, multi_label: bool = False, input_hw: tuple[int, int] = (100, 100)) -> ModelSpec:
    return ModelSpec(task=Task.DETECT, labels=LABELS, input_hw=input_hw, multi_label=multi_label, candidates=99)


def detect(
    boxes: list[list[float]],
    scores: list[list[float]],
    *,
    spec: ModelSpec | None = None,
    placement: Placement = AS_IT_IS,
    hw: tuple[int, int] = (100, 100),
    min_score: float = 0.1,
    class_ids: frozenset[int] | None = None,
) -> tuple[Detection, ...]:
    spec = spec or model()
    outputs = Outputs(
        np.array(boxes, np.float32).reshape(1, -1, 4), np.array(scores, np.float32).reshape(1, -1, len(LABELS))
    )
    candidates = candidates_from(outputs, spec)[0]
    found = detections_from(candidates, placement, spec, hw=hw, min_score=min_score, iou=0.45, class_ids=class_ids)
    assert not found.is_truncated
    return found.detections


def found(detections: tuple[Detection, ...]) -> list[tuple[str, float]]:
    return [(detection.label, detection.score) for detection in detections]


HERE, THERE = [10.0, 10.0, 30.0, 30.0], [50.0, 50.0, 90.0, 90.0]


def test_a_score_of_exactly_the_least_counts_and_one_below_does_not() -> None:
    scores = [[0.5, 0, 0], [0, np.nextafter(np.float32(0.5), np.float32(0)), 0]]
    assert found(detect([HERE, THERE], scores, min_score=0.5)) == [("cat", 0.5)]


def test_a_box_has_its_best_class_only() -> None:
    assert found(detect([HERE], [[0.3, 0.6, 0.4]])) == [("dog", 0.6)]


def test_a_box_of_a_multi_label_model_has_every_class_that_counts() -> None:
    assert found(detect([HERE], [[0.3, 0.6, 0.05]], spec=model(multi_label=True))) == [("dog", 0.6), ("cat", 0.3)]


def test_only_the_classes_asked_for_are_found() -> None:
    scores = [[0.9, 0, 0], [0, 0.8, 0]]
    assert found(detect([HERE, THERE], scores, class_ids=frozenset({1, 2}))) == [("dog", 0.8)]


def test_a_box_whose_best_class_was_not_asked_for_is_not_passed_off_as_another() -> None:
    assert detect([HERE], [[0.9, 0.8, 0]], class_ids=frozenset({1})) == ()


@pytest.mark.parametrize(
    "box", [pytest.param([np.nan, 0, 5, 5], id="nan"), pytest.param([0, 0, np.inf, 5], id="infinite")]
)
def test_a_box_that_is_no_box_is_dropped_and_the_others_stay(box: list[float]) -> None:
    assert found(detect([box, THERE], [[0.9, 0, 0], [0, 0.5, 0]])) == [("dog", 0.5)]


@pytest.mark.parametrize("multi_label", [pytest.param(False, id="one-class"), pytest.param(True, id="multi-label")])
def test_a_score_that_is_not_a_number_does_not_count(multi_label: bool) -> None:
    scores = [[np.nan, 0, 0], [0, 0.5, 0]]
    assert found(detect([HERE, THERE], scores, spec=model(multi_label=multi_label))) == [("dog", 0.5)]


def test_a_box_that_is_turned_inside_out_has_its_edges_in_order_and_suppresses_none() -> None:
    first, second = detect([[30, 10, 10, 25], [10, 10, 30, 25]], [[0.9, 0, 0], [0.8, 0, 0]])
    assert first.box == second.box == (10, 10, 30, 25)


def test_no_candidates_are_no_detections() -> None:
    assert detect([], []) == ()


def test_boxes_are_moved_to_the_image_and_clipped_to_it() -> None:
    placement = Placement((10.0, 20.0), (2.0, 4.0))
    (only,) = detect([[5, 30, 40, 60]], [[0.9, 0, 0]], placement=placement, hw=(100, 50))
    assert only.box == (0.0, 40.0, 50.0, 100.0)


def test_suppression_comes_before_clipping() -> None:
    # Clipped first, both would be the same box and one would go.
    boxes = [[-40.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 10.0]]
    assert len(detect(boxes, [[0.9, 0, 0], [0.8, 0, 0]])) == 2


def test_a_box_outside_the_image_is_dropped() -> None:
    placement = Placement((0.0, 25.0), (1.0, 1.0))  # in a letterbox's border
    assert detect([[10, 0, 30, 20]], [[0.9, 0, 0]], placement=placement, hw=(50, 100)) == ()


def test_coordinates_have_one_decimal_and_scores_four() -> None:
    (only,) = detect([[1.26, 2.04, 30.449, 40.05001]], [[0.123456, 0, 0]])
    assert (only.score, only.box) == (0.1235, (1.3, 2.0, 30.4, 40.1))


def test_detections_are_sorted_by_score_then_class_then_box() -> None:
    boxes = [[60.0, 0, 70, 9], [40.0, 0, 50, 9], [20.0, 0, 30, 9], [0.0, 0, 10, 9]]
    scores = [[0, 0.5, 0], [0.5, 0, 0], [0.5, 0, 0], [0, 0, 0.9]]
    order = [(d.class_id, d.box[0]) for d in detect(boxes, scores)]
    assert order == [(2, 0.0), (0, 20.0), (0, 40.0), (1, 60.0)]


def test_scores_that_are_equal_once_rounded_are_sorted_by_class() -> None:
    assert found(detect([HERE, THERE], [[0, 0.50001, 0], [0.5, 0, 0]])) == [("cat", 0.5), ("dog", 0.5)]


def truncated(*rows: list[float], most: int, min_score: float = 0.1, class_ids: frozenset[int] | None = None) -> bool:
    """Tell whether candidates of a model that gives so many at the most are said to be cut off."""
    spec = model().model_copy(update={"candidates": most})
    candidates = np.array(rows, np.float32).reshape(-1, 6)
    found = detections_from(
        candidates, AS_IT_IS, spec, hw=(100, 100), min_score=min_score, iou=0.45, class_ids=class_ids
    )
    return found.is_truncated


ROWS = [[*HERE, 0.5, 0.0], [*THERE, 0.2, 1.0]]


def test_an_answer_whose_last_candidate_counts_may_lack_others() -> None:
    assert truncated(*ROWS, most=2)
    assert truncated(*ROWS, most=2, min_score=float(np.float32(0.2)))
    assert not truncated(*ROWS, most=2, min_score=0.3)


def test_an_answer_that_is_not_full_lacks_nothing() -> None:
    assert not truncated(*ROWS, most=3)
    assert not truncated(most=3)
    assert not truncated([*THERE, np.nan, 1.0], most=1)


def test_a_model_that_suppresses_by_itself_may_lack_boxes_beyond_its_own_limit() -> None:
    spec = model().model_copy(update={"candidates": 1024, "nms_kind": NmsKind.NONE})
    for last, expected in ((0.2, True), (0.0, False)):
        candidates = np.array([[*HERE, 0.5, 0.0], [*THERE, last, 1.0]], np.float32)
        found = detections_from(candidates, AS_IT_IS, spec, hw=(100, 100), min_score=0.1, iou=0.45)
        assert found.is_truncated is expected


def test_what_is_lacking_may_be_of_the_classes_asked_for() -> None:
    assert truncated(*ROWS, most=2, class_ids=frozenset({2}))


@given(st.permutations(range(4)))
def test_the_order_of_the_candidates_does_not_matter(order: list[int]) -> None:
    boxes = [[60.0, 0, 70, 9], [40.0, 0, 50, 9], [20.0, 0, 30, 9], [41.0, 0, 51, 9]]
    scores = [[0, 0.5, 0], [0.5, 0, 0], [0.5, 0, 0], [0.4, 0, 0]]
    shuffled = detect([boxes[i] for i in order], [scores[i] for i in order])
    assert shuffled == detect(boxes, scores)


@pytest.mark.slow
@given(
    st.integers(1, 900),
    st.integers(1, 900),
    st.sampled_from(ResizeMode),
    st.sampled_from(Sampling),
    st.sampled_from([(64, 64), (32, 96)]),
)
def test_a_box_survives_the_way_to_the_input_and_back(
    height: int, width: int, mode: ResizeMode, sampling: Sampling, input_hw: tuple[int, int]
) -> None:
    """What the network would see of a box in the middle, put back, is that box within a pixel."""
    spec = model(input_hw=input_hw).model_copy(update={"sampling": sampling})
    _, placement = prepare(np.zeros((height, width, 3), np.uint8), spec, mode)
    box = np.array([[width * 0.4, height * 0.4, width * 0.6, height * 0.6]], np.float32)
    if mode is ResizeMode.STRETCH:
        scale, border = (input_hw[1] / width, input_hw[0] / height), (0.0, 0.0)
    elif mode is ResizeMode.CORNER:
        ratio = min(input_hw[1] / width, input_hw[0] / height)
        scale, border = (ratio, ratio), (0.0, 0.0)
    else:
        choose = min if mode is ResizeMode.LETTERBOX else max
        ratio = choose(input_hw[1] / width, input_hw[0] / height)
        scale, border = (ratio, ratio), ((input_hw[1] - width * ratio) / 2, (input_hw[0] - height * ratio) / 2)
    on_input = box * np.array(scale * 2, np.float32) + np.array(border * 2, np.float32)
    off = np.abs(placement.to_image(on_input.astype(np.float32)) - box)
    # The input has whole pixels: half of one of them, and the image's own rounding.
    assert (off <= 1 + np.array([1 / scale[0], 1 / scale[1]] * 2)).all()


CLASSIFIER = ModelSpec(task=Task.CLASSIFY, labels=tuple("abcdefg"), input_hw=(8, 8))


def classes(*scores: float) -> tuple[Classification, ...]:
    array: FloatArray = np.array(scores, np.float32)
    return classes_from(array, CLASSIFIER)


def test_the_five_best_classes_are_given_by_falling_score() -> None:
    given_ = classes(0.05, 0.3, 0.1, 0.2, 0.01, 0.25, 0.09)
    assert [(c.label, c.class_id, c.score) for c in given_] == [
        ("b", 1, 0.3),
        ("f", 5, 0.25),
        ("d", 3, 0.2),
        ("c", 2, 0.1),
        ("g", 6, 0.09),
    ]


def test_classes_of_equal_score_are_given_by_number() -> None:
    assert [c.class_id for c in classes(0.1, 0.2, 0.1, 0.2, 0.1, 0.2, 0.1)] == [1, 3, 5, 0, 2]


def test_a_model_of_fewer_classes_gives_them_all() -> None:
    spec = CLASSIFIER.model_copy(update={"labels": ("yes", "no")})
    assert [c.label for c in classes_from(np.array([0.4, 0.6], np.float32), spec)] == ["no", "yes"]


def test_class_scores_that_are_not_numbers_are_the_images_failure() -> None:
    with pytest.raises(ImageError, match="not numbers") as caught:
        classes(0.1, np.nan, 0.1, 0.2, 0.1, 0.2, 0.1)
    assert caught.value.kind is FailureKind.INFER


# -- across classes, and how many --------------------------------------------------------------------------------------

ON_ONE_PLACE = [[10, 10, 30, 30, 0.9, 0], [11, 10, 31, 30, 0.8, 1], [12, 10, 32, 30, 0.7, 0], [60, 60, 90, 90, 0.6, 2]]


def scores_of(rows: list[list[float]], spec: ModelSpec, **wanted: Any) -> list[float]:
    found = detections_from(
        np.array(rows, np.float32), AS_IT_IS, spec, hw=(100, 100), min_score=0.1, iou=0.45, **wanted
    )
    return [one.score for one in found.detections]


@pytest.mark.parametrize("kind", [NmsKind.DEFAULT, NmsKind.GREEDY, NmsKind.DIOU, NmsKind.NONE])
def test_where_classes_do_not_count_the_best_box_of_a_place_stays(kind: NmsKind) -> None:
    spec = model().model_copy(update={"nms_kind": kind})
    usual = [0.9, 0.8, 0.7, 0.6] if kind is NmsKind.NONE else [0.9, 0.8, 0.6]
    assert scores_of(ON_ONE_PLACE, spec) == usual
    assert scores_of(ON_ONE_PLACE, spec, is_agnostic=True) == [0.9, 0.6]


@pytest.mark.parametrize("kind", [NmsKind.PROBIOU, NmsKind.NONE])
def test_where_classes_do_not_count_the_best_rotated_box_of_a_place_stays(kind: NmsKind) -> None:
    spec = model().model_copy(update={"is_rotated": True, "nms_kind": kind})
    rows = [[*row, angle] for row, angle in zip(ON_ONE_PLACE, (0.5, 0.52, 0.54, 0.0), strict=True)]
    assert scores_of(rows, spec, is_agnostic=True) == [0.9, 0.6]


@given(seed=st.integers(0, 2**32 - 1), iou=st.sampled_from([0.2, 0.45, 0.7]))
def test_across_classes_is_as_if_all_were_one(seed: int, iou: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 60, (30, 2))
    boxes = np.hstack([corners, corners + random.uniform(1, 40, (30, 2))])
    rows = np.hstack([boxes, random.uniform(0.1, 1, (30, 1)), random.integers(0, 3, (30, 1))]).astype(np.float32)
    of_one_class = rows.copy()
    of_one_class[:, 5] = 0
    across, same = (
        detections_from(each, AS_IT_IS, model(), hw=(100, 100), min_score=0.1, iou=iou, is_agnostic=is_agnostic)
        for each, is_agnostic in ((rows, True), (of_one_class, False))
    )
    assert {(one.score, one.box) for one in across.detections} == {(one.score, one.box) for one in same.detections}


def test_a_box_of_several_classes_has_its_best_one_where_classes_do_not_count() -> None:
    rows = [[*HERE, 0.9, 0], [*HERE, 0.8, 1]]
    assert scores_of(rows, model(multi_label=True)) == [0.9, 0.8]
    assert scores_of(rows, model(multi_label=True), is_agnostic=True) == [0.9]


def test_so_many_detections_are_found_at_the_most_and_the_best_of_those_that_stay() -> None:
    assert scores_of(ON_ONE_PLACE, model(), max_count=2) == [0.9, 0.8]
    assert scores_of(ON_ONE_PLACE, model(), max_count=2, is_agnostic=True) == [0.9, 0.6]
    assert scores_of(ON_ONE_PLACE, model(), max_count=300) == [0.9, 0.8, 0.6]
    assert scores_of(ON_ONE_PLACE, model(), max_count=2, class_ids=frozenset({1, 2})) == [0.8, 0.6]


# -- more than boxes ---------------------------------------------------------------------------------------------------


TWICE_AS_LARGE = Placement((0.0, 10.0), (2.0, 2.0))


def detect_more(
    spec: ModelSpec, candidates: list[list[float]], prototypes: FloatArray | None = None
) -> list[Detection]:
    """Return what is on an image of 200 x 160 that lies in an input of 100 x 100, ten rows below its edge."""
    answer = np.array(candidates, np.float32)
    if prototypes is not None:
        answer = np.concatenate([answer.ravel(), prototypes.ravel()])
    return list(detections_from(answer, TWICE_AS_LARGE, spec, hw=(160, 200), min_score=0.1, iou=0.45).detections)


def test_keypoints_are_moved_to_the_image_and_clipped_to_it() -> None:
    spec = model().model_copy(update={"keypoints": ("head", "tail"), "has_visibility": True})
    [one] = detect_more(spec, [[10, 20, 30, 40, 0.9, 1, 15, 25.126, 0.75, 120, 5, 0.123456]])
    assert one.box == (20.0, 20.0, 60.0, 60.0)
    assert one.keypoints == ((30.0, 30.25, 0.75), (200.0, 0.0, 0.1235))


def test_keypoints_without_visibility_are_taken_as_visible() -> None:
    spec = model().model_copy(update={"keypoints": ("head",)})
    [one] = detect_more(spec, [[10, 20, 30, 40, 0.9, 1, 15, 25]])
    assert one.keypoints == ((30.0, 30.0, 1.0),)


def test_a_rotated_box_has_its_corners_and_an_upright_box_around_them() -> None:
    spec = model().model_copy(update={"is_rotated": True, "nms_kind": NmsKind.PROBIOU})
    [one] = detect_more(spec, [[-10, 40, 30, 60, 0.9, 1, np.pi / 2]])
    assert one.rotated is not None
    assert one.rotated.corners == ((0.0, 120.0), (0.0, 40.0), (40.0, 40.0), (40.0, 120.0))
    assert one.rotated.angle == -90.0
    assert one.box == (0.0, 40.0, 40.0, 120.0)


def test_a_rotated_boxs_corners_may_lie_outside_the_image() -> None:
    spec = model().model_copy(update={"is_rotated": True, "nms_kind": NmsKind.PROBIOU})
    [one] = detect_more(spec, [[-10, 40, 30, 60, 0.9, 1, 0]])
    assert one.rotated is not None
    assert one.rotated.corners[0] == (-20.0, 60.0)
    assert one.box == (0.0, 60.0, 60.0, 100.0)


def test_of_rotated_boxes_that_are_alike_the_best_stays() -> None:
    spec = model().model_copy(update={"is_rotated": True, "nms_kind": NmsKind.PROBIOU})
    rows = [[10, 40, 50, 50, 0.9, 1, 0.5], [10, 40, 50, 50, 0.8, 1, 0.55], [10, 40, 50, 50, 0.7, 1, 0.5 + np.pi / 2]]
    assert [one.score for one in detect_more(spec, rows)] == [0.9, 0.7]


def test_a_mask_lies_in_its_box_and_what_has_no_pixel_is_no_detection() -> None:
    spec = model().model_copy(update={"prototypes": (1, 25, 25)})
    rows = [[10, 20, 30, 40, 0.9, 1, 1.0], [50, 50, 60, 60, 0.8, 1, -1.0]]
    [one] = detect_more(spec, rows, np.ones((1, 25, 25), np.float32))
    assert one.mask is not None
    inside = np.zeros((160, 200), bool)
    inside[20:60, 20:60] = True
    assert (one.mask.decode() == inside).all()


def test_what_is_no_number_behind_a_box_makes_it_none() -> None:
    spec = model().model_copy(update={"keypoints": ("head",)})
    assert detect_more(spec, [[10, 20, 30, 40, 0.9, 1, np.nan, 25]]) == []


def test_labels_are_all_that_count_the_best_first() -> None:
    spec = ModelSpec(task=Task.CLASSIFY, labels=LABELS, input_hw=(8, 8), multi_label=True)
    scores = np.array([0.3, 0.9, 0.05], np.float32)
    assert labels_from(scores, spec, 0.1) == (Classification("dog", 1, 0.9), Classification("cat", 0, 0.3))
    assert labels_from(scores, spec, 0.1, frozenset({0, 2})) == (Classification("cat", 0, 0.3),)
    with pytest.raises(ImageError, match="not numbers"):
        labels_from(np.array([0.3, np.nan, 0], np.float32), spec, 0.1)
