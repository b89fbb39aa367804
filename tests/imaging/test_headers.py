"""What the first bytes of a file say that it is."""

import io
from pathlib import Path

import pytest
from PIL import Image

from trtjob.errors import ImageError
from trtjob.imaging.decode import decode_image
from trtjob.imaging.headers import HEAD_BYTES, begins_as_image

ODD = Path(__file__).parent / "odd"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000"])
def test_an_image_is_known_without_a_name(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, kind)
    assert begins_as_image(file.getvalue()[:HEAD_BYTES])


@pytest.mark.parametrize("name", ["heic.jpg", "jpeg-xl.jpg"])
def test_an_image_whose_decoder_may_be_missing_is_known_too(name: str) -> None:
    assert begins_as_image((ODD / name).read_bytes()[:HEAD_BYTES])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"BM",
        b"BMP files are read, too. So are many others, as the documents say.",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"RIFF\x24\0\0\0AVI LIST",
        b"\xff\xd8",
        b"%PDF-1.7",
        b"PK\x03\x04",
        b"\0\0\0\x18ftypisom\0\0\2\0isomiso2",
        b"<html><body>not found</body></html>",
    ],
)
def test_what_only_looks_a_little_like_one_is_none(data: bytes) -> None:
    assert not begins_as_image(data)


@pytest.mark.parametrize("name", ["heic.jpg", "jpeg-2000-grey-and-alpha.jpg", "jpeg-xl.jpg", "jpeg-xl-moving.jpg"])
def test_a_file_that_ends_anywhere_in_its_header_is_refused_as_an_image(name: str) -> None:
    data = (ODD / name).read_bytes()
    for length in range(1, min(len(data), 200)):
        with pytest.raises(ImageError):
            decode_image(data[:length], max_pixels=1_000_000)
