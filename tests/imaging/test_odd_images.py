"""Every odd kind of image: what becomes of it. docs/formats.md has a table of them, which a test here checks."""

import io
import logging
import re
import struct
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from raws import cr2, dng
from tiffs import EXTRA_SAMPLES, PHOTOMETRIC, tiff

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.pages import page_count

ODD = Path(__file__).parent / "odd"  # written by scripts/odd_images.py
ROOT = Path(__file__).parent.parent.parent
RIGHT = "right"
WITH_EXTRA = {"HEIC", "JPEG XL"}
KIND = re.compile(r"(JPEG 2000|JPEG XL|JPEG XR|JPEG-LS|\S+?)(?:,? (.*))?")


def picture() -> NDArray[np.uint8]:
    """Return what the files show: RGB, four corners of different colours."""
    image = np.empty((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:] = (200, 40, 30), (20, 180, 60)
    image[16:, :24], image[16:, 24:] = (40, 60, 220), (240, 240, 240)
    return image


RGB = picture()
WIDE = RGB.astype(np.uint16) * 257
SHOWN = Image.fromarray(RGB)
FRAMES = [SHOWN, Image.fromarray(255 - RGB), Image.fromarray(RGB[::-1])]
NOISE = Image.fromarray(np.random.default_rng(1).integers(0, 256, (96, 96, 3)).astype(np.uint8))


def saved(kind: str, image: Image.Image = SHOWN, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def moving(kind: str, **options: Any) -> bytes:
    return saved(kind, save_all=True, append_images=[frame.copy() for frame in FRAMES[1:]], **options)


def with_alpha(alpha: int) -> Image.Image:
    return Image.fromarray(np.dstack([RGB, np.full(RGB.shape[:2], alpha, np.uint8)]))


def turned(kind: str, **options: Any) -> bytes:
    """Return the picture lying on its side, with the orientation that says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    block = exif if kind == "TIFF" else exif.tobytes()
    return saved(kind, SHOWN.transpose(Image.Transpose.ROTATE_90), exif=block, **options)


def zeroed(data: bytes, start: float, end: float) -> bytes:
    first, last = int(start * len(data)), int(end * len(data))
    return data[:first] + bytes(last - first) + data[last:]


def png(width: int, height: int, bits: int, color: int, rows: bytes, interlaced: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    body = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def interlaced_png() -> bytes:
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = b"".join(b"\0" + row.tobytes() for y, dy, x, dx in passes for row in RGB[y::dy, x::dx])
    return png(48, 32, 8, 2, rows, interlaced=1)


def png16(image: NDArray[Any]) -> bytes:
    return png(48, 32, 16, 2, b"".join(b"\0" + row.astype(">u2").tobytes() for row in image))


def bmp(bits: int, compression: int, data: bytes, between: bytes = b"") -> bytes:
    start = 54 + len(between)
    header = struct.pack("<IiiHHIIiiII", 40, 48, 32, 1, bits, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + between + data


def run_lengths(per_pixel: Callable[[int], bytes]) -> bytes:
    """Return the picture as runs of colours 0 to 3, its corners, from the lowest row on."""
    rows = [per_pixel(2) + per_pixel(3) + b"\0\0"] * 16 + [per_pixel(0) + per_pixel(1) + b"\0\0"] * 16
    return b"".join(rows) + b"\0\1"


CORNERS = [(200, 40, 30), (20, 180, 60), (40, 60, 220), (240, 240, 240)]
BMP_COLORS = b"".join(bytes((blue, green, red, 0)) for red, green, blue in CORNERS)
BMP_MASKS = struct.pack("<III", 0xFF, 0xFF00, 0xFF0000)


def bmp32(order: list[int], masks: bytes) -> bytes:
    return bmp(32, 3, np.dstack([RGB, RGB[..., 0]])[::-1, :, order].tobytes(), masks)


DAMAGED = "damaged"
NOT_READ = "it is not an image of a kind we read"


def with_extra(module: str, extra: str, becomes: str = RIGHT) -> str:
    """Return what becomes of an image where an extra is installed, or else that it is asked for."""
    return becomes if find_spec(module) else f"pip install 'trtjob[{extra}]'"


TABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG": (lambda: saved("JPEG", quality=95), RIGHT),
    "JPEG, progressive": (lambda: saved("JPEG", quality=95, progressive=True), RIGHT),
    "JPEG, CMYK": (lambda: saved("JPEG", SHOWN.convert("CMYK"), quality=95), RIGHT),
    "JPEG, RGB": (lambda: saved("JPEG", quality=95, keep_rgb=True), RIGHT),
    "JPEG, orientation": (lambda: turned("JPEG", quality=95), RIGHT),
    "JPEG, arithmetic": (lambda: (ODD / "arithmetic.jpg").read_bytes(), RIGHT),
    "JPEG, lossless": (lambda: (ODD / "lossless.jpg").read_bytes(), RIGHT),
    "JPEG, 12 bits": (lambda: (ODD / "12-bit.jpg").read_bytes(), "has 12 bits a sample"),
    "JPEG, lossless, 16 bits": (lambda: (ODD / "lossless-16-bit.jpg").read_bytes(), "has 16 bits a sample"),
    "JPEG, cut off": (lambda: saved("JPEG", NOISE)[:4000], DAMAGED),
    "JPEG without its last two bytes": (lambda: saved("JPEG")[:-2], DAMAGED),
    "JPEG with zeros inside": (lambda: zeroed(saved("JPEG", NOISE), 0.4, 0.8), DAMAGED),
    "JPEG with a few bytes too many": (lambda: saved("JPEG", quality=95)[:-2] + bytes(9) + b"\xff\xd9", RIGHT),
    "JPEG-LS": (lambda: (ODD / "jpeg-ls.jpg").read_bytes(), "not supported"),
    "JPEG, two pictures in one file": (lambda: moving("MPO", quality=95), RIGHT),
    "JPEG 2000": (lambda: saved("JPEG2000"), RIGHT),
    "JPEG 2000, codestream alone": (lambda: saved("JPEG2000", no_jp2=True), RIGHT),
    "JPEG 2000, lossy, tiles": (
        lambda: saved("JPEG2000", irreversible=True, quality_layers=[4], tile_size=(16, 16)),
        RIGHT,
    ),
    "JPEG 2000, 16 bits": (lambda: cv2.imencode(".jp2", WIDE[..., ::-1])[1].tobytes(), RIGHT),
    "JPEG 2000, 12 bits in 16": (lambda: cv2.imencode(".jp2", WIDE[..., ::-1] >> 4)[1].tobytes(), RIGHT),
    "JPEG 2000, CMYK": (lambda: saved("JPEG2000", SHOWN.convert("CMYK")), RIGHT),
    "JPEG 2000, YCbCr": (lambda: saved("JPEG2000", SHOWN.convert("YCbCr")), RIGHT),
    "JPEG 2000, signed": (lambda: (ODD / "jpeg-2000-signed.jpg").read_bytes(), "signed numbers"),
    "JPEG 2000, transparent": (lambda: saved("JPEG2000", with_alpha(0)), RIGHT),
    "JPEG 2000, cut off": (lambda: saved("JPEG2000", NOISE)[:-4000], "cut off"),
    "JPEG XL": (lambda: (ODD / "jpeg-xl.jpg").read_bytes(), with_extra("pillow_jxl", "jxl")),
    "JPEG XL, animated": (lambda: (ODD / "jpeg-xl-moving.jpg").read_bytes(), "the JPEG XL moves"),
    "JPEG XL, cut off": (lambda: (ODD / "jpeg-xl.jpg").read_bytes()[:-9], with_extra("pillow_jxl", "jxl", DAMAGED)),
    "JPEG XR": (lambda: (ODD / "jpeg-xr.jpg").read_bytes(), f"{NOT_READ}, but JPEG XR"),
    "HEIC": (lambda: (ODD / "heic.jpg").read_bytes(), with_extra("pillow_heif", "heif")),
    "HEIC, cut off": (lambda: (ODD / "heic.jpg").read_bytes()[:-90], with_extra("pillow_heif", "heif", DAMAGED)),
    "AVIF": (lambda: saved("AVIF"), RIGHT),
    "AVIF, orientation": (lambda: turned("AVIF"), RIGHT),
    "AVIF, transparent": (lambda: saved("AVIF", with_alpha(0)), RIGHT),
    "AVIF, animated": (lambda: moving("AVIF"), RIGHT),
    "AVIF, cut off": (lambda: saved("AVIF", NOISE)[:-4000], DAMAGED),
    "DNG": (lambda: dng(saved("JPEG", quality=95)), RIGHT),
    "DNG without a JPEG": (lambda: dng(b""), "no JPEG inside it"),
    "CR2": (lambda: cr2(saved("JPEG", quality=95), (ODD / "lossless.jpg").read_bytes()), RIGHT),
    "CR3": (lambda: b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", f"{NOT_READ}, but Canon's CR3"),
    "MP4": (lambda: b"\0\0\0\x18ftypisom\0\0\0\1isommp42", f"{NOT_READ}, but a video"),
    "PPM": (lambda: saved("PPM"), f"{NOT_READ}, but PPM"),
    "ICO": (lambda: saved("ICO"), f"{NOT_READ}, but ICO"),
    "PNG": (lambda: saved("PNG"), RIGHT),
    "PNG, 16 bits": (lambda: png16(WIDE), RIGHT),
    "PNG, 12 bits in 16": (lambda: png16(WIDE >> 4), RIGHT),
    "PNG, interlaced": (interlaced_png, RIGHT),
    "PNG, palette": (lambda: saved("PNG", SHOWN.quantize(256)), RIGHT),
    "PNG, palette of 2 bits": (lambda: saved("PNG", SHOWN.quantize(4), bits=2), RIGHT),
    "PNG, transparent colour": (lambda: saved("PNG", SHOWN.quantize(4), transparency=0), RIGHT),
    "PNG, transparent": (lambda: saved("PNG", with_alpha(0)), RIGHT),
    "PNG, orientation": (lambda: turned("PNG"), RIGHT),
    "PNG, animated": (lambda: moving("PNG"), RIGHT),
    "PNG, cut off": (lambda: saved("PNG", NOISE)[:4000], "cut off"),
    "PNG with zeros inside": (lambda: zeroed(saved("PNG", NOISE), 0.4, 0.5), DAMAGED),
    "PNG of too few rows": (lambda: png(48, 32, 8, 2, bytes(145 * 20)), DAMAGED),
    "GIF": (lambda: saved("GIF", SHOWN.quantize(4)), RIGHT),
    "GIF, interlaced": (lambda: saved("GIF", SHOWN.quantize(4), interlace=True), RIGHT),
    "GIF, animated": (lambda: moving("GIF"), RIGHT),
    "GIF, cut off": (lambda: saved("GIF", NOISE.quantize(256))[:2000], DAMAGED),
    "BMP": (lambda: saved("BMP"), RIGHT),
    "BMP, palette": (lambda: saved("BMP", SHOWN.quantize(4)), RIGHT),
    "BMP, runs of 8 bits": (lambda: bmp(8, 1, run_lengths(lambda c: bytes((24, c))), BMP_COLORS + bytes(1008)), RIGHT),
    "BMP, runs of 4 bits": (
        lambda: bmp(4, 2, run_lengths(lambda c: bytes((24, c * 17))), BMP_COLORS + bytes(48)),
        RIGHT,
    ),
    "BMP, runs cut off": (
        lambda: bmp(8, 1, run_lengths(lambda c: bytes((24, c)))[:90], BMP_COLORS + bytes(1008)),
        DAMAGED,
    ),
    "BMP, masks": (lambda: bmp32([2, 1, 0, 3], struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)), RIGHT),
    "BMP, masks in another order": (lambda: bmp32([0, 1, 2, 3], BMP_MASKS), "an order that is not read"),
    "BMP with a JPEG inside": (lambda: bmp(0, 4, saved("JPEG")), DAMAGED),
    "WebP": (lambda: saved("WEBP", quality=95), RIGHT),
    "WebP, lossless": (lambda: saved("WEBP", lossless=True), RIGHT),
    "WebP, transparent": (lambda: saved("WEBP", with_alpha(0), lossless=True, exact=True), RIGHT),
    "WebP, orientation": (lambda: turned("WEBP", quality=95), RIGHT),
    "WebP, animated": (lambda: moving("WEBP", quality=95), RIGHT),
    "WebP, cut off": (lambda: saved("WEBP", NOISE)[:4000], DAMAGED),
    "TIFF": (lambda: saved("TIFF"), RIGHT),
    "TIFF, LZW": (lambda: saved("TIFF", compression="tiff_lzw"), RIGHT),
    "TIFF, deflate": (lambda: saved("TIFF", compression="tiff_adobe_deflate"), RIGHT),
    "TIFF, PackBits": (lambda: saved("TIFF", compression="packbits"), RIGHT),
    "TIFF, JPEG": (lambda: saved("TIFF", compression="jpeg", quality=95), RIGHT),
    "TIFF, CCITT group 3": (lambda: saved("TIFF", SHOWN.convert("1"), compression="group3"), "black and white"),
    "TIFF, CCITT group 4": (lambda: saved("TIFF", SHOWN.convert("1"), compression="group4"), "black and white"),
    "TIFF, JPEG 2000": (lambda: tiff(RGB, compression=33003, encode=lambda _: saved("JPEG2000")), "JPEG 2000"),
    "TIFF, Zstandard": (lambda: saved("TIFF", compression="zstd"), "Zstandard"),
    "TIFF, LZMA": (lambda: saved("TIFF", compression="lzma"), "LZMA"),
    "TIFF, 12 bits in 16": (lambda: tiff(WIDE >> 4), RIGHT),
    "TIFF, transparent": (lambda: tiff(np.asarray(with_alpha(0)), tags={EXTRA_SAMPLES: 2}), RIGHT),
    "TIFF, CMYK": (lambda: tiff(np.dstack([255 - RGB, RGB[..., 0] * 0]), tags={PHOTOMETRIC: 5}), RIGHT),
    "TIFF, signed": (lambda: tiff(RGB.astype(np.int16)), "int16 numbers"),
    "TIFF, float": (lambda: tiff((RGB / 255).astype(np.float32)), RIGHT),
    "TIFF, float beyond 1": (lambda: tiff(RGB.astype(np.float32)), "float32 numbers"),
    "TIFF, orientation": (lambda: turned("TIFF"), RIGHT),
    "TIFF, palette": (lambda: saved("TIFF", SHOWN.quantize(4)), RIGHT),
    "TIFF, several pages": (lambda: moving("TIFF"), RIGHT),
    "TIFF, cut off": (lambda: tiff(RGB, first=True)[:-600], "the TIFF is cut off. --truncated ok"),
    "TIFF with zeros inside": (lambda: zeroed(saved("TIFF", NOISE, compression="tiff_lzw"), 0.4, 0.6), DAMAGED),
}
SEVERAL = {"PNG, animated", "GIF, animated", "WebP, animated", "AVIF, animated", "TIFF, several pages"}


@pytest.mark.parametrize("name", TABLE)
def test_an_odd_image_is_right_or_refused_with_the_reason(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    made, becomes = TABLE[name]
    data = made()
    if becomes not in (RIGHT, "black and white"):
        with pytest.raises(ImageError, match=re.escape(becomes)) as caught:
            decode_image(data, max_pixels=1_000_000)
        assert caught.value.kind is FailureKind.DECODE
    else:
        shown = RGB if becomes == RIGHT else np.asarray(SHOWN.convert("1").convert("RGB"))
        image = decode_image(data, max_pixels=1_000_000)[..., ::-1].astype(int)
        # The corners' middles: a lossy codec blurs the edges between them.
        for corner in (np.s_[4:12, 4:20], np.s_[4:12, 28:44], np.s_[20:28, 4:20], np.s_[20:28, 28:44]):
            assert np.abs(image[corner] - shown[corner]).max() <= 8
        assert page_count(data) == (3 if name in SEVERAL else 1)
    assert capfd.readouterr() == ("", "")


def corners(image: NDArray[np.uint8]) -> list[int]:
    """Return how far the middles of the corners are from the picture's."""
    places = (np.s_[4:12, 4:20], np.s_[4:12, 28:44], np.s_[20:28, 4:20], np.s_[20:28, 28:44])
    return [int(np.abs(image[..., ::-1].astype(int) - RGB)[place].max()) for place in places]


@pytest.mark.parametrize(
    ("made", "right", "damage"),
    [
        pytest.param(lambda: saved("JPEG", quality=95)[:-2], 4, "ends before the image does", id="no end"),
        pytest.param(lambda: saved("JPEG", quality=95)[:-20], 2, "ends before the image does", id="cut off"),
        pytest.param(
            lambda: zeroed(tiff(RGB, compression=8, rows=16), 0.05, 0.1), 2, "deflated data of its part 0", id="tiff"
        ),
        *(
            pytest.param(
                lambda options=options: tiff(RGB, first=True, **options)[:-30], 2, "ends before the image does", id=name
            )
            for name, options in {
                "tiff, strips": {},
                "tiff, tiles": {"tile": 16},
                "tiff, one strip": {"rows": 32},
                "tiff, LZW": {"compression": 5},
                "tiff, deflate": {"compression": 8},
                "tiff, PackBits": {"compression": 32773},
            }.items()
        ),
    ],
)
def test_damage_may_be_allowed(made: Callable[[], bytes], right: int, damage: str) -> None:
    data, damages = made(), list[str]()
    with pytest.raises(ImageError):
        decode_image(data, max_pixels=1_000_000)
    image = decode_image(data, max_pixels=1_000_000, on_damage=damages.append)
    assert damage in damages[0]
    assert sum(off <= 8 for off in corners(image)) >= right


def test_what_is_whole_has_no_damage_where_that_is_allowed() -> None:
    damages: list[str] = []
    assert max(corners(decode_image(saved("JPEG", quality=95), max_pixels=10_000, on_damage=damages.append))) <= 8
    assert damages == []


@pytest.mark.parametrize(
    "name", ["JPEG, 12 bits", "JPEG 2000, cut off", "TIFF, JPEG 2000", "PNG, cut off", "TIFF, signed"]
)
def test_what_cannot_be_read_is_refused_where_damage_is_allowed(name: str) -> None:
    with pytest.raises(ImageError):
        decode_image(TABLE[name][0](), max_pixels=1_000_000, on_damage=lambda _: None)


@pytest.mark.parametrize(
    ("name", "level", "remark"),
    [
        pytest.param("JPEG with a few bytes too many", "WARNING", "extraneous bytes before marker 0xd9", id="libjpeg"),
        pytest.param("PNG with rubbish for a profile", "INFO", "libpng warning: iCCP", id="libpng"),
    ],
)
def test_what_a_library_remarks_goes_to_the_log(
    name: str, level: str, remark: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    made = TABLE[name][0] if name in TABLE else lambda: saved("PNG", icc_profile=b"rubbish" * 30)
    data = made()
    with caplog.at_level(logging.INFO):
        decode_image(data, max_pixels=1_000_000)
    assert capfd.readouterr() == ("", "")
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == (level, "a decoder's remark")
    assert remark in vars(record)["remark"]


def what_is_tested() -> str:
    """Return the table of docs/formats.md: of each kind of file which ones are read, and which are refused."""
    kinds: dict[str, tuple[list[str], list[str]]] = {}
    for name, (_, becomes) in TABLE.items():
        kind, what = KIND.fullmatch(name).groups()  # type: ignore[union-attr]
        is_read = becomes in (RIGHT, "black and white") or name in WITH_EXTRA
        kinds.setdefault(kind, ([], []))[0 if is_read else 1].append(what or "plain")
    rows = (f"| {kind} | {'; '.join(read)} | {'; '.join(refused)} |" for kind, (read, refused) in kinds.items())
    return "\n".join(["| file | read right | refused |", "|---|---|---|", *rows])


def test_the_documents_name_what_is_tested() -> None:
    document = ROOT / "docs" / "formats.md"
    if not document.exists():
        pytest.skip("the documents are checked in the checkout only")
    assert what_is_tested() in document.read_text(), f"docs/formats.md: the table has to be\n\n{what_is_tested()}"
