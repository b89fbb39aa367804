"""Pixels to files, read back."""

import numpy as np
import pytest

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.encode import encode_image
from trtjob.jobs.folder import ANNOTATED_SUFFIXES

SIGNATURES = {
    ".jpg": b"\xff\xd8\xff",
    ".jpeg": b"\xff\xd8\xff",
    ".jpe": b"\xff\xd8\xff",
    ".png": b"\x89PNG",
    ".webp": b"RIFF",
    ".bmp": b"BM",
    ".tif": b"II*\0",
    ".tiff": b"II*\0",
}


def gradient() -> UInt8Array:
    y, x = np.mgrid[0:64, 0:96]
    return np.dstack([x * 2, y * 3, x + y]).astype(np.uint8)


@pytest.mark.parametrize("suffix", [pytest.param(suffix, id=suffix[1:]) for suffix in sorted(ANNOTATED_SUFFIXES)])
def test_every_kind_that_a_copy_may_have_is_written_as_its_name_says(suffix: str) -> None:
    data = encode_image(gradient(), suffix)
    assert data.startswith(SIGNATURES[suffix])
    off = np.abs(decode_image(data, max_pixels=10_000).astype(int) - gradient())
    assert off.mean() < 3


@pytest.mark.parametrize(
    "suffix", [pytest.param(suffix, id=suffix[1:]) for suffix in (".png", ".bmp", ".tif", ".tiff")]
)
def test_a_lossless_kind_keeps_every_pixel(suffix: str) -> None:
    assert np.array_equal(decode_image(encode_image(gradient(), suffix), max_pixels=10_000), gradient())


def test_the_case_of_the_suffix_does_not_matter() -> None:
    assert encode_image(gradient(), ".JPG") == encode_image(gradient(), ".jpg")


def test_the_same_pixels_always_give_the_same_bytes() -> None:
    assert all(encode_image(gradient(), s) == encode_image(gradient(), s) for s in ANNOTATED_SUFFIXES)


def test_a_higher_quality_takes_more_bytes() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    sizes = [len(encode_image(noise, ".jpg", jpeg_quality=quality)) for quality in (20, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 2


@pytest.mark.parametrize(
    ("suffix", "longest"), [pytest.param(".webp", 16_383, id="webp"), pytest.param(".jpg", 65_500, id="jpg")]
)
@pytest.mark.parametrize("is_tall", [pytest.param(False, id="wide"), pytest.param(True, id="tall")])
def test_a_side_that_the_kind_cannot_have_is_a_failure_to_write(suffix: str, longest: int, is_tall: bool) -> None:
    def strip(length: int) -> UInt8Array:
        return np.zeros((length, 1, 3) if is_tall else (1, length, 3), np.uint8)

    assert decode_image(encode_image(strip(longest), suffix), max_pixels=longest).shape == strip(longest).shape
    with pytest.raises(ImageError, match=rf"{suffix} file cannot have a side of {longest + 1:,} pixels") as caught:
        encode_image(strip(longest + 1), suffix)
    assert caught.value.kind is FailureKind.WRITE


def test_an_image_without_pixels_is_a_failure_to_write() -> None:
    with pytest.raises(ImageError, match="cannot be encoded") as caught:
        encode_image(np.zeros((0, 0, 3), np.uint8), ".png")
    assert caught.value.kind is FailureKind.WRITE
