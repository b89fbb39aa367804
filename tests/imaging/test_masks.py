import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trtjob.imaging.masks import Mask
from trtjob.imaging.rle import BoolArray


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=30)))
def test_a_mask_survives_its_code(pixels: BoolArray) -> None:
    mask = Mask.encode(pixels)
    assert (mask.decode() == pixels).all()
    assert mask.area == pixels.sum()


def test_the_outline_of_a_part_goes_through_its_outermost_pixels() -> None:
    pixels = np.zeros((20, 30), bool)
    pixels[2:8, 5:15] = True
    pixels[12, 20] = True
    (outline,) = Mask.encode(pixels).polygons()
    assert sorted(outline.tolist()) == [[5, 2], [5, 7], [14, 2], [14, 7]]


@given(st.text(alphabet="0123456789OPXo", max_size=8))
def test_a_damaged_mask_raises_value_error_only(counts: str) -> None:
    try:
        Mask((5, 5), counts).decode()
    except ValueError:
        return
    assert Mask((5, 5), counts).area <= 25


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="3 x 3"):
        Mask((3, 3), Mask.encode(np.ones((3, 4), bool)).counts).decode()
