"""Bringing an image to a network's input, against Darknet's own loops written out in NumPy."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imaging.specs import model
from numpy.typing import NDArray
from PIL import Image

from trtjob.engines.protocol import UInt8Array
from trtjob.engines.spec import ResizeMode, Sampling
from trtjob.imaging.resize import SAME_SAMPLE_PX, Placement, prepare, resize

Floats = NDArray[np.float64]

sides = st.integers(1, 70)


def noise(height: int, width: int) -> UInt8Array:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def darknet_resize(image: UInt8Array, height: int, width: int) -> Floats:
    """resize_image in Darknet's image.c: along the rows, then along the columns, in floats."""

    def along(values: Floats, size: int) -> Iterator[Floats]:
        step = (len(values) - 1) / (size - 1)
        for index in range(size):
            at = index * step
            low = int(at)
            if index == size - 1 or len(values) == 1:
                yield values[-1]
            else:
                yield (1 - (at - low)) * values[low] + (at - low) * values[min(low + 1, len(values) - 1)]

    rows = np.stack(list(along(image.astype(np.float64).transpose(1, 0, 2), width)))
    return np.stack(list(along(rows.transpose(1, 0, 2), height)))


@given(sides, sides, st.integers(2, 40), st.integers(2, 40))
def test_align_corners_is_darknets_resize(height: int, width: int, new_height: int, new_width: int) -> None:
    image = noise(height, width)
    off = np.abs(
        resize(image, (new_height, new_width), Sampling.ALIGN_CORNERS) - darknet_resize(image, new_height, new_width)
    )
    assert off.mean() <= 2.5  # rounding to a byte, and what samples may be apart in noise
    assert off.max() <= 1.01 + 2 * 255 * SAME_SAMPLE_PX


@pytest.mark.parametrize("hw", [pytest.param((33, 40_000), id="wide"), pytest.param((40_000, 33), id="tall")])
def test_align_corners_holds_for_sides_that_do_not_fit_in_sixteen_bits(hw: tuple[int, int]) -> None:
    image = noise(*hw)
    off = np.abs(resize(image, (24, 24), Sampling.ALIGN_CORNERS) - darknet_resize(image, 24, 24))
    assert off.max() <= 2.0


def half_pixel_resize(image: UInt8Array, height: int, width: int) -> Floats:
    """Bilinear, with the centres of pixels at halves: what every framework but Darknet does."""
    ys = np.clip((np.arange(height) + 0.5) * image.shape[0] / height - 0.5, 0, image.shape[0] - 1)
    xs = np.clip((np.arange(width) + 0.5) * image.shape[1] / width - 0.5, 0, image.shape[1] - 1)
    y0, x0 = ys.astype(int), xs.astype(int)
    y1, x1 = np.minimum(y0 + 1, image.shape[0] - 1), np.minimum(x0 + 1, image.shape[1] - 1)
    fy, fx = (ys - y0)[:, None, None], (xs - x0)[None, :, None]
    pixels = image.astype(np.float64)
    above = pixels[y0][:, x0] * (1 - fx) + pixels[y0][:, x1] * fx
    below = pixels[y1][:, x0] * (1 - fx) + pixels[y1][:, x1] * fx
    return np.asarray(above * (1 - fy) + below * fy)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (20, 20), (7, 40)])
def test_antialias_averages_what_a_new_pixel_covers(height: int, width: int) -> None:
    """A board of single black and white pixels becomes grey, where plain bilinear leaves a pattern."""
    board = np.where(np.indices((64, 96)).sum(0) % 2, 255, 0).astype(np.uint8)[:, :, None].repeat(3, 2)
    inner = resize(board, (height, width), Sampling.ANTIALIAS)[1:-1, 1:-1]
    assert np.abs(inner.astype(int) - 127).max() <= 8


def test_bicubic_is_pillows() -> None:
    image = noise(64, 96)
    expected = Image.fromarray(image).resize((24, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(resize(image, (16, 24), Sampling.BICUBIC), np.asarray(expected))


@given(sides, sides, st.integers(1, 40), st.integers(1, 40))
def test_half_pixel_is_plain_bilinear(height: int, width: int, new_height: int, new_width: int) -> None:
    image = noise(height, width)
    off = np.abs(
        resize(image, (new_height, new_width), Sampling.HALF_PIXEL) - half_pixel_resize(image, new_height, new_width)
    )
    assert off.max() <= 1.01


@pytest.mark.parametrize("sampling", [pytest.param(sampling, id=sampling.value) for sampling in Sampling])
def test_an_image_of_the_right_size_is_left_alone(sampling: Sampling) -> None:
    assert np.array_equal(resize(noise(20, 30), (20, 30), sampling), noise(20, 30))


def test_a_corner_is_filled_as_yolox_fills_it() -> None:
    """Sides are rounded down, and boxes divided by the ratio itself (yolox/data/data_augment.py)."""
    image = np.full((30, 90, 3), 200, np.uint8)
    tensor, placement = prepare(image, model(input_hw=(64, 64), pad_value=114), ResizeMode.CORNER)
    assert (tensor[:21] == 200).all()
    assert (tensor[21:] == 114).all()
    ratio = 64 / 90
    np.testing.assert_allclose(
        placement.to_image(np.array([[0, 0, 64, 21]], np.float32)), [[0, 0, 90, 21 / ratio]], rtol=1e-6
    )


@pytest.mark.parametrize("sampling", [pytest.param(sampling, id=sampling.value) for sampling in Sampling])
@pytest.mark.parametrize("mode", [pytest.param(mode, id=mode.value) for mode in ResizeMode])
@pytest.mark.parametrize(
    "hw",
    [pytest.param((1, 1), id="a-pixel"), pytest.param((1, 900), id="a-row"), pytest.param((900, 1), id="a-column")],
)
def test_the_smallest_images_fill_an_input(hw: tuple[int, int], mode: ResizeMode, sampling: Sampling) -> None:
    image = np.full((*hw, 3), 99, np.uint8)
    tensor, _ = prepare(image, model(sampling=sampling), mode)
    assert tensor.shape == (32, 32, 3)
    assert (tensor == 99).any()


# -- colours -----------------------------------------------------------------------------------------------------------

COLOR = np.full((8, 8, 3), (10, 20, 200), np.uint8)  # BGR


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        pytest.param("bgr", [10, 20, 200], id="bgr"),
        pytest.param("rgb", [200, 20, 10], id="rgb"),
        pytest.param("gray", [73], id="gray"),  # 0.114 * 10 + 0.587 * 20 + 0.299 * 200
    ],
)
def test_the_tensor_has_the_models_colours(color: str, expected: list[int]) -> None:
    tensor, _ = prepare(COLOR, model(color=color), ResizeMode.STRETCH)
    assert tensor.shape == (32, 32, len(expected))
    assert tensor.flags["C_CONTIGUOUS"]
    assert (tensor == expected).all()


# -- modes -------------------------------------------------------------------------------------------------------------


def test_stretch_places_the_image_on_the_whole_input() -> None:
    _, placement = prepare(noise(64, 96), model(), ResizeMode.STRETCH)
    assert placement == Placement((0.0, 0.0), (3.0, 2.0))


@pytest.mark.parametrize(
    ("hw", "rows", "columns"),
    [
        pytest.param((20, 40), slice(8, 24), slice(0, 32), id="wide"),
        pytest.param((40, 20), slice(0, 32), slice(8, 24), id="tall"),
        pytest.param((16, 16), slice(0, 32), slice(0, 32), id="square"),
        pytest.param((30, 32), slice(1, 31), slice(0, 32), id="even-border"),
        pytest.param((31, 32), slice(0, 31), slice(0, 32), id="odd-border"),
        pytest.param((1, 4000), slice(15, 16), slice(0, 32), id="a-line"),
    ],
)
def test_a_letterbox_holds_the_whole_image_in_its_middle(hw: tuple[int, int], rows: slice, columns: slice) -> None:
    image = noise(*hw)
    tensor, _ = prepare(image, model(pad_value=5), ResizeMode.LETTERBOX)
    inner = tensor[rows, columns]
    assert np.array_equal(inner, resize(image, inner.shape[:2], Sampling.HALF_PIXEL))
    border = tensor.copy()
    border[rows, columns] = 5
    assert (border == 5).all()


def test_a_letterboxs_border_does_not_shift_what_lies_in_it() -> None:
    _, placement = prepare(noise(20, 40), model(), ResizeMode.LETTERBOX)
    corners = placement.to_image(np.array([[0, 8, 32, 24]], np.float32))
    assert corners.tolist() == [[0, 0, 40, 20]]


@pytest.mark.parametrize(
    ("sampling", "rows", "scale"),
    [
        # 5 of 7 columns are 22.86 of 32: Darknet cuts it off, Ultralytics rounds, and puts the odd row below.
        pytest.param(Sampling.ALIGN_CORNERS, slice(5, 27), 5 / 22, id="darknet"),
        pytest.param(Sampling.HALF_PIXEL, slice(4, 27), 5 / 23, id="ultralytics"),
    ],
)
def test_the_sides_in_a_letterbox_are_rounded_as_the_models_own_tools_do(
    sampling: Sampling, rows: slice, scale: float
) -> None:
    image = np.full((5, 7, 3), 99, np.uint8)
    tensor, placement = prepare(image, model(sampling=sampling, pad_value=5), ResizeMode.LETTERBOX)
    inner = (tensor == 99).all((1, 2))
    assert (inner.argmax(), inner.argmax() + inner.sum()) == (rows.start, rows.stop)
    assert placement == Placement((0.0, float(rows.start)), (7 / 32, scale))


@given(sides, sides, st.integers(1, 40), st.integers(1, 40))
def test_boxes_come_back_from_a_letterbox(height: int, width: int, input_h: int, input_w: int) -> None:
    image = np.full((height, width, 3), 99, np.uint8)
    tensor, placement = prepare(image, model((input_h, input_w), pad_value=5), ResizeMode.LETTERBOX)
    inside = np.argwhere((tensor == 99).all(2))
    (top, left), (bottom, right) = inside.min(0), inside.max(0) + 1
    assert len(inside) == (bottom - top) * (right - left)
    corners = placement.to_image(np.array([[left, top, right, bottom]], np.float32))
    np.testing.assert_allclose(corners, [[0, 0, width, height]], atol=1e-3)


def test_darknets_boxes_are_corrected_by_half_of_an_odd_border() -> None:
    _, placement = prepare(noise(31, 32), model(sampling=Sampling.ALIGN_CORNERS), ResizeMode.LETTERBOX)
    assert placement.offset == (0.0, 0.5)


@pytest.mark.parametrize(
    ("hw", "offset"),
    [pytest.param((64, 128), (-16.0, 0.0), id="wide"), pytest.param((128, 64), (0.0, -16.0), id="tall")],
)
def test_a_crop_is_the_middle_of_the_image(hw: tuple[int, int], offset: tuple[float, float]) -> None:
    image = noise(*hw)
    tensor, placement = prepare(image, model(), ResizeMode.CROP)
    shrunk = resize(image, (hw[0] // 2, hw[1] // 2), Sampling.HALF_PIXEL)
    top, left = (shrunk.shape[0] - 32) // 2, (shrunk.shape[1] - 32) // 2
    assert np.array_equal(tensor, shrunk[top : top + 32, left : left + 32])
    assert placement == Placement(offset, (2.0, 2.0))


@pytest.mark.parametrize(
    ("hw", "left", "new_width"),
    [
        pytest.param((5, 7), 6, 44, id="the longer side is rounded down"),  # from 44.8
        pytest.param((32, 33), 0, 33, id="half a column is rounded to none"),
        pytest.param((32, 35), 2, 35, id="one and a half to two"),
    ],
)
def test_a_crop_is_where_torchvision_cuts_it(hw: tuple[int, int], left: int, new_width: int) -> None:
    image = noise(*hw)
    tensor, placement = prepare(image, model(), ResizeMode.CROP)
    whole = resize(image, (32, new_width), Sampling.HALF_PIXEL)
    assert np.array_equal(tensor, whole[:, left : left + 32])
    assert placement == Placement((-left, 0.0), (hw[1] / new_width, hw[0] / 32))


def test_a_crop_may_leave_a_margin_as_torchvision_does_with_224_of_256() -> None:
    spec = model((224, 224)).model_copy(update={"crop_ratio": 0.875})
    assert spec.covered_hw == (256, 256)
    image = noise(100, 150)
    tensor, placement = prepare(image, spec, ResizeMode.CROP)
    whole = resize(image, (256, 384), Sampling.HALF_PIXEL)
    assert np.array_equal(tensor, whole[16:240, 80:304])
    assert placement == Placement((-80.0, -16.0), (150 / 384, 100 / 256))


@pytest.mark.parametrize(("side", "ratio", "whole"), [(224, 0.7, 320), (224, 0.9, 248), (299, 0.875, 341), (7, 1.0, 7)])
def test_what_an_image_covers_before_it_is_cropped_is_rounded_down(side: int, ratio: float, whole: int) -> None:
    assert model((side, side)).model_copy(update={"crop_ratio": ratio}).covered_hw == (whole, whole)


@pytest.mark.parametrize("sampling", [pytest.param(sampling, id=sampling.value) for sampling in Sampling])
@pytest.mark.parametrize("hw", [pytest.param((1, 60_000), id="a-row"), pytest.param((60_000, 1), id="a-column")])
def test_the_crop_of_a_thread_is_not_enlarged_as_a_whole(hw: tuple[int, int], sampling: Sampling) -> None:
    """Enlarged until a pixel fills the input, it would take 30 gigabytes."""
    image = np.zeros((*hw, 3), np.uint8)
    middle = image[:, 29_990:30_010] if hw[0] == 1 else image[29_990:30_010]
    middle[:] = 200
    tensor, placement = prepare(image, model((416, 416), sampling=sampling), ResizeMode.CROP)
    assert (tensor == 200).all()
    x1, y1, x2, y2 = placement.to_image(np.array([[0, 0, 416, 416]], np.float32))[0].tolist()
    along, across = ((x1, x2), (y1, y2)) if hw[0] == 1 else ((y1, y2), (x1, x2))
    assert across == pytest.approx((0, 1))
    assert along == pytest.approx((29_999.5, 30_000.5), abs=1)


def test_a_long_image_is_cut_where_a_whole_one_would_be() -> None:
    image = noise(16, 700)  # just above the length from which the ends are cut off first
    tensor, placement = prepare(image, model(), ResizeMode.CROP)
    whole = resize(image, (32, 1400), Sampling.HALF_PIXEL)[:, 684:716]
    assert np.abs(tensor.astype(int) - whole).max() <= 1
    assert placement == Placement((-684.0, 0.0), (0.5, 0.5))
