"""One page or frame of several, by its number."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiffs import SUBFILE, tiff

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import decode_image, decoding_bytes
from trtjob.imaging.headers import probe_size
from trtjob.imaging.pages import page_count

SIZES = [(48, 32), (64, 40), (30, 20)]


def frames(sizes: list[tuple[int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", size, (80 * number, 200 - 80 * number, 50)) for number, size in enumerate(sizes)]


def saved(kind: str, sizes: list[tuple[int, int]]) -> bytes:
    first, *others = frames(sizes)
    file = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    first.save(file, kind, save_all=True, append_images=others, **options)
    return file.getvalue()


def color(image: NDArray[np.uint8]) -> list[int]:
    return [int(value) for value in image[image.shape[0] // 2, image.shape[1] // 2, ::-1]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_each_page_is_the_one_of_its_number(kind: str) -> None:
    data = saved(kind, [(48, 32)] * 3)
    assert page_count(data) == 3
    for number in range(3):
        image = decode_image(data, max_pixels=10_000, page=number + 1)
        assert image.shape == (32, 48, 3)
        assert np.abs(np.subtract(color(image), (80 * number, 200 - 80 * number, 50))).max() <= 6


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_a_page_that_is_not_there_is_refused(kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(saved(kind, [(48, 32)] * 2), max_pixels=10_000, page=3)
    assert caught.value.kind is FailureKind.DECODE


def test_pages_of_a_tiff_have_each_their_size() -> None:
    data = saved("TIFF", SIZES)
    assert [probe_size(data, number + 1) for number in range(3)] == SIZES
    shapes = [decode_image(data, max_pixels=10_000, page=number + 1).shape[1::-1] for number in range(3)]
    assert shapes == SIZES


def test_a_page_is_as_large_as_an_image_may_be() -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(saved("TIFF", SIZES), max_pixels=2000, page=2)
    assert caught.value.kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_every_kind_of_tiff(big: bool, order: str) -> None:
    image = np.full((8, 8, 3), 200, np.uint8)
    data = tiff(image, big=big, order=order, pages=3)  # type: ignore[arg-type]
    assert all(np.array_equal(decode_image(data, max_pixels=100, page=page), image) for page in (1, 2, 3))


def test_small_copies_are_no_pages() -> None:
    copy, page = tiff(np.zeros((4, 4), np.uint8), tags={SUBFILE: 1}), np.full((8, 8), 200, np.uint8)
    with pytest.raises(ImageError):
        decode_image(copy, max_pixels=100, page=1)
    assert np.all(decode_image(tiff(page), max_pixels=100, page=1) == 200)


@pytest.mark.parametrize(
    ("made", "page", "pixel_bytes"),
    [
        pytest.param(lambda: saved("TIFF", SIZES), 2, 6, id="tiff"),
        pytest.param(lambda: tiff(np.zeros((8, 8), np.float64)), None, 27, id="floats"),
        pytest.param(lambda: saved("GIF", SIZES[:1] * 2), None, 6, id="first-frame"),
        pytest.param(lambda: saved("GIF", SIZES[:1] * 2), 2, 24, id="later-frame"),
    ],
)
def test_the_memory_that_a_page_takes_is_known_before(
    made: Callable[[], bytes], page: int | None, pixel_bytes: int
) -> None:
    assert decoding_bytes(made(), page) == pixel_bytes
