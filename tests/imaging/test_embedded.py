"""The blocks beside the pixels: read from a file, and written into its annotated copy."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from cameras import FULL, ORIENTATION, PICTURE, PROFILE, XMP, photo
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from tiffs import tiff

from trtjob.imaging.embedded import NOTHING, Embedded, embedded
from trtjob.imaging.encode import encode_image
from trtjob.imaging.metadata import metadata_from_exif

BLOCK = FULL.tobytes().removeprefix(b"Exif\0\0")
PIXELS = np.asarray(PICTURE)
ALL = Embedded(BLOCK, PROFILE, XMP)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_the_blocks_are_found(kind: str) -> None:
    assert embedded(photo(kind)) == ALL


def test_a_deflated_text_is_found() -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    PICTURE.save(file, "PNG", pnginfo=info)
    assert embedded(file.getvalue()).xmp == XMP


@pytest.mark.parametrize("suffix", [".jpg", ".JPE", ".png", ".webp"])
def test_a_copy_has_the_blocks_of_its_original_and_stands_upright(suffix: str) -> None:
    copy = encode_image(PIXELS, suffix, original=ALL)
    found = embedded(copy)
    assert (found.icc, found.xmp) == (PROFILE, XMP)
    with Image.open(io.BytesIO(copy)) as image:
        assert image.getexif()[ORIENTATION] == 1
        assert image.size == PICTURE.size
    assert metadata_from_exif(found.exif) == metadata_from_exif(BLOCK)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_a_copy_has_the_pixels_that_it_has_without_them(suffix: str) -> None:
    with (
        Image.open(io.BytesIO(encode_image(PIXELS, suffix))) as plain,
        Image.open(io.BytesIO(encode_image(PIXELS, suffix, original=ALL))) as copy,
    ):
        assert np.array_equal(np.asarray(plain), np.asarray(copy))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize(
    "original",
    [
        pytest.param(NOTHING, id="none"),
        pytest.param(Embedded(exif=bytes(2_000_000), icc=bytes(2_000_000), xmp=bytes(2_000_000)), id="too-large"),
    ],
)
def test_without_blocks_a_copy_has_the_same_bytes(suffix: str, original: Embedded) -> None:
    assert encode_image(PIXELS, suffix, original=original) == encode_image(PIXELS, suffix)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_blocks_that_no_encoder_takes_are_left_out(suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    copy = encode_image(PIXELS, suffix, original=Embedded(icc=bytes(36) + b"acsp" + bytes(400), exif=b"rubbish"))
    with Image.open(io.BytesIO(copy)) as image:
        assert image.size == PICTURE.size
    assert capfd.readouterr() == ("", "")


def test_a_profile_of_other_colours_than_the_copys_is_left_out() -> None:
    file = io.BytesIO()
    grey = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    PICTURE.save(file, "JPEG", icc_profile=grey)
    assert embedded(file.getvalue()) == NOTHING


@pytest.mark.parametrize("made", [lambda: tiff(PIXELS), lambda: b"", lambda: b"GIF89a", lambda: bytes(100)])
def test_other_files_have_none(made: Any) -> None:
    assert embedded(made()) == NOTHING


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_a_file_that_is_cut_off_or_changed_anywhere_is_no_crash(kind: str) -> None:
    data, random = photo(kind), np.random.default_rng(4)
    for at in range(0, min(len(data), 1200), 7):
        embedded(data[:at])
        embedded(data[:at] + random.bytes(2) + data[at + 2 :])


def test_a_profile_that_inflates_without_end_is_cut() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = bytes(16) + b"RGB " + bytes(50_000_000)
    png = photo("PNG")
    found = embedded(png[:33] + chunk(b"iCCP", b"x\0\0" + zlib.compress(bomb)) + png[33:])
    assert len(found.icc) <= 1 << 20
