"""Masks against the same sums enlarged as a whole, twice, and cut: what Ultralytics does with all of an image."""

from math import ceil

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtjob.engines.protocol import FloatArray
from trtjob.engines.spec import ModelSpec, ResizeMode
from trtjob.imaging import segmentation
from trtjob.imaging.masks import Mask
from trtjob.imaging.resize import Placement, place
from trtjob.imaging.rle import BoolArray
from trtjob.imaging.segmentation import masks_from

INPUT_HW = (64, 96)
COUNT = 4
SIDES = st.integers(1, 200)


def prototypes(seed: int = 0) -> FloatArray:
    random = np.random.default_rng(seed)
    sums = [cv2.GaussianBlur(random.normal(size=(16, 24)).astype(np.float32), (0, 0), 2) for _ in range(COUNT)]
    return np.stack(sums)


def placed(hw: tuple[int, int], mode: ResizeMode = ResizeMode.LETTERBOX) -> Placement:
    return place(hw, ModelSpec(task="detect", labels=("cat",), input_hw=INPUT_HW), mode)[1]


def as_a_whole(total: FloatArray, box: list[float], hw: tuple[int, int], mode: ResizeMode) -> BoolArray:
    window, _ = place(hw, ModelSpec(task="detect", labels=("cat",), input_hw=INPUT_HW), mode)
    at_input = cv2.resize(total, INPUT_HW[::-1], interpolation=cv2.INTER_LINEAR)
    part = at_input[window.top : window.top + window.height, window.left : window.left + window.width]
    on_image = cv2.resize(np.ascontiguousarray(part), hw[::-1], interpolation=cv2.INTER_LINEAR)
    left, top, right, bottom = (ceil(value) for value in box)
    inside = np.zeros(hw, bool)
    inside[top:bottom, left:right] = on_image[top:bottom, left:right] > 0
    return inside


@st.composite
def cases(draw: st.DrawFn) -> tuple[tuple[int, int], list[float]]:
    height, width = draw(SIDES), draw(SIDES)
    x1, x2 = sorted(draw(st.lists(st.floats(0, width, width=32), min_size=2, max_size=2)))
    y1, y2 = sorted(draw(st.lists(st.floats(0, height, width=32), min_size=2, max_size=2)))
    return (height, width), [x1, y1, x2, y2]


@pytest.mark.slow
@given(cases(), st.integers(0, 5), st.sampled_from([ResizeMode.LETTERBOX, ResizeMode.STRETCH]))
def test_a_mask_is_that_of_the_whole_sum_cut_to_the_box(
    case: tuple[tuple[int, int], list[float]], seed: int, mode: ResizeMode
) -> None:
    hw, box = case
    coefficients = np.random.default_rng(seed).normal(size=(1, COUNT)).astype(np.float32)
    [found] = masks_from(
        coefficients, prototypes(seed), np.array([box], np.float32), placed(hw, mode), input_hw=INPUT_HW, hw=hw
    )
    total = (coefficients[0] @ prototypes(seed).reshape(COUNT, -1)).reshape(16, 24)
    expected = as_a_whole(total, box, hw, mode)
    if found is None:
        assert expected.sum() <= 2
        return
    # At a value of next to 0 the two ways may round to either side.
    assert (found.decode() ^ expected).sum() <= 2


def test_an_object_does_not_depend_on_how_many_columns_are_worked_on_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    coefficients, boxes = np.ones((1, COUNT), np.float32), np.array([[3, 5, 180, 120]], np.float32)
    whole = masks_from(coefficients, prototypes(), boxes, placed((130, 190)), input_hw=INPUT_HW, hw=(130, 190))
    monkeypatch.setattr(segmentation, "PIXELS_AT_ONCE", 500)
    parts = masks_from(coefficients, prototypes(), boxes, placed((130, 190)), input_hw=INPUT_HW, hw=(130, 190))
    assert whole == parts
    assert isinstance(whole[0], Mask)


def test_an_object_does_not_depend_on_the_others() -> None:
    random = np.random.default_rng(3)
    coefficients = random.normal(size=(40, COUNT)).astype(np.float32)
    boxes = np.tile(np.array([[10, 10, 90, 60]], np.float32), (40, 1))
    together = masks_from(coefficients, prototypes(), boxes, placed((64, 96)), input_hw=INPUT_HW, hw=(64, 96))
    alone = masks_from(coefficients[:1], prototypes(), boxes[:1], placed((64, 96)), input_hw=INPUT_HW, hw=(64, 96))
    assert together[0] == alone[0]


@pytest.mark.parametrize(
    ("coefficient", "box"),
    [
        pytest.param(-1.0, [0, 0, 96, 64], id="nowhere above 0"),
        pytest.param(np.nan, [0, 0, 96, 64], id="no number"),
        pytest.param(np.inf, [0, 0, 96, 64], id="infinite"),
        pytest.param(1.0, [40, 10, 40, 20], id="an empty box"),
        pytest.param(1.0, [40, 10, 30, 5], id="a box that is turned over"),
    ],
)
def test_an_object_without_a_pixel_has_no_mask(coefficient: float, box: list[float]) -> None:
    ones = np.concatenate([np.ones((1, 16, 24), np.float32), np.zeros((1, 16, 24), np.float32)])
    [found] = masks_from(
        np.array([[coefficient, coefficient]], np.float32),
        ones,
        np.array([box], np.float32),
        placed((64, 96)),
        input_hw=INPUT_HW,
        hw=(64, 96),
    )
    assert found is None


def test_a_crop_has_masks_where_the_input_shows_the_image() -> None:
    hw = (64, 400)
    boxes = np.array([[0, 0, 400, 64]], np.float32)
    [found] = masks_from(
        np.ones((1, 1), np.float32),
        np.ones((1, 16, 24), np.float32),
        boxes,
        placed(hw, ResizeMode.CROP),
        input_hw=INPUT_HW,
        hw=hw,
    )
    assert found is not None
    assert found.area == 64 * 400
