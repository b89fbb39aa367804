import cv2
import numpy as np
import pytest

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.thumbnail import thumbnail, thumbnail_of_jpeg


def size_of(data: bytes) -> tuple[int, int]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    height, width = image.shape[:2]
    return height, width


@pytest.mark.parametrize(
    ("hw", "small"),
    [((480, 640), (240, 320)), ((900, 300), (320, 107)), ((40, 60), (40, 60)), ((1, 5000), (1, 320)), ((1, 1), (1, 1))],
)
def test_the_longer_side_has_so_many_pixels_and_no_image_is_enlarged(
    hw: tuple[int, int], small: tuple[int, int]
) -> None:
    assert size_of(thumbnail(np.zeros((*hw, 3), np.uint8), 320)) == small


def jpeg(image: UInt8Array) -> UInt8Array:
    return np.asarray(cv2.imencode(".jpg", image)[1], np.uint8)


@pytest.mark.parametrize("hw", [(100, 200), (700, 500), (1300, 1301), (2600, 1000)])
def test_a_jpeg_that_is_decoded_no_larger_than_needed_gives_nearly_the_same(hw: tuple[int, int]) -> None:
    rows, columns = np.mgrid[: hw[0], : hw[1]]
    image = np.stack([rows * 255 / hw[0], columns * 255 / hw[1], rows * 0 + 90], -1).astype(np.uint8)
    whole, quick = thumbnail(image, 320), thumbnail_of_jpeg(jpeg(image), hw, 320)
    assert size_of(whole) == size_of(quick)
    a, b = (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (whole, quick))
    assert np.abs(np.asarray(a, int) - np.asarray(b, int)).mean() < 3


def test_what_is_no_jpeg_has_no_thumbnail() -> None:
    assert thumbnail_of_jpeg(np.zeros(100, np.uint8), (10, 10), 320) == b""
