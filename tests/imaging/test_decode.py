"""Files of every kind, whole and broken, to pixels or to a reason."""

import re
import struct
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.headers import probe_size

MAX_PIXELS = 1_000_000


def picture(height: int = 32, width: int = 48) -> UInt8Array:
    """Four corners of different colours, so that no turn or mirror image looks like another."""
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2, : width // 2] = (250, 20, 20)
    image[: height // 2, width // 2 :] = (20, 250, 20)
    image[height // 2 :, : width // 2] = (20, 20, 250)
    image[height // 2 :, width // 2 :] = (240, 240, 240)
    return image


def encoded(suffix: str, image: NDArray[np.uint8] | NDArray[np.uint16] | None = None) -> bytes:
    done, data = cv2.imencode(suffix, picture() if image is None else image)
    assert done
    return data.tobytes()


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> UInt8Array:
    return decode_image(data, max_pixels=max_pixels)


def failure(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[FailureKind, str]:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels)
    return FailureKind(caught.value.kind), str(caught.value)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def jpeg_header(width: int, height: int) -> bytes:
    frame = struct.pack(">BHHB", 8, height, width, 3) + bytes([1, 0x11, 0, 2, 0x11, 0, 3, 0x11, 0])
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0\xff\xc0" + struct.pack(">H", 2 + len(frame)) + frame


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def bmp_header_of_os2(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIHHHH", 26, 0, 0, 26, 12, width, height, 1, 24)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def webp_extended_header(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff((b"VP8X", bytes(4) + size))


def tiff_header(width: int, height: int, *, order: str = "<", kind: int = 4) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    value = {3: "HH", 4: "I"}[kind]

    def entry(tag: int, number: int) -> bytes:
        numbers = (number, 0) if kind == 3 else (number,)
        return struct.pack(order + "HHI" + value, tag, kind, 1, *numbers)

    entries = entry(254, 0) + entry(256, width) + entry(257, height)
    return mark + struct.pack(order + "IH", 8, 3) + entries + bytes(4)


def big_tiff_header(width: int, height: int, *, order: str = "<") -> bytes:
    mark = b"II+\0" if order == "<" else b"MM\0+"
    entries = b"".join(struct.pack(order + "HHQII", tag, 4, 1, n, 0) for tag, n in ((256, width), (257, height)))
    return mark + struct.pack(order + "HHQQ", 8, 0, 16, 2) + entries + bytes(8)


def gif_header(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)


HEADERS: list[object] = [
    pytest.param(png_header, id="png"),
    pytest.param(jpeg_header, id="jpeg"),
    pytest.param(bmp_header, id="bmp"),
    pytest.param(bmp_header_of_os2, id="bmp-os2"),
    pytest.param(webp_extended_header, id="webp"),
    pytest.param(tiff_header, id="tiff"),
    pytest.param(lambda w, h: tiff_header(w, h, order=">"), id="tiff-big-endian"),
    pytest.param(lambda w, h: tiff_header(w, h, kind=3), id="tiff-short"),
    pytest.param(lambda w, h: tiff_header(w, h, order=">", kind=3), id="tiff-big-endian-short"),
    pytest.param(big_tiff_header, id="bigtiff"),
    pytest.param(lambda w, h: big_tiff_header(w, h, order=">"), id="bigtiff-big-endian"),
    pytest.param(gif_header, id="gif"),
]
LOSSLESS = [pytest.param(suffix, id=suffix[1:]) for suffix in (".png", ".bmp", ".tiff")]
ALL_KINDS = [*LOSSLESS, *(pytest.param(suffix, id=suffix[1:]) for suffix in (".jpg", ".webp", ".gif"))]

Header = Callable[[int, int], bytes]


# -- whole images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_a_lossless_file_gives_its_very_pixels(suffix: str) -> None:
    assert np.array_equal(decode(encoded(suffix)), picture())


@pytest.mark.parametrize("suffix", ALL_KINDS)
def test_every_kind_gives_three_channels_of_bytes_in_bgr_order(suffix: str) -> None:
    image = decode(encoded(suffix))
    assert image.shape == (32, 48, 3)
    assert image.dtype == np.uint8
    # The middles of the corners: a lossy codec blurs the edges between them, and GIF has few colours.
    for y, x in ((8, 12), (8, 36), (24, 12), (24, 36)):
        assert np.abs(image[y, x].astype(int) - picture()[y, x]).max() <= 24


@pytest.mark.parametrize("suffix", ALL_KINDS)
def test_the_header_tells_the_size_of_a_real_file(suffix: str) -> None:
    assert probe_size(encoded(suffix)) == (48, 32)


def test_the_header_tells_the_size_of_a_lossless_webp() -> None:
    done, data = cv2.imencode(".webp", picture(), [cv2.IMWRITE_WEBP_QUALITY, 101])
    assert done
    assert data.tobytes()[12:16] == b"VP8L"
    assert probe_size(data.tobytes()) == (48, 32)


@pytest.mark.parametrize("suffix", [*LOSSLESS, pytest.param(".jpg", id="jpg")])
def test_grey_becomes_three_equal_channels(suffix: str) -> None:
    image = decode(encoded(suffix, np.full((16, 16), 77, np.uint8)))
    assert image.shape == (16, 16, 3)
    assert (image == 77).all()


@pytest.mark.parametrize("suffix", [pytest.param(".png", id="png"), pytest.param(".tiff", id="tiff")])
def test_an_alpha_channel_is_dropped_and_the_colours_under_it_stay(suffix: str) -> None:
    image = np.dstack([picture(), np.zeros((32, 48), np.uint8)])
    assert np.array_equal(decode(encoded(suffix, image)), picture())


@pytest.mark.parametrize("suffix", [pytest.param(".png", id="png"), pytest.param(".tiff", id="tiff")])
def test_of_sixteen_bits_the_upper_eight_stay(suffix: str) -> None:
    image = picture().astype(np.uint16) * 256 + 99
    off = np.abs(decode(encoded(suffix, image)).astype(int) - picture())
    assert off.max() <= (1 if suffix == ".tiff" else 0)  # OpenCV rounds those of a TIFF


def test_sixteen_bits_of_grey_become_eight_bits_of_colour() -> None:
    image = decode(encoded(".png", np.full((16, 16), 0x4DFE, np.uint16)))
    assert image.shape == (16, 16, 3)
    assert (image == 0x4D).all()


def cmyk_jpeg(*inks: int) -> bytes:
    """Write a JPEG of 8 x 8 pixels of one colour in four channels, as Adobe does: 255 is no ink.

    A block holds its mean only. One table gives the mean's length in bits (4 bits each), another the end of the block.
    """
    bits = ""
    for ink in inks:
        mean = ink - 128
        length = abs(mean).bit_length()
        amplitude = mean if mean >= 0 else mean + (1 << length) - 1
        bits += f"{length:04b}" + (f"{amplitude:0{length}b}" if length else "") + "0"
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")

    def segment(marker: int, data: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(data)) + data

    lengths = bytes([0, 0, 0, 9, *[0] * 12]) + bytes(range(9))
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0)),
            segment(0xDB, bytes([0]) + bytes([8] * 64)),
            segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([n, 0x11, 0]) for n in range(1, 5))),
            segment(0xC4, bytes([0x00]) + lengths),
            segment(0xC4, bytes([0x10]) + bytes([1, *[0] * 15]) + bytes([0])),
            segment(0xDA, bytes([4, 1, 0, 2, 0, 3, 0, 4, 0, 0, 63, 0])),
            scan,
            b"\xff\xd9",
        ]
    )


@pytest.mark.parametrize(
    ("inks", "bgr"),
    [
        pytest.param((255, 255, 255, 255), (255, 255, 255), id="paper"),
        pytest.param((0, 255, 255, 255), (255, 255, 0), id="cyan"),
        pytest.param((255, 0, 255, 255), (255, 0, 255), id="magenta"),
        pytest.param((255, 255, 0, 255), (0, 255, 255), id="yellow"),
        pytest.param((255, 255, 255, 0), (0, 0, 0), id="black"),
    ],
)
def test_a_jpeg_in_cmyk_gets_its_colours(inks: tuple[int, ...], bgr: tuple[int, ...]) -> None:
    image = decode(cmyk_jpeg(*inks))
    assert image.shape == (8, 8, 3)
    assert np.abs(image.astype(int) - bgr).max() <= 2


# -- EXIF --------------------------------------------------------------------------------------------------------------


def exif(orientation: int) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x112, 3, 1, orientation, 0, 0)


def turned_jpeg(orientation: int) -> bytes:
    data = encoded(".jpg")
    body = b"Exif\0\0" + exif(orientation)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]


def turned_png(orientation: int) -> bytes:
    data = encoded(".png")
    header = 8 + 25  # signature and IHDR
    return data[:header] + png_chunk(b"eXIf", exif(orientation)) + data[header:]


TURNS: list[Callable[[UInt8Array], UInt8Array]] = [
    lambda image: image,
    lambda image: image[:, ::-1],
    lambda image: image[::-1, ::-1],
    lambda image: image[::-1],
    lambda image: image.transpose(1, 0, 2),
    lambda image: np.rot90(image, -1),
    lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    lambda image: np.rot90(image),
]


@pytest.mark.parametrize("orientation", [pytest.param(number, id=str(number)) for number in range(1, 9)])
@pytest.mark.parametrize("turned", [pytest.param(turned_jpeg, id="jpeg"), pytest.param(turned_png, id="png")])
def test_an_image_is_turned_as_its_exif_says(turned: Callable[[int], bytes], orientation: int) -> None:
    upright = decode(turned(1))
    assert np.array_equal(decode(turned(orientation)), TURNS[orientation - 1](upright))


@pytest.mark.parametrize("orientation", [pytest.param(0, id="0"), pytest.param(9, id="9"), pytest.param(65535, id="-")])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    assert np.array_equal(decode(turned_jpeg(orientation)), decode(turned_jpeg(1)))


def test_a_thumbnail_inside_the_exif_is_not_taken_for_the_image() -> None:
    data, thumbnail = encoded(".jpg"), encoded(".jpg", np.zeros((8, 8, 3), np.uint8))
    body = b"Exif\0\0" + exif(1) + thumbnail
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(body)) + body + data[2:]
    assert probe_size(data) == (48, 32)


# -- broken ones -------------------------------------------------------------------------------------------------------


def test_an_empty_file_says_so() -> None:
    assert failure(b"") == (FailureKind.DECODE, "the file is empty")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"no image at all\n", id="text"),
        pytest.param(b"\xff", id="one-byte"),
        pytest.param(b"%PDF-1.7\n", id="pdf"),
        pytest.param(b"<svg xmlns='http://www.w3.org/2000/svg'/>", id="svg"),
        pytest.param(bytes(1000), id="zeros"),
    ],
)
def test_what_is_no_image_is_named_as_that(data: bytes) -> None:
    kind, message = failure(data)
    assert kind is FailureKind.DECODE
    assert message.startswith("it is not an image")


@pytest.mark.parametrize("suffix", [pytest.param(suffix, id=suffix[1:]) for suffix in (".ppm", ".hdr", ".ras")])
def test_a_kind_whose_header_is_not_read_is_refused_however_it_is_named(suffix: str) -> None:
    """Its size would be known only after its pixels have filled the memory."""
    kind, message = failure(encoded(suffix))
    assert kind is FailureKind.DECODE
    assert "JPEG, PNG, WebP, BMP, TIFF" in message


@pytest.mark.parametrize("suffix", ALL_KINDS)
@pytest.mark.parametrize(
    "share", [pytest.param(0.02, id="header"), pytest.param(0.5, id="half"), pytest.param(1, id="all-but-4")]
)
def test_a_file_that_is_cut_off_is_refused(suffix: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(suffix, noise)
    kind, message = failure(data[: min(len(data) - 4, max(4, int(share * len(data))))])
    assert kind is FailureKind.DECODE
    assert re.search("cut off|not an image", message)


def test_damage_inside_a_png_is_found() -> None:
    data = bytearray(encoded(".png", np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)))
    data[len(data) // 2] ^= 0xFF
    assert failure(bytes(data))[0] is FailureKind.DECODE


@pytest.mark.parametrize("suffix", ALL_KINDS)
def test_broken_files_leave_nothing_on_standard_error(suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    data = encoded(suffix, np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    failure(data[: len(data) // 2])
    assert capfd.readouterr() == ("", "")


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", HEADERS)
def test_a_huge_image_is_refused_by_its_header_alone(header: Header) -> None:
    # There are no pixels in it: anything but `too_large` would mean that they were looked for.
    kind, message = failure(header(60_000, 60_000), max_pixels=200_000_000)
    assert kind is FailureKind.TOO_LARGE
    assert message == "60,000 x 60,000 pixels are more than the limit of 200,000,000 (TRTJOB_MAX_PIXELS)"


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_tells_width_and_height_in_their_order(header: Header) -> None:
    assert probe_size(header(300, 200)) == (300, 200)


@pytest.mark.parametrize("header", [h for h in HEADERS if "webp" not in str(h)])
def test_an_image_without_pixels_is_named_as_that(header: Header) -> None:
    assert failure(header(0, 0)) == (FailureKind.DECODE, "the image has no pixels: its header says 0 x 0")


@pytest.mark.parametrize("suffix", ALL_KINDS)
def test_an_image_of_just_the_limit_is_decoded_and_one_above_is_not(suffix: str) -> None:
    assert decode(encoded(suffix), max_pixels=48 * 32).shape == (32, 48, 3)
    assert failure(encoded(suffix), max_pixels=48 * 32 - 1)[0] is FailureKind.TOO_LARGE


def test_a_bmp_with_its_rows_from_the_top_has_a_height() -> None:
    assert probe_size(bmp_header(30, -20)) == (30, 20)


@pytest.mark.parametrize(
    "filler",
    [
        pytest.param(b"\xff\xff\xff", id="fill-bytes"),
        pytest.param(b"\0garbage\0", id="garbage"),
        pytest.param(b"\xff\0", id="stuffed"),
    ],
)
def test_bytes_that_decoders_skip_between_the_segments_do_not_hide_a_jpegs_size(filler: bytes) -> None:
    data, huge, at = encoded(".jpg"), jpeg_header(60_000, 60_000), 20  # behind the JFIF segment
    assert decode(data[:at] + filler + data[at:]).shape == (32, 48, 3)
    kind, _ = failure(huge[:at] + filler + huge[at:])
    assert kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_that_is_cut_off_anywhere_is_a_failed_image_and_no_crash(header: Header) -> None:
    data = header(300, 200)
    for length in range(1, len(data)):
        assert failure(data[:length])[0] is FailureKind.DECODE
