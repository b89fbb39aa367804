"""The blocks beside the pixels: read from a file, and written into its annotated copy."""

import io
import re
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from cameras import FULL, GPS, ORIENTATION, PHOTO, PICTURE, PROFILE, XMP, photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo
from raws import cr2
from tiffs import tiff

from trtjob.imaging.decode import decode_image
from trtjob.imaging.embedded import NOTHING, Embedded, embedded, exif_of
from trtjob.imaging.encode import encode_image
from trtjob.imaging.exif import exif_directory, upright_exif
from trtjob.imaging.exif_writer import exif_from_directories, tiff_with_blocks
from trtjob.imaging.metadata import metadata_from_exif

BLOCK = FULL.tobytes().removeprefix(b"Exif\0\0")
PIXELS = np.asarray(PICTURE)
ALL = Embedded(BLOCK, PROFILE, XMP)
JP2_XMP = bytes.fromhex("BE7ACFCB97A942E89C71999491E3AFAC")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_the_blocks_are_found(kind: str) -> None:
    assert embedded(photo(kind)) == ALL


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def jpeg_2000() -> bytes:
    """Return a file with the blocks, as ExifTool writes them into one."""
    file = io.BytesIO()
    PICTURE.save(file, "JPEG2000")
    data = file.getvalue()
    at = data.index(b"colr") - 4
    head = data.index(b"jp2h") - 4
    (head_bytes,) = struct.unpack_from(">I", data, head)
    (colors_bytes,) = struct.unpack_from(">I", data, at)
    others = data[head + 8 : at] + data[at + colors_bytes : head + head_bytes]
    numbered = box(b"uuid", b"JpgTiffExif->JP2" + BLOCK) + box(b"uuid", JP2_XMP + XMP)
    colors = box(b"colr", b"\2\0\0" + PROFILE)
    return data[:head] + box(b"jp2h", others + colors) + numbered + data[head + head_bytes :]


def test_the_blocks_of_a_jpeg_2000_are_found() -> None:
    data = jpeg_2000()
    assert np.array_equal(decode_image(data, max_pixels=10_000)[..., ::-1], PIXELS)
    assert embedded(data) == ALL
    assert metadata_from_exif(exif_of(data)).make == "Maker"


def test_what_a_jpeg_xl_says_in_its_boxes_is_found() -> None:
    file = box(b"JXL ", b"\r\n\x87\n") + box(b"Exif", bytes(4) + BLOCK) + box(b"xml ", XMP) + box(b"jxlc", b"\xff\x0a")
    assert embedded(file) == Embedded(exif=BLOCK, xmp=XMP)


def test_a_deflated_text_is_found() -> None:
    info, file = PngInfo(), io.BytesIO()
    info.add_itxt("XML:com.adobe.xmp", XMP.decode(), zip=True)
    PICTURE.save(file, "PNG", pnginfo=info)
    assert embedded(file.getvalue()).xmp == XMP


@pytest.mark.parametrize("suffix", [".jpg", ".JPE", ".png", ".webp", ".tif", ".TIFF"])
def test_a_copy_has_the_blocks_of_its_original_and_stands_upright(suffix: str) -> None:
    copy = encode_image(PIXELS, suffix, original=ALL)
    found = embedded(copy)
    assert (found.icc, found.xmp) == (PROFILE, XMP)
    with Image.open(io.BytesIO(copy)) as image:
        assert image.getexif()[ORIENTATION] == 1
        assert image.size == PICTURE.size
    assert metadata_from_exif(found.exif) == metadata_from_exif(BLOCK)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "code"), [(3, "H"), (4, "I")])
def test_an_orientation_is_set_right_however_it_is_written(order: str, kind: int, code: str) -> None:
    """And a small picture, whose directory follows, is not left to lie on its side."""
    entry = struct.pack(f"{order}HHI", ORIENTATION, kind, 1) + struct.pack(order + code, 6).ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    exif = mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "IH", 26, 0) + bytes(4)
    upright = exif_directory(upright_exif(exif))
    assert upright.number(ORIENTATION) == 1
    assert upright.data == exif[:18] + struct.pack(order + code, 1).ljust(4, b"\0") + bytes(4) + exif[26:]
    assert upright_exif(upright.data) == upright.data


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize(
    "text", ['<r tiff:Orientation="6"/>', "<r tiff:Orientation = '8' />", "<tiff:Orientation>3</tiff:Orientation>"]
)
def test_an_orientation_in_xmp_is_set_right_too(suffix: str, text: str) -> None:
    xmp = embedded(encode_image(PIXELS, suffix, original=Embedded(xmp=text.encode()))).xmp.decode()
    assert xmp == re.sub("[2-8]", "1", text)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tif"])
def test_a_copy_has_the_pixels_that_it_has_without_them(suffix: str) -> None:
    with (
        Image.open(io.BytesIO(encode_image(PIXELS, suffix))) as plain,
        Image.open(io.BytesIO(encode_image(PIXELS, suffix, original=ALL))) as copy,
    ):
        assert np.array_equal(np.asarray(plain), np.asarray(copy))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
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


# -- TIFF and raw files, whose directories say it ----------------------------------------------------------------------


def test_a_scan_keeps_what_it_says_through_every_kind_of_copy() -> None:
    original = embedded(tiff_with_blocks(encode_image(PIXELS, ".tif"), BLOCK, PROFILE, XMP))
    assert (original.icc, original.xmp) == (PROFILE, XMP)
    for suffix in (".tif", ".jpg", ".png", ".webp"):
        copy = embedded(encode_image(PIXELS, suffix, original=original))
        assert metadata_from_exif(copy.exif) == metadata_from_exif(BLOCK)
        assert (copy.icc, copy.xmp) == (PROFILE, XMP)


@pytest.mark.parametrize("order", ["II*\0", "MM\0*"])
def test_what_a_scan_says_is_the_same_in_either_byte_order(order: str) -> None:
    swapped = Image.Exif()
    swapped.endian = "<" if order == "II*\0" else ">"
    swapped.update(FULL)
    swapped.get_ifd(PHOTO).update(FULL.get_ifd(PHOTO))
    swapped.get_ifd(GPS).update(FULL.get_ifd(GPS))
    block = swapped.tobytes().removeprefix(b"Exif\0\0")
    assert block.startswith(order.encode())
    rebuilt = exif_from_directories(block)
    assert rebuilt.startswith(b"II*\0")
    assert metadata_from_exif(rebuilt) == metadata_from_exif(BLOCK)


def test_the_pixels_of_a_scan_are_left_alone() -> None:
    plain = encode_image(PIXELS, ".tif")
    copy = encode_image(PIXELS, ".tif", original=ALL)
    assert copy[8 : len(plain)] == plain[8:]
    assert np.array_equal(decode_image(copy, max_pixels=10_000), PIXELS)


def test_a_raw_files_preview_is_annotated_with_what_the_camera_knows() -> None:
    original = embedded(cr2(photo("JPEG"), b"", orientation=6))
    with Image.open(io.BytesIO(encode_image(PIXELS, ".jpg", original=original))) as copy:
        assert copy.getexif()[ORIENTATION] == 1


def test_large_values_and_such_that_lie_over_each_other_are_left_out() -> None:
    entries = b"".join(struct.pack("<HHII", 0x8000 + n, 7, 32_000, 8) for n in range(900))
    photo_at = 8 + 2 + 12 + 4
    first = struct.pack("<H", 1) + struct.pack("<HHII", PHOTO, 4, 1, photo_at) + bytes(4)
    block = struct.pack("<4sI", b"II*\0", 8) + first + struct.pack("<H", 900) + entries + bytes(40_000)
    assert 0 < len(exif_from_directories(block)) < (1 << 20) + 1000


@given(st.binary(max_size=400))
def test_directories_of_any_bytes_are_read_and_written_without_a_crash(data: bytes) -> None:
    block = exif_from_directories(b"II*\0\x08\0\0\0" + data)
    tiff_with_blocks(encode_image(PIXELS[:1, :1], ".tif"), block or data, b"", data)
