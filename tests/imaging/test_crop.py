"""The part of an image that an object is in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.crop import crop, crop_pixels, rotated_size
from trtjob.imaging.detections import Detection, RotatedBox
from trtjob.imaging.rotated import corners, rounded

Box = tuple[float, float, float, float]


def detection(box: Box, rotated: RotatedBox | None = None) -> Detection:
    return Detection("dog", 1, 0.9, box, rotated=rotated)


@pytest.mark.parametrize(
    ("box", "margin", "pixels"),
    [
        pytest.param((10.0, 20.0, 30.0, 60.0), 0, (10, 20, 30, 60), id="whole-pixels"),
        pytest.param((10.2, 20.9, 29.1, 59.5), 0, (10, 20, 30, 60), id="each-that-it-touches"),
        pytest.param((10.0, 20.0, 30.0, 60.0), 0.1, (8, 16, 32, 64), id="with-a-margin"),
        pytest.param((2.0, 90.0, 40.0, 100.0), 0.5, (0, 85, 59, 100), id="cut-at-the-edges"),
        pytest.param((50.0, 40.0, 50.0, 40.0), 0, (50, 40, 51, 41), id="no-area"),
        pytest.param((100.0, 100.0, 100.0, 100.0), 0, (99, 99, 100, 100), id="on-the-last-edge"),
    ],
)
def test_a_crop_has_the_pixels_of_its_box(box: Box, margin: float, pixels: tuple[int, int, int, int]) -> None:
    assert crop_pixels(detection(box), margin, (100, 100)) == pixels


@given(st.lists(st.floats(0, 50), min_size=4, max_size=4), st.floats(0, 10), st.integers(1, 60), st.integers(1, 60))
def test_any_box_has_a_crop_in_its_image(corner: list[float], margin: float, height: int, width: int) -> None:
    xs, ys = sorted(corner[:2]), sorted(corner[2:])
    found = detection((min(xs[0], width), min(ys[0], height), min(xs[1], width), min(ys[1], height)))
    part = crop(np.zeros((height, width, 3), np.uint8), found, margin)
    assert 1 <= part.shape[0] <= height
    assert 1 <= part.shape[1] <= width


def quadrants(angle: float) -> tuple[UInt8Array, Detection]:
    """An image with an object of four colours that stands at an angle, and the object."""
    height, width = 120, 160
    ys, xs = np.mgrid[:height, :width] + 0.5
    across, down = xs - 80, ys - 60
    along, below = (
        across * np.cos(angle) + down * np.sin(angle),
        -across * np.sin(angle) + down * np.cos(angle),
    )
    image = np.zeros((height, width, 3), np.uint8)
    is_in = (abs(along) <= 40) & (abs(below) <= 20)
    image[is_in] = 60
    image[is_in & (along > 0)] += np.array([100, 0, 0], np.uint8)
    image[is_in & (below > 0)] += np.array([0, 100, 0], np.uint8)
    box = np.array([[80, 60, 80, 40, angle]])
    [rotated] = rounded(box, corners(box))
    return image, detection((0.0, 0.0, 160.0, 120.0), rotated)


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.7, 1.2, -np.pi / 2])
def test_a_rotated_box_is_turned_upright(angle: float) -> None:
    image, found = quadrants(angle)
    part = crop(image, found, 0)
    assert part.shape == (40, 80, 3)
    for y, x, color in ((10, 20, (60, 60, 60)), (10, 60, (160, 60, 60)), (30, 20, (60, 160, 60))):
        assert np.allclose(part[y, x].astype(int), color, atol=3)


def test_a_rotated_box_has_its_margin_at_its_own_angle() -> None:
    image, found = quadrants(0.3)
    assert found.rotated is not None
    part = crop(image, found, 0.25)
    assert part.shape == (60, 120, 3)
    assert rotated_size(found.rotated, 0.25) == (120, 60)
    assert not part[:8].any()
    assert part[12:48, 22:98].all()


def test_what_of_a_rotated_box_lies_outside_is_black() -> None:
    image, found = quadrants(0.3)
    image[:] = 200
    part = crop(image, found, 1.0)
    assert (part == 0).all(2).any()
    assert (part == 200).all(2).any()
