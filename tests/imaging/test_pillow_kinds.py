"""Images that Pillow decodes: what they say of themselves, and what becomes of those that lie."""

import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.headers import image_kind, probe_size
from trtjob.imaging.pillow_kinds import missing_package

ORIENTATION_TAG = 0x0112
NOISE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (96, 64, 3)).astype(np.uint8))


def saved(kind: str, image: Image.Image = NOISE, **options: Any) -> bytes:
    for needed, module in {"HEIF": "pillow_heif", "JXL": "pillow_jxl"}.items():
        if kind == needed:
            package = pytest.importorskip(module)
            if kind == "HEIF":
                package.register_heif_opener()
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


KINDS = {"AVIF": "AVIF", "HEIF": "HEIC", "JPEG2000": "JPEG 2000", "JXL": "JPEG XL"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "size", [(640, 480), (641, 481), (512, 512), (1152, 648), (8, 3000), (3, 5)], ids=lambda s: f"{s[0]}x{s[1]}"
)
def test_the_size_is_known_before_a_pixel_is_decoded(kind: str, size: tuple[int, int]) -> None:
    data = saved(kind, Image.new("RGB", size))
    assert image_kind(data) == KINDS[kind]
    width, height = probe_size(data) or (0, 0)
    # HEVC's blocks are of 64 pixels at least; such a file says beside its size how much of that is shown.
    assert (width, height) == size or (kind == "HEIF" and width >= size[0] and height >= size[1])
    assert decode_image(data, max_pixels=1_000_000).shape == (size[1], size[0], 3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_of_too_many_pixels_is_not_decoded(kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(saved(kind), max_pixels=6000)
    assert caught.value.kind is FailureKind.TOO_LARGE


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_cut_off_anywhere_is_refused_in_the_same_words(kind: str) -> None:
    data = saved(kind)
    for end in range(1, len(data) - 24, len(data) // 24):
        messages = set()
        for _ in range(2):
            with pytest.raises(ImageError) as caught:
                decode_image(data[:end], max_pixels=1_000_000)
            messages.add(str(caught.value))
        assert len(messages) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_with_any_byte_changed_is_an_image_or_refused(kind: str) -> None:
    data, random = saved(kind), np.random.default_rng(7)
    for at in [*range(0, 200, 3), *random.integers(0, len(data), 60)]:
        damaged = bytearray(data)
        damaged[at] ^= random.integers(1, 256)
        probe_size(bytes(damaged))
        try:
            decode_image(bytes(damaged), max_pixels=100_000)
        except ImageError:
            continue


@pytest.mark.slow
def test_an_image_that_is_larger_than_it_says_gets_no_more_memory_than_that(tmp_path: Path) -> None:
    big = saved("AVIF", Image.new("RGB", (4000, 3000)), speed=10)
    place = big.index(b"ispe") + 8
    (tmp_path / "small.avif").write_bytes(big[:place] + struct.pack(">II", 16, 16) + big[place + 8 :])
    code = (
        "import sys; from pathlib import Path; from trtjob.imaging import decode, pillow_kinds\n"
        "data = Path(sys.argv[1]).read_bytes(); pillow_kinds._SPARE_BYTES = 8 << 20; decode.probe_size(data)\n"
        "decode.decode_image(data, max_pixels=1000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "small.avif")], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("trtjob.errors.ImageError: the AVIF image")


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_it_is_turned_as_it_is_to_be_seen(kind: str) -> None:
    pixels = np.zeros((64, 128, 3), np.uint8)
    pixels[:32, :64] = 255
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    image = decode_image(saved(kind, Image.fromarray(pixels), exif=exif.tobytes()), max_pixels=100_000)
    assert image.shape == (128, 64, 3)
    assert image[8:56, 40:56].min() > 200
    assert image[80:, :].max() < 50


def test_a_jpeg_that_was_packed_without_loss_is_turned_as_itself(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32] = 255
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=95, exif=exif.tobytes())
    with Image.open(tmp_path / "a.jpg") as image:
        image.save(tmp_path / "a.jxl", lossless_jpeg=True)
    jpeg, packed = (
        decode_image((tmp_path / name).read_bytes(), max_pixels=10_000).astype(int) for name in ("a.jpg", "a.jxl")
    )
    assert packed.shape == (64, 32, 3)
    assert np.abs(jpeg - packed).max() < 4


@pytest.mark.parametrize("bits", [9, 12, 16])
def test_what_is_white_in_many_bits_stays_white(bits: int) -> None:
    ramp = np.linspace(0, (1 << bits) - 1, 4096).astype(np.uint16).reshape(64, 64)
    stored = np.dstack([ramp] * 3)
    done, data = cv2.imencode(".jp2", stored)
    assert done
    decoded = decode_image(data.tobytes(), max_pixels=10_000, depth="full")
    assert np.abs(decoded - np.linspace(0, 255, 4096).reshape(64, 64, 1)).max() <= 1


def test_grey_of_many_bits_with_an_alpha_channel_is_read() -> None:
    data = (Path(__file__).parent / "odd" / "jpeg-2000-grey-and-alpha.jpg").read_bytes()
    decoded = decode_image(data, max_pixels=10_000)
    assert [int(decoded[place].mean()) for place in ((8, 8), (8, 40), (28, 8), (28, 40))] == [200, 20, 40, 240]


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16"])
def test_grey_and_transparent_pictures_become_colour(mode: str) -> None:
    picture = Image.new("L", (64, 48), 200)
    image = picture.convert(mode) if mode != "I;16" else Image.fromarray(np.full((48, 64), 200 << 8, np.uint16))
    assert np.all(decode_image(saved("JPEG2000", image), max_pixels=10_000) == 200)


def test_components_beyond_those_of_a_picture_are_refused() -> None:
    data = bytearray(saved("JPEG2000"))
    at = data.index(b"\xff\x4f\xff\x51") + 40
    data[at : at + 2] = struct.pack(">H", 16_384)
    with pytest.raises(ImageError, match="has 16,384 components"):
        decode_image(bytes(data), max_pixels=10_000)


@pytest.mark.parametrize(
    ("kind", "module", "extra"),
    [
        pytest.param("HEIF", "pillow_heif", "heif", id="heic"),
        pytest.param("JXL", "pillow_jxl", "jxl", id="jpeg-xl"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(
    kind: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = saved(kind)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError, match=rf"pip install 'trtjob\[{extra}\]'") as caught:
        decode_image(data, max_pixels=10_000)
    assert caught.value.kind is FailureKind.DECODE


def test_a_package_is_missed_before_the_job_where_names_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert missing_package(["a.jpg", "b.avif"]) is None
    assert "'trtjob[heif]'" in str(missing_package(["b/IMG_1.HEIC"]))
