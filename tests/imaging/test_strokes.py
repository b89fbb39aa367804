from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.detections import Point
from trtjob.imaging.strokes import stroke

RED, BLUE = (0, 0, 255), (255, 0, 0)


def stroked(*points: Point, width: int = 3, rim: int = 0, closed: bool = False) -> UInt8Array:
    image = np.full((60, 80, 3), 100, np.uint8)
    stroke(image, [(points, RED)], width, rim=rim, closed=closed)
    return image


def is_red(image: UInt8Array) -> NDArray[np.bool_]:
    return np.asarray((image == RED).all(2))


def test_a_line_joins_its_points() -> None:
    image = stroked((10, 10), (70, 50))
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        assert is_red(image)[round(10 + 40 * share), round(10 + 60 * share)]


@pytest.mark.parametrize("closed", [True, False])
def test_a_closed_line_comes_back(closed: bool) -> None:
    image = stroked((10, 10), (70, 10), (70, 50), closed=closed)
    assert is_red(image)[30, 40] == closed


@pytest.mark.parametrize("width", [3, 7, 15])
def test_a_point_is_a_dot_of_the_lines_width(width: int) -> None:
    ys, xs = np.nonzero((stroked((40, 30), width=width, closed=True) != 100).any(2))
    assert (ys.mean(), xs.mean()) == pytest.approx((30, 40), abs=0.5)
    assert np.ptp(ys) + 1 == pytest.approx(width, abs=2)  # whose edge is smooth


def test_a_rim_surrounds_the_colour() -> None:
    column = stroked((10, 30), (70, 30), width=3, rim=1)[:, 40]
    assert [tuple(pixel) for pixel in column[29:32].tolist()] == [RED, RED, RED]
    assert (column[[28, 32]] < 60).all()
    assert (column[[26, 34]] == 100).all()


def test_a_rim_lies_over_no_colour() -> None:
    image = np.full((60, 80, 3), 100, np.uint8)
    stroke(image, [(((10, 20), (70, 40)), BLUE), (((10, 40), (70, 20)), RED)], 5, rim=1, closed=False)
    assert is_red(image)[30, 40]
    steps = [(image[20 + y, 10 + 3 * y] == BLUE).all() for y in (2, 4, 16, 18)]
    assert all(steps)


FAR: list[Sequence[Point]] = [((-1e30, -1e30), (1e30, 1e30)), ((-5000.0, -3750.0), (5000.0, 3750.0))]


@pytest.mark.parametrize("points", FAR)
def test_what_lies_far_outside_is_no_error(points: Sequence[Point]) -> None:
    assert is_red(stroked(*points)).any()


def test_fractions_of_a_pixel_count() -> None:
    images = [stroked((10, 20 + part), (70, 20 + part)) for part in (0, 0.25, 0.5, 0.75)]
    assert not any(np.array_equal(first, second) for first, second in pairwise(images))
