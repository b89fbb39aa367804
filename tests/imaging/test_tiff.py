"""TIFF files of every kind: read right, or refused with the reason."""

import logging
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tiffs import BITS, COLOR_MAP, COMPRESSION, EXTRA_SAMPLES, ORIENTATION, PHOTOMETRIC, SUBFILE, WIDTH, tiff

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.depth import Depth
from trtjob.imaging.pages import page_count

RNG = np.random.default_rng(14)
RGB = np.asarray(RNG.integers(0, 256, (40, 48, 3)), np.uint8)
GREY = np.ascontiguousarray(RGB[..., 0])
INVERTED, PALETTE, CMYK = {PHOTOMETRIC: 0}, {PHOTOMETRIC: 3}, {PHOTOMETRIC: 5}


def decode(data: bytes) -> UInt8Array:
    """Return a file's pixels as RGB."""
    return np.asarray(decode_image(data, max_pixels=1_000_000)[..., ::-1])


def failure(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.kind is FailureKind.DECODE
    return str(caught.value)


def wide(image: NDArray[np.uint8]) -> NDArray[np.uint16]:
    return image.astype(np.uint16) * 257


def grey(image: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(image[..., None], 3, 2)


# -- right -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [1, 5, 8, 32773, 32946])
@pytest.mark.parametrize(
    "layout",
    [
        pytest.param({}, id="strips"),
        pytest.param({"rows": 40}, id="one-strip"),
        pytest.param({"tile": 32}, id="tiles"),
        pytest.param({"tile": 16}, id="small-tiles"),
        pytest.param({"tile": 48, "planar": True}, id="tiles-of-planes"),
        pytest.param({"planar": True}, id="planes"),
        pytest.param({"big": True}, id="big"),
        pytest.param({"order": ">"}, id="big-endian"),
        pytest.param({"order": ">", "big": True, "tile": 32}, id="all"),
    ],
)
def test_each_codec_and_layout_gives_the_very_pixels(compression: int, layout: dict[str, Any]) -> None:
    for image in (RGB, wide(RGB)):
        assert np.array_equal(decode(tiff(image, compression=compression, **layout)), RGB)


def _packed(image: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    values = np.unpackbits(image.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(values.reshape(len(image), -1), axis=1)


RAMP = [value * 257 for value in range(256)]
FALLING = RAMP[::-1]
KINDS = [
    pytest.param(tiff(GREY), grey(GREY), id="grey"),
    pytest.param(tiff(255 - GREY, tags=INVERTED), grey(GREY), id="inverted"),
    pytest.param(tiff(wide(255 - GREY), tags=INVERTED), grey(GREY), id="inverted-16-bit"),
    pytest.param(tiff(GREY > 99), grey((GREY > 99).astype(np.uint8) * 255), id="1-bit"),
    pytest.param(tiff(GREY <= 99, tags=INVERTED), grey((GREY > 99).astype(np.uint8) * 255), id="1-bit-inverted"),
    pytest.param(
        tiff(GREY, tags=PALETTE | {COLOR_MAP: RAMP + FALLING + RAMP}), np.dstack([GREY, 255 - GREY, GREY]), id="palette"
    ),
    pytest.param(
        tiff(_packed(GREY >> 4, 4), tags=PALETTE | {WIDTH: 48, BITS: 4, COLOR_MAP: [n * 4369 for n in range(16)] * 3}),
        grey((GREY >> 4) * 17),
        id="palette-4-bit",
    ),
    pytest.param(tiff(np.dstack([255 - RGB, GREY * 0]), tags=CMYK), RGB, id="cmyk"),
    pytest.param(tiff(RGB, tags={ORIENTATION: 3}), RGB[::-1, ::-1], id="upside-down"),
    pytest.param(tiff(np.dstack([GREY, RGB[..., 1]]), tags={EXTRA_SAMPLES: 2}), grey(GREY), id="grey-and-alpha"),
]


@pytest.mark.parametrize(("data", "expected"), KINDS)
def test_each_kind_of_colour_gives_what_is_seen(data: bytes, expected: UInt8Array) -> None:
    assert np.array_equal(decode(data), expected)


@pytest.mark.parametrize("extra", [pytest.param(0, id="unspecified"), 1, pytest.param(2, id="unassociated")])
@pytest.mark.parametrize("layout", [pytest.param({}, id="strips"), pytest.param({"order": ">", "big": True}, id="big")])
def test_colours_under_an_alpha_channel_stay(extra: int, layout: dict[str, Any]) -> None:
    """OpenCV multiplied them with it, so that what is transparent was black."""
    for image in (np.dstack([RGB, GREY * 0]), np.dstack([wide(RGB), wide(GREY * 0)])):
        assert np.array_equal(decode(tiff(image, tags={EXTRA_SAMPLES: extra}, **layout)), RGB)


# -- bits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_the_bits_that_are_in_use_become_eight(bits: int) -> None:
    narrow = wide(RGB) >> (16 - bits)
    narrow[0, 0] = (1 << bits) - 1
    expected = (narrow >> (bits - 8)).astype(np.uint8)
    assert np.array_equal(decode(tiff(narrow)), expected)
    assert np.array_equal(decode(tiff(narrow, order=">", compression=5, tile=32)), expected)
    assert np.array_equal(decode(tiff(narrow, order=">", tile=16)), expected)
    assert np.array_equal(decode(tiff(narrow[..., 0])), grey(expected[..., 0]))
    done, png = cv2.imencode(".png", narrow[..., ::-1])
    assert done
    assert np.array_equal(decode(png.tobytes()), expected)


def test_in_an_inverted_image_too() -> None:
    narrow = 4095 - (wide(GREY) >> 4)
    assert np.array_equal(decode(tiff(narrow, tags=INVERTED)), grey(255 - (narrow >> 4).astype(np.uint8)))


def test_an_image_that_uses_all_bits_is_as_dark_as_it_was() -> None:
    dark = wide(RGB) >> 2
    dark[3, 3] = 1 << 14
    assert np.abs(decode(tiff(dark)).astype(int) - (dark >> 8)).max() <= 1


def test_a_black_image_is_black() -> None:
    assert not decode(tiff(wide(RGB) * 0)).any()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(tiff(wide(RGB) >> 4, planar=True), id="planes"),
        pytest.param(tiff(wide(RGB[..., :2]) >> 4, tags={EXTRA_SAMPLES: 0}), id="grey-and-alpha"),
    ],
)
def test_few_bits_that_opencv_does_not_give_are_refused(data: bytes) -> None:
    assert "few of its 16 bits are in use" in failure(data)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (GREY.astype(np.float16), "16-bit floating-point numbers"),
        (GREY.astype(np.complex64), "64-bit complex numbers"),
        (GREY.astype(np.uint64), "64-bit numbers"),
    ],
)
def test_other_numbers_are_refused_by_name(image: NDArray[np.generic], what: str) -> None:
    assert failure(tiff(image)) == f"the TIFF's pixels are {what}, which are not read here"


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (GREY.astype(np.int8), "int8 numbers"),
        (RGB.astype(np.int16), "int16 numbers"),
        (GREY.astype(np.uint32), "uint32 numbers"),
        (GREY.astype(np.float32), "float32 numbers"),
        (RGB.astype(np.float64) / -255, "float64 numbers"),
        (RGB.astype(np.float32) / 2550, "float32 numbers"),
    ],
)
def test_numbers_of_which_none_is_white_are_refused_with_the_way_out(image: NDArray[np.generic], what: str) -> None:
    message = failure(tiff(image))
    assert what in message
    assert "--depth full" in message


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("depth", ["auto", "high"])
def test_floating_point_numbers_up_to_one_are_shares_of_white(dtype: type[np.generic], depth: Depth) -> None:
    image = (RGB / np.float64(255)).astype(dtype)
    assert np.array_equal(decode_image(tiff(image), max_pixels=10_000, depth=depth)[..., ::-1], RGB)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_smallest_becomes_black_and_the_largest_white_of_any_numbers(
    dtype: type[np.generic], channels: int
) -> None:
    start = 0 if dtype == np.uint32 else -16
    image = np.tile(np.arange(start, start + 32)[:, None, None], (1, 48, channels)).astype(dtype)
    decoded = decode_image(tiff(image if channels > 1 else image[..., 0]), max_pixels=10_000, depth="full")
    assert decoded.shape == (32, 48, 3)
    assert decoded[:, 0, 0].tolist() == [round(row * 255 / 31) for row in range(32)]


def test_what_is_no_number_is_refused() -> None:
    image = (RGB / 255).astype(np.float32)
    image[3, 4, 1] = np.nan
    assert "are no numbers" in failure(tiff(image))


def test_floating_point_pictures_are_turned_as_they_say() -> None:
    image = (GREY / 255).astype(np.float32)
    turned = decode_image(tiff(image, tags={ORIENTATION: 6}), max_pixels=10_000)
    assert np.array_equal(turned[..., 0], np.rot90(GREY, -1))


def test_high_takes_twelve_bits_in_sixteen_as_they_are_stored() -> None:
    stored = wide(RGB) >> 4
    assert np.array_equal(decode_image(tiff(stored), max_pixels=10_000, depth="high")[..., ::-1], np.rint(stored / 257))
    full = decode_image(tiff(stored), max_pixels=10_000, depth="full")
    assert (full.min(), full.max()) == (0, 255)


# -- codecs and damage -------------------------------------------------------------------------------------------------


def jpeg2000(_raw: bytes) -> bytes:
    return cv2.imencode(".jp2", RGB)[1].tobytes()


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (6, "old-style JPEG"),
        (33003, "JPEG 2000"),
        (33005, "JPEG 2000"),
        (34712, "JPEG 2000"),
        (34887, "LERC"),
        (34892, "lossy JPEG"),
        (34925, "LZMA"),
        (34933, "PNG"),
        (50000, "Zstandard"),
        (50001, "WebP"),
        (50002, "JPEG XL"),
        (61234, "a codec without a name here"),
    ],
)
def test_a_codec_that_opencv_lacks_is_refused_by_name(number: int, name: str) -> None:
    message = failure(tiff(RGB, compression=number, encode=jpeg2000, rows=40))
    assert message == f"the TIFF is compressed with {name} (number {number}), which is not read here"


SMOOTH = np.asarray(cv2.GaussianBlur(RNG.integers(0, 256, (200, 300, 3)).astype(np.uint8), (0, 0), 2))


def jpeg_strip(raw: bytes) -> bytes:
    rows = np.frombuffer(raw, np.uint8).reshape(-1, 300, 3)
    return cv2.imencode(".jpg", rows[..., ::-1])[1].tobytes()


FILES = {
    "deflate": tiff(SMOOTH, compression=8),
    "old-deflate": tiff(SMOOTH, compression=32946),
    "lzw": tiff(SMOOTH, compression=5),
    "packbits": tiff(SMOOTH, compression=32773),
    "jpeg": tiff(SMOOTH, compression=7, encode=jpeg_strip, tags={PHOTOMETRIC: 6}),
    "deflate-tiles": tiff(SMOOTH, compression=8, tile=64),
}


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_right_where_they_are_whole(name: str) -> None:
    assert np.abs(decode(FILES[name]).astype(int) - SMOOTH).mean() < 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("start", "end"), [pytest.param(0.4, 0.8, id="middle"), pytest.param(0.92, 0.96, id="a-little")]
)
@pytest.mark.parametrize(
    "filler", [pytest.param(bytes, id="zeros"), pytest.param(lambda n: np.random.default_rng(n).bytes(n), id="noise")]
)
def test_damaged_strips_are_refused(name: str, start: float, end: float, filler: Callable[[int], bytes]) -> None:
    data = FILES[name]
    pixels = data.rindex(struct.pack("<HH", 254, 3)) - 2  # the directory lies behind them
    first, last = int(start * pixels), int(end * pixels)
    assert "damaged" in failure(data[:first] + filler(last - first) + data[last:])


def test_one_wrong_bit_in_deflated_data_is_found() -> None:
    for at in range(20, 2000, 97):
        data = bytearray(FILES["deflate"])
        data[at] ^= 1 << at % 8
        assert failure(bytes(data)) == "the image is damaged: the deflated data of its part 0 is not what was written"


def test_a_strip_that_inflates_to_more_than_its_pixels_is_refused() -> None:
    bomb = tiff(RGB, compression=8, encode=lambda raw: zlib.compress(raw + bytes(100_000_000), 1), rows=40)
    assert "damaged" in failure(bomb)


def test_too_few_bytes_are_damage(capfd: pytest.CaptureFixture[str]) -> None:
    data = tiff(RGB, tags={279: [2304, 2304, 100]})
    assert "damaged: DumpModeDecode: Not enough data" in failure(data)
    assert capfd.readouterr() == ("", "")


def test_what_libtiff_says_of_unknown_tags_goes_to_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert np.array_equal(decode(tiff(RGB, tags={33550: [1, 2], 65000: 3})), RGB)
    assert capfd.readouterr() == ("", "")
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert "Unknown field with tag 33550" in vars(caplog.records[0])["remark"]


def test_strips_that_no_pixel_needs_are_not_inflated() -> None:
    count, strip = 50_000, zlib.compress(RGB.tobytes())
    tags = {273: [8] * count, 279: [len(strip)] * count}
    assert np.array_equal(decode(tiff(RGB, compression=8, rows=40, encode=lambda _: strip, tags=tags)), RGB)


@pytest.mark.parametrize("side", [0, 60_000, 4_000_000_000])
def test_tiles_of_impossible_sizes_are_refused(side: int) -> None:
    message = failure(tiff(RGB, compression=8, tile=64, tags={322: side, 323: side}))
    assert f"strips or tiles are of {side:,} x {side:,} pixels" in message


# -- pages -------------------------------------------------------------------------------------------------------------


def test_pages_are_counted_and_smaller_copies_are_not() -> None:
    assert page_count(tiff(RGB)) == 1
    assert page_count(tiff(RGB, pages=3)) == 3
    assert page_count(tiff(RGB, pages=3, big=True, order=">")) == 3
    assert page_count(tiff(RGB, pages=3, tags={SUBFILE: 1})) == 1
    assert page_count(tiff(RGB, tags={32997: 5})) == 5


def _with_first_page(subfile: int) -> bytes:
    data = bytearray(tiff(RGB, pages=2))
    at = data.index(struct.pack("<HHI", SUBFILE, 3, 1))
    data[at + 8] = subfile
    return bytes(data)


@pytest.mark.parametrize("subfile", [pytest.param(1, id="small"), pytest.param(4, id="mask")])
def test_a_small_copy_in_front_of_the_image_is_refused(subfile: int) -> None:
    assert "a small copy or a mask of another one" in failure(_with_first_page(subfile))


def test_a_small_copy_of_nothing_is_an_image() -> None:
    assert np.array_equal(decode(tiff(RGB, tags={SUBFILE: 1})), RGB)


def test_pages_that_lead_round_in_a_circle_end() -> None:
    data = bytearray(tiff(RGB))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * count, directory)
    assert page_count(bytes(data)) == 1


@pytest.mark.slow
def test_a_million_directories_over_each_other_end() -> None:
    """Each is a byte behind the last one, and claims as many entries as can be."""
    entries = struct.pack("<H", 65_535) + bytes(12 * 65_535 + 4)
    assert page_count(b"II*\0" + struct.pack("<I", 8) + entries) == 1
    chain = b"".join(struct.pack("<HI", 0, 14 + 6 * n) for n in range(300_000))
    assert page_count(b"II*\0" + struct.pack("<I", 8) + chain) == 300_000


@pytest.mark.parametrize("tag", [COMPRESSION, BITS, EXTRA_SAMPLES, SUBFILE])
def test_a_tag_whose_values_lie_behind_the_end_is_a_damaged_header(tag: int) -> None:
    data = bytearray(tiff(np.dstack([RGB, GREY]), tags={EXTRA_SAMPLES: 0}))
    at = data.index(struct.pack("<HH", tag, 3), len(data) - 300)
    struct.pack_into("<II", data, at + 4, 4_000_000_000, 4_000_000_000)
    assert failure(bytes(data)) == "the TIFF's header is damaged or cut off"
