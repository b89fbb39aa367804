import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trtjob.imaging.rle import compressed, decompressed, mask_from, run_lengths

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))
COUNTS = st.lists(st.integers(0, 2**31), min_size=1)

# What pycocotools 2.0 gives.
SMILE = """
......
.#..#.
......
#....#
.####.
"""
KNOWN = [
    pytest.param(np.zeros((3, 4), bool), "<", id="nothing"),
    pytest.param(np.ones((3, 4), bool), "0<", id="everything"),
    pytest.param(np.array([[row == "#" for row in line] for line in SMILE.split()]), "3120002000M01010N", id="a face"),
]


def naive(counts: list[int]) -> str:
    """Return rleToString of maskApi.c."""
    text = ""
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        goes_on = True
        while goes_on:
            bits = rest & 0x1F
            rest >>= 5
            goes_on = rest != -1 if bits & 0x10 else rest != 0
            text += chr((bits | 0x20 if goes_on else bits) + 48)
    return text


@pytest.mark.slow
@given(MASKS)
def test_a_mask_survives_its_runs(mask: np.ndarray) -> None:
    assert (mask_from(run_lengths(mask), (mask.shape[0], mask.shape[1])) == mask).all()


@pytest.mark.slow
@given(COUNTS)
def test_runs_survive_their_text(counts: list[int]) -> None:
    assert decompressed(compressed(np.array(counts))).tolist() == counts


@given(COUNTS)
def test_the_text_is_that_of_coco(counts: list[int]) -> None:
    assert compressed(np.array(counts)) == naive(counts)


@pytest.mark.parametrize(("mask", "text"), KNOWN)
def test_known_masks_have_their_known_text(mask: np.ndarray, text: str) -> None:
    assert compressed(run_lengths(mask)) == text


@pytest.mark.parametrize("text", ["", "5 3", "5~", "5X", "X" * 20 + "1", "ä"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mask|ascii"):
        decompressed(text)


def test_runs_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="add up to 12 pixels, but it has 3 x 5"):
        mask_from(np.array([0, 12]), (3, 5))
