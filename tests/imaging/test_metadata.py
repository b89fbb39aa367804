"""What a camera knows of a picture."""

import struct

import numpy as np
import pytest
from cameras import FRACTION, FULL, GPS, MAKE, MAKER_NOTE, OFFSET, PHOTO, TAKEN, TEMPERATURE, exif, photo, reconyx
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational
from raws import cr2

from trtjob.imaging.embedded import exif_of
from trtjob.imaging.metadata import Metadata, metadata_from_exif


def of(block: Image.Exif) -> Metadata:
    return metadata_from_exif(block.tobytes().removeprefix(b"Exif\0\0"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_when_where_and_by_what_it_was_taken(kind: str) -> None:
    assert metadata_from_exif(exif_of(photo(kind))) == Metadata(
        captured_at="2026-07-04T20:30:15.25+02:00",
        latitude=-10.5,
        longitude=20.26,
        make="Maker",
        model="Model X",
        serial="SN 1",
    )


def test_a_telephones_photo_says_so_too() -> None:
    pytest.importorskip("pillow_heif").register_heif_opener()
    assert metadata_from_exif(exif_of(photo("HEIF"))).captured_at == "2026-07-04T20:30:15.25+02:00"


def test_a_jpeg_xl_says_so_in_its_box() -> None:
    pytest.importorskip("pillow_jxl")
    assert metadata_from_exif(exif_of(photo("JXL"))).captured_at == "2026-07-04T20:30:15.25+02:00"


def test_a_raw_file_and_a_tiff_are_their_own_exif() -> None:
    assert metadata_from_exif(exif_of(cr2(photo("JPEG"), b""))) == Metadata()
    block = FULL.tobytes().removeprefix(b"Exif\0\0")
    assert metadata_from_exif(exif_of(block)).make == "Maker"


@pytest.mark.parametrize(
    ("taken", "more", "captured_at"),
    [
        pytest.param("2026:07:04 20:30:15", {}, "2026-07-04T20:30:15", id="the-camera's-own-time"),
        pytest.param("2026:07:04 20:30:15", {OFFSET: "Z"}, "2026-07-04T20:30:15Z", id="utc"),
        pytest.param("2026:07:04 20:30:15", {OFFSET: "   :  "}, "2026-07-04T20:30:15", id="an-empty-offset"),
        pytest.param("2026:07:04 20:30:15", {OFFSET: "+99:00"}, "2026-07-04T20:30:15", id="an-offset-of-no-place"),
        pytest.param("2026:07:04 20:30:15", {FRACTION: "x"}, "2026-07-04T20:30:15", id="no-fraction"),
        pytest.param("2026-07-04 20:30:15", {}, "2026-07-04T20:30:15", id="with-hyphens"),
        pytest.param("0000:00:00 00:00:00", {}, None, id="a-clock-that-was-never-set"),
        pytest.param("    :  :     :  :  ", {}, None, id="unknown-as-exif-has-it"),
        pytest.param("2026:02:30 20:30:15", {}, None, id="no-such-day"),
        pytest.param("yesterday", {}, None, id="words"),
    ],
)
def test_the_time_is_what_the_camera_noted(taken: str, more: dict[int, str], captured_at: str | None) -> None:
    assert of(exif({TAKEN: taken, **more})).captured_at == captured_at


def test_without_a_time_of_its_own_a_picture_has_none() -> None:
    """That of a change (0x0132) or of the file is when somebody worked on it."""
    assert of(exif({}, first={0x0132: "2026:07:04 20:30:15"})).captured_at is None
    assert metadata_from_exif(b"") == Metadata()


@pytest.mark.parametrize(
    ("gps", "place"),
    [
        pytest.param({1: "N", 2: (48.0, 0.0, 36.0), 3: "W", 4: (11.5, 0.0, 0.0)}, (48.01, -11.5), id="degrees"),
        pytest.param({1: "N", 2: (48.0, 0.0, 36.0)}, (None, None), id="half-a-place"),
        pytest.param({1: "N", 2: (95.0, 0.0, 0.0), 3: "W", 4: (1.0, 0.0, 0.0)}, (None, None), id="beyond-the-pole"),
        pytest.param({2: (4.0, 0.0, 0.0), 4: (1.0, 0.0, 0.0)}, (None, None), id="north-or-south"),
    ],
)
def test_a_place_is_in_degrees_or_not_there(gps: dict[int, object], place: tuple[float | None, float | None]) -> None:
    found = of(exif({}, gps))
    assert (found.latitude, found.longitude) == place


def test_a_place_without_a_value_is_none() -> None:
    """A camera without a fix writes 0/0."""
    block = exif({}, {1: "N", 2: (48.0, 0.0, 36.0), 3: "W", 4: (11.0, 0.0, 0.0)}).tobytes()
    assert (
        metadata_from_exif(block.replace(struct.pack(">II", 36, 1), bytes(8)).removeprefix(b"Exif\0\0")).latitude
        is None
    )


@pytest.mark.parametrize(
    ("note", "serial", "temperature_c"),
    [
        pytest.param(
            reconyx(b"\x01\xf1\x03\0", 0x28, -7, 0x2A, "H500".encode("utf-16-le")), "H500", -7, id="hyperfire"
        ),
        pytest.param(reconyx(b"RECONYXUF\0", 0x46, 31, 0x4B, b"U1"), "U1", 31, id="ultrafire"),
        pytest.param(reconyx(b"RECONYXH2\0", 0x50, 0, 0x7E, "H2".encode("utf-16-le")), "H2", 0, id="hyperfire-2"),
        pytest.param(reconyx(b"RECONYXMF\0", 0x60, -1, 0x8C, "M1".encode("utf-16-le")), "M1", -1, id="microfire"),
        pytest.param(reconyx(b"RECONYXHF4K\0", 0x3A, 12, 0x84, b"4K"), "4K", 12, id="hyperfire-4k"),
        pytest.param(reconyx(b"\x01\xf1", 0x28, -7, 0x2A, b"X\0"), None, None, id="what-only-begins-alike"),
        pytest.param(reconyx(b"RECONYXUF\0", 0x46, -999, 0x4B, b"U1"), "U1", None, id="without-a-thermometer"),
        pytest.param(b"\x01\xf1\x03\0", None, None, id="cut-off"),
        pytest.param(b"Nikon\0\2" + bytes(200), None, None, id="another-maker"),
    ],
)
def test_trail_cameras_note_how_warm_it_is(note: bytes, serial: str | None, temperature_c: int | None) -> None:
    found = of(exif({MAKER_NOTE: note}))
    assert (found.serial, found.temperature_c) == (serial, temperature_c)


def test_reconyx_first_cameras_are_known_by_their_make() -> None:
    note = reconyx(b"\x01\xf1", 0x28, -7, 0x2A, "R1".encode("utf-16-le"))
    assert of(exif({MAKER_NOTE: note}, first={MAKE: "RECONYX"})).temperature_c == -7


@pytest.mark.parametrize(
    ("written", "temperature_c"),
    [pytest.param(-3.25, -3.2, id="degrees"), pytest.param(0.0, 0, id="zero"), pytest.param(-273.15, None, id="none")],
)
def test_a_temperature_as_exif_itself_has_it(written: float, temperature_c: float | None) -> None:
    assert of(exif({TEMPERATURE: IFDRational(round(written * 100), 100)})).temperature_c == temperature_c


@given(st.binary(max_size=300))
def test_what_is_no_exif_says_nothing_and_ends(data: bytes) -> None:
    metadata_from_exif(b"II*\0\x08\0\0\0" + data)
    metadata_from_exif(data)


def test_a_block_with_any_byte_changed_says_something_or_nothing() -> None:
    block, random = FULL.tobytes().removeprefix(b"Exif\0\0"), np.random.default_rng(2)
    for at in range(len(block)):
        metadata_from_exif(block[:at] + bytes(random.integers(0, 256, 1, np.uint8)) + block[at + 1 :])
        metadata_from_exif(block[:at])


def test_directories_that_point_at_each_other_end() -> None:
    loop = (
        struct.pack("<4sIH", b"II*\0", 8, 2) + struct.pack("<HHII", PHOTO, 4, 1, 8) + struct.pack("<HHII", GPS, 4, 1, 8)
    )
    assert metadata_from_exif(loop) == Metadata()
