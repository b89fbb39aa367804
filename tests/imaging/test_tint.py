import numpy as np
import pytest

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.masks import Mask
from trtjob.imaging.tint import tint

RED, BLUE = (0, 0, 255), (255, 0, 0)


def grey(height: int = 40, width: int = 60) -> UInt8Array:
    return np.full((height, width, 3), 100, np.uint8)


def mask(rows: slice, columns: slice, hw: tuple[int, int] = (40, 60)) -> Mask:
    pixels = np.zeros(hw, bool)
    pixels[rows, columns] = True
    return Mask.encode(pixels)


def test_the_pixels_of_a_mask_are_tinted_and_no_others() -> None:
    image = grey()
    tint(image, [(mask(np.s_[10:20], np.s_[5:30]), RED)])
    inside = image[10:20, 5:30].reshape(-1, 3)
    assert (inside == inside[0]).all()
    blue, green, red = inside[0]
    assert blue == green < 100 < red < 255
    image[10:20, 5:30] = 100
    assert (image == 100).all()


def test_the_image_shows_through() -> None:
    image = grey()
    image[12, 7] = 200
    tint(image, [(mask(np.s_[10:20], np.s_[5:30]), RED)])
    assert (image[12, 7] > image[13, 7]).all()


def test_where_masks_overlap_the_last_ones_colour_counts() -> None:
    over, alone = grey(), grey()
    tint(over, [(mask(np.s_[0:30], np.s_[0:30]), BLUE), (mask(np.s_[20:40], np.s_[20:60]), RED)])
    tint(alone, [(mask(np.s_[20:40], np.s_[20:60]), RED)])
    assert np.array_equal(over[20:, 20:], alone[20:, 20:])
    assert not np.array_equal(over[:20, :20], alone[:20, :20])


def test_more_masks_than_a_byte_can_count_are_all_tinted() -> None:
    image = grey(20, 20)
    masks = [(mask(np.s_[at // 20 : at // 20 + 1], np.s_[at % 20 : at % 20 + 1], (20, 20)), RED) for at in range(400)]
    tint(image, masks)
    assert (image[..., 2] > 100).all()


def test_without_masks_nothing_is_touched() -> None:
    image = grey()
    tint(image, [])
    assert (image == 100).all()


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        tint(grey(), [(mask(np.s_[0:2], np.s_[0:2], (20, 20)), RED)])
