"""The JPEG inside a camera's raw file."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from raws import cr2, dng

from trtjob.errors import ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.headers import probe_size
from trtjob.imaging.raw import is_raw, raw_preview

ORIENTATION_TAG = 0x0112


def jpeg(width: int = 48, height: int = 32, orientation: int | None = None) -> bytes:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = 255  # white where it is upright: above, left
    exif = Image.Exif()
    if orientation is not None:
        exif[ORIENTATION_TAG] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95, **({"exif": exif} if orientation else {}))
    return file.getvalue()


def white_corner(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return in which half, down and across, the white corner is."""
    down, across = np.argwhere(image[..., 0] > 128).mean(axis=0) > np.array(image.shape[:2]) / 2
    return int(down), int(across)


def test_the_size_is_the_previews() -> None:
    assert probe_size(dng(jpeg(96, 64))) == (96, 64)
    assert probe_size(cr2(jpeg(96, 64), b"")) == (96, 64)


@pytest.mark.parametrize(
    ("orientation", "corner", "hw"),
    [
        pytest.param(1, (0, 0), (32, 48), id="upright"),
        pytest.param(2, (0, 1), (32, 48), id="mirrored"),
        pytest.param(3, (1, 1), (32, 48), id="upside-down"),
        pytest.param(4, (1, 0), (32, 48), id="flipped"),
        pytest.param(5, (0, 0), (48, 32), id="transposed"),
        pytest.param(6, (0, 1), (48, 32), id="right"),
        pytest.param(7, (1, 1), (48, 32), id="transverse"),
        pytest.param(8, (1, 0), (48, 32), id="left"),
    ],
)
def test_it_is_turned_as_the_raw_file_says(orientation: int, corner: tuple[int, int], hw: tuple[int, int]) -> None:
    upright = decode_image(jpeg(orientation=orientation), max_pixels=10_000)  # as OpenCV turns it
    image = decode_image(cr2(jpeg(), b"", orientation), max_pixels=10_000)
    assert image.shape[:2] == hw
    assert white_corner(image) == white_corner(upright) == corner


def test_a_preview_with_exif_is_turned_once() -> None:
    image = decode_image(dng(jpeg(orientation=6), 6), max_pixels=10_000)
    assert (image.shape[:2], white_corner(image)) == ((48, 32), (0, 1))


def test_a_preview_is_as_large_as_an_image_may_be() -> None:
    with pytest.raises(ImageError, match="more than the limit of 1,000"):
        decode_image(dng(jpeg()), max_pixels=1000)


def test_a_tiff_of_a_scanner_is_not_raw() -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "TIFF")
    assert not is_raw(file.getvalue())


def test_a_raw_file_that_is_damaged_anywhere_is_no_crash() -> None:
    whole = cr2(jpeg(), b"", 1)
    for at in range(len(whole)):
        raw_preview(whole[:at])
        is_raw(whole[:at])
    for at in range(0, len(whole), 7):
        raw_preview(whole[:at] + struct.pack("<I", 0xFFFFFFF0) + whole[at + 4 :])
