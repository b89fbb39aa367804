"""Overlaps of boxes: what must hold for any two, and values that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtjob.engines.protocol import FloatArray
from trtjob.imaging.boxes import areas, clip, diou_matrix, iou_matrix

Box = tuple[float, float, float, float]

# Quarters of a pixel are exact in float32, so that equal boxes are equal whatever is computed of them.
coordinates = st.integers(-4000, 4000).map(lambda quarters: quarters / 4)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    x1, x2 = sorted((draw(coordinates), draw(coordinates)))
    y1, y2 = sorted((draw(coordinates), draw(coordinates)))
    return x1, y1, x2, y2


def array(*rows: Box) -> FloatArray:
    return np.array(rows, np.float32).reshape(-1, 4)


def iou(a: Box, b: Box) -> float:
    return float(iou_matrix(array(a), array(b))[0, 0])


def diou(a: Box, b: Box, beta: float = 1.0) -> float:
    return float(diou_matrix(array(a), array(b), beta)[0, 0])


def is_empty(box: Box) -> bool:
    return box[0] == box[2] or box[1] == box[3]


@given(boxes(), boxes())
def test_iou_is_symmetric(a: Box, b: Box) -> None:
    assert iou(a, b) == iou(b, a)


@given(boxes().filter(lambda box: not is_empty(box)))
def test_iou_of_a_box_with_itself_is_one(box: Box) -> None:
    assert iou(box, box) == 1


@given(boxes(), boxes())
def test_iou_lies_between_zero_and_one(a: Box, b: Box) -> None:
    assert 0 <= iou(a, b) <= 1


@given(boxes(), boxes())
def test_iou_is_zero_exactly_where_the_boxes_share_no_area(a: Box, b: Box) -> None:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    assert (iou(a, b) > 0) == (width > 0 and height > 0)


@given(boxes(), boxes())
def test_iou_does_not_depend_on_where_both_boxes_lie(a: Box, b: Box) -> None:
    moved = [(x1 + 64, y1 - 32, x2 + 64, y2 - 32) for x1, y1, x2, y2 in (a, b)]
    assert iou(*moved) == iou(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param((0, 0, 2, 2), (1, 0, 3, 2), 1 / 3, id="half-of-each"),
        pytest.param((0, 0, 4, 4), (1, 1, 3, 3), 1 / 4, id="one-inside-the-other"),
        pytest.param((0, 0, 2, 2), (2, 0, 4, 2), 0, id="touching"),
        pytest.param((0, 0, 2, 2), (5, 5, 6, 6), 0, id="apart"),
        pytest.param((0, 0, 2, 2), (2, 2, 2, 2), 0, id="a-point-on-a-corner"),
        pytest.param((1, 1, 1, 1), (1, 1, 1, 1), 0, id="the-same-point"),
        pytest.param((0, 1, 8, 1), (0, 1, 8, 1), 0, id="the-same-line"),
    ],
)
def test_iou_by_hand(a: Box, b: Box, expected: float) -> None:
    assert iou(a, b) == pytest.approx(expected)


def test_the_matrix_holds_every_pair_in_its_place() -> None:
    a, b = array((0, 0, 2, 2), (4, 4, 6, 6)), array((0, 0, 2, 2), (4, 4, 6, 6), (0, 0, 2, 4))
    assert iou_matrix(a, b).tolist() == [[1, 0, 0.5], [0, 1, 0]]


def test_no_boxes_give_an_empty_matrix() -> None:
    none, two = array(), array((0, 0, 2, 2), (4, 4, 6, 6))
    pairs = [(none, two), (two, none), (none, none)]
    assert [iou_matrix(a, b).shape for a, b in pairs] == [(0, 2), (2, 0), (0, 0)]
    assert [diou_matrix(a, b, 1.0).shape for a, b in pairs] == [(0, 2), (2, 0), (0, 0)]


@given(boxes(), boxes())
def test_diou_is_symmetric_and_never_above_iou(a: Box, b: Box) -> None:
    assert diou(a, b) == diou(b, a) <= iou(a, b)


@given(boxes())
def test_diou_of_boxes_with_one_centre_is_their_iou(box: Box) -> None:
    x1, y1, x2, y2 = box
    around = (x1 - 2, y1 - 2, x2 + 2, y2 + 2)
    assert diou(box, around) == iou(box, around)


@pytest.mark.parametrize(
    ("beta", "expected"), [pytest.param(1.0, 1 / 3 - 1 / 13, id="1"), pytest.param(0.5, 1 / 3 - 13**-0.5, id="0.5")]
)
def test_diou_by_hand(beta: float, expected: float) -> None:
    # Centres 1 apart; the box around both is 3 by 2, so its diagonal squared is 13.
    assert diou((0, 0, 2, 2), (1, 0, 3, 2), beta) == pytest.approx(expected)


def test_diou_of_a_point_with_itself_is_a_number() -> None:
    assert diou((3, 3, 3, 3), (3, 3, 3, 3)) == 0


@given(boxes(), st.integers(1, 500), st.integers(1, 500))
def test_a_clipped_box_lies_in_the_image(box: Box, height: int, width: int) -> None:
    x1, y1, x2, y2 = clip(array(box), (height, width))[0].tolist()
    assert 0 <= x1 <= x2 <= width
    assert 0 <= y1 <= y2 <= height


@given(boxes())
def test_a_box_in_the_image_is_not_changed_by_clipping(box: Box) -> None:
    moved = array(box) + 1000
    assert clip(moved, (2000, 2000)).tolist() == moved.tolist()


def test_width_and_height_are_not_mixed_up_when_clipping() -> None:
    assert clip(array((-5, -5, 900, 900)), (30, 70)).tolist() == [[0, 0, 70, 30]]


def test_areas_by_hand() -> None:
    assert areas(array((0, 0, 2, 3), (1, 1, 1, 9), (-2, -2, 2, 2))).tolist() == [6, 0, 16]
