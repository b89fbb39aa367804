"""Bars and tiles copied into an image, compared with plain slices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.canvas import Canvas, Tile

HEIGHT, WIDTH, PAD = 12, 17, 40
COORDINATES = st.integers(-PAD, PAD)


def pixels(height: int, width: int) -> UInt8Array:
    """No two alike, and zeros among them."""
    return (np.arange(height * width * 3) % 251).astype(np.uint8).reshape(height, width, 3)


def blank() -> UInt8Array:
    return np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def expected(x: int, y: int, block: UInt8Array) -> UInt8Array:
    """The block laid on an image with a wide border, which is then taken away."""
    wide = np.full((HEIGHT + 4 * PAD, WIDTH + 4 * PAD, 3), 255, np.uint8)
    wide[2 * PAD + y :, 2 * PAD + x :][: block.shape[0], : block.shape[1]] = block
    return wide[2 * PAD : 2 * PAD + HEIGHT, 2 * PAD : 2 * PAD + WIDTH]


@given(COORDINATES, COORDINATES, st.integers(1, 30), st.integers(1, 30))
def test_rows_are_copied_as_far_as_they_lie_in_the_image(x: int, y: int, height: int, width: int) -> None:
    image, block = blank(), pixels(height, width)
    Canvas(image).copy_rows(x, y, [row.tobytes() for row in block])
    assert np.array_equal(image, expected(x, y, block))


@given(COORDINATES, COORDINATES, st.integers(0, 30), st.integers(1, 30))
def test_a_bar_has_one_row_many_times(x: int, y: int, height: int, width: int) -> None:
    image, row = blank(), pixels(1, width)
    Canvas(image).copy_bars([x], y, y + height, row.tobytes())
    assert np.array_equal(image, expected(x, y, row.repeat(height, 0)))


def test_a_bar_of_zeros_is_black() -> None:
    image = blank()
    Canvas(image).copy_bars([2, 9], 3, 8, bytes(6))
    black = np.argwhere((image == 0).all(2))
    assert {(int(y), int(x)) for y, x in black} == {(y, x) for y in range(3, 8) for x in (2, 3, 9, 10)}


@given(st.integers(0, WIDTH - 1), st.integers(0, HEIGHT - 1), st.integers(1, 30), st.integers(1, 30))
def test_a_tile_is_copied_as_far_as_it_lies_in_the_image(x: int, y: int, height: int, width: int) -> None:
    image, block = blank(), pixels(height, width)
    Canvas(image).blit(x, y, Tile.of(block))
    assert np.array_equal(image, expected(x, y, block))


def test_a_tile_keeps_its_own_pixels() -> None:
    block = pixels(3, 4)
    tile = Tile.of(block)
    block[:] = 0
    assert np.array_equal(tile.pixels, pixels(3, 4))
