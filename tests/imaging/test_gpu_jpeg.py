"""Which JPEGs a GPU may decode."""

import struct
from collections.abc import Callable
from io import BytesIO

import cv2
import numpy as np
import pytest
from PIL import Image

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.gpu_jpeg import gpu_jpeg_hw
from trtjob.imaging.jpeg_segments import jpeg_segments

COLOUR = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)


def jpeg(image: UInt8Array = COLOUR, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


def oriented(value: int, order: str = "<") -> bytes:
    """Return a JPEG whose EXIF tells an orientation."""
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(order + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, value, 0, 0)
    exif = b"Exif\0\0" + tiff
    data = jpeg()
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.mark.parametrize(
    "sampling",
    [
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ],
)
def test_baseline_files_of_the_usual_samplings(sampling: int) -> None:
    assert gpu_jpeg_hw(jpeg(COLOUR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)) == (40, 56)


def test_a_file_with_restart_markers() -> None:
    data = jpeg(COLOUR, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    assert b"\xff\xd0" in data
    assert gpu_jpeg_hw(data) == (40, 56)


def test_grey_and_upright_files() -> None:
    assert gpu_jpeg_hw(jpeg(COLOUR[..., 0])) == (40, 56)
    assert gpu_jpeg_hw(oriented(1)) == (40, 56)
    assert gpu_jpeg_hw(oriented(1, ">")) == (40, 56)


def _as_pillow(mode: str, **more: object) -> bytes:
    file = BytesIO()
    Image.fromarray(COLOUR).convert(mode).save(file, "JPEG", **more)
    return file.getvalue()


def _changed(marker: int, change: Callable[[bytes], bytes]) -> bytes:
    """Return a JPEG of which a segment, from its marker on, is changed."""
    data = jpeg()
    at = next(at for found, at in jpeg_segments(data) if found == marker)
    end = at + int.from_bytes(data[at : at + 2], "big")
    return data[: at - 2] + change(data[at - 2 : end]) + data[end:]


FRAME, TABLE, CODES, SCAN = 0xC0, 0xDB, 0xC4, 0xDA


@pytest.mark.parametrize(
    "data",
    [
        jpeg(COLOUR, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        jpeg(COLOUR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
        oriented(6),
        oriented(6, ">"),
        oriented(1)[:30] + oriented(1)[60:],
        _as_pillow("CMYK"),
        jpeg()[:-2],
        jpeg()[:100] + b"\xff\xd9",
        jpeg(COLOUR[:8]),
        cv2.imencode(".png", COLOUR)[1].tobytes(),
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        _changed(FRAME, lambda frame: frame + frame[:5] + b"\x00\x20" + frame[7:]),
        _changed(FRAME, lambda frame: frame + b"\xff\xc1" + frame[2:]),
        _changed(TABLE, lambda table: table + b"\x00"),
        _changed(TABLE, lambda table: table + b"\xff"),
        _changed(SCAN, lambda scan: scan[:4] + b"\x01" + scan[5:]),
        _changed(SCAN, lambda scan: scan[:5] + scan[7:9] + scan[5:7] + scan[9:]),
        _changed(SCAN, lambda scan: scan[:-2] + b"\x05" + scan[-1:]),
        _changed(SCAN, lambda scan: b"\xff\xdc\x00\x04\x10\x00" + scan),
        _changed(SCAN, lambda scan: scan + b"\xff\xd0"),
        jpeg()[:-2] + b"\xff\xdc\x00\x04\x10\x00\xff\xd9",
        jpeg()[:-2] + jpeg(COLOUR[:20])[2:],
        jpeg() + jpeg(),
        jpeg() + b"a comment\xff\xd9",
        _changed(FRAME, lambda frame: frame.replace(b"\x01\x22", b"R\x22").replace(b"\x02\x11", b"G\x11")),
        _changed(FRAME, lambda frame: frame[:-1] + b"\x03"),
        _changed(FRAME, lambda frame: frame[:3] + bytes([frame[3] + 3]) + frame[4:] + b"\x04\x11\x00"),
        _changed(FRAME, lambda frame: frame[:5] + b"\x7f\xff\x7f\xff" + frame[9:]),
        _changed(FRAME, lambda frame: frame[:5] + b"\x30\x00\x30\x00" + frame[9:]),
        _changed(TABLE, lambda table: table[:2] + b"\x00\x83\x10" + bytes(128)),
        _changed(CODES, lambda codes: b"\xff\xde" + codes[2:]),
        b"".join([jpeg()[:2], jpeg()[jpeg().index(b"\xff\xc0") :]]),
        _changed(FRAME, lambda _: b""),
    ],
    ids=[
        "progressive",
        "4:1:1",
        "turned",
        "turned, the other order",
        "damaged EXIF",
        "CMYK",
        "cut off",
        "cut in the header",
        "tiny",
        "PNG",
        "empty",
        "two bytes",
        "nothing between",
        "two frames, of two sizes",
        "a second frame, of another kind",
        "a byte between two segments",
        "a marker that is filled up",
        "a scan of one component",
        "a scan in another order",
        "a scan of some coefficients",
        "a number of lines before the scan",
        "a restart that was not told",
        "a number of lines after the scan",
        "a second frame after the scan",
        "two files",
        "something behind its end",
        "components that may be RGB",
        "a table that is not there",
        "a frame that is too long",
        "very large",
        "too large",
        "tables of 16 bits",
        "an unusual segment",
        "no tables",
        "no frame",
    ],
)
def test_all_else_is_for_the_cpu(data: bytes) -> None:
    assert gpu_jpeg_hw(data) is None


def test_a_segment_that_is_as_it_was_is_none_of_these() -> None:
    assert gpu_jpeg_hw(_changed(FRAME, lambda frame: frame)) == (40, 56)
    assert gpu_jpeg_hw(_changed(TABLE, lambda table: table + b"\xff\xfe\x00\x04ab")) == (40, 56)  # and a comment
