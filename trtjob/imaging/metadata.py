"""What a camera knows of a picture: when, where and by what it was taken, and of some trail cameras how warm it was."""

import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from trtjob.imaging.exif import EXIF_DIRECTORY, GPS_DIRECTORY, Directory, exif_directory

_MAKE, _MODEL, _DNG_SERIAL = 0x010F, 0x0110, 0xC62F
_TAKEN, _OFFSET, _FRACTION, _MAKER_NOTE, _SERIAL = 0x9003, 0x9011, 0x9291, 0x927C, 0xA431
_TEMPERATURE = 0x9400  # since Exif 2.31
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_SECOND = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)")
_ZONE = re.compile(r"[+-](0\d|1[0-4]):[0-5]\d|Z")  # 14 hours are the most on earth
_DEGREES = 7  # decimals: a centimetre
_COLDEST_C, _WARMEST_C = -90, 60  # that have been measured on earth, with one to spare


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a picture, None where its file does not say.

    captured_at: ISO 8601, with the offset from UTC where the camera has noted it, else the camera's own time;
    latitude, longitude: degrees, north and east of Greenwich; temperature_c: at a trail camera, degrees Celsius.
    """

    captured_at: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    make: str | None = None
    model: str | None = None
    serial: str | None = None
    temperature_c: float | None = None


def metadata_from_exif(exif: bytes) -> Metadata:
    """Return what an EXIF block, or a TIFF file, says of a picture; what is damaged in it says nothing."""
    first = exif_directory(exif)
    photo, gps = first.below(EXIF_DIRECTORY), first.below(GPS_DIRECTORY)
    make = first.text(_MAKE)
    serial, noted_c = _trail_camera(photo.raw(_MAKER_NOTE), make)
    latitude = _degrees(gps, _LATITUDE, _LATITUDE_REF, "S", 90)
    longitude = _degrees(gps, _LONGITUDE, _LONGITUDE_REF, "W", 180)
    return Metadata(
        captured_at=_captured_at(photo),
        latitude=latitude if longitude is not None else None,
        longitude=longitude if latitude is not None else None,
        make=make,
        model=first.text(_MODEL),
        serial=photo.text(_SERIAL) or first.text(_DNG_SERIAL) or serial,
        temperature_c=_of_air([*photo.fractions(_TEMPERATURE), *noted_c]),
    )


def _captured_at(photo: Directory) -> str | None:
    match = _SECOND.fullmatch(photo.text(_TAKEN) or "")
    if match is None:
        return None
    try:
        taken = datetime(*map(int, match.groups())).isoformat()  # type: ignore[arg-type]
    except ValueError:  # a camera whose clock was never set
        return None
    fraction = photo.text(_FRACTION) or ""
    zone = photo.text(_OFFSET) or ""
    return f"{taken}{f'.{fraction}' if fraction.isdecimal() else ''}{zone if _ZONE.fullmatch(zone) else ''}"


def _degrees(gps: Directory, tag: int, ref_tag: int, negative: str, most: int) -> float | None:
    parts = gps.fractions(tag)
    ref = gps.text(ref_tag)
    if not parts or ref is None:
        return None
    degrees = sum(part / 60**place for place, part in enumerate(parts[:3]))
    return round(-degrees if ref == negative else degrees, _DEGREES) if 0 <= degrees <= most else None


def _of_air(temperatures_c: Sequence[float]) -> float | None:
    """Return the first of them if air can have it; a camera without a thermometer notes something else."""
    found = next(iter(temperatures_c), None)
    return round(found, 1) if found is not None and _COLDEST_C <= found <= _WARMEST_C else None


def _trail_camera(note: bytes, make: str | None) -> tuple[str | None, tuple[int, ...]]:
    """Return the serial number and the temperature that Reconyx' cameras note."""
    with suppress(struct.error):
        for mark, (temperature_at, serial_at, serial_bytes, encoding) in _RECONYX.items():
            if note.startswith(mark) and (mark != _FIRST_MARK or make == "RECONYX"):
                temperature_c = struct.unpack_from("<h", note, temperature_at)
                serial = note[serial_at : serial_at + serial_bytes].decode(encoding, "replace").split("\0")[0].strip()
                return serial or None, temperature_c
    return None, ()


# By what a note begins with: where the temperature stands, and where, in how many bytes and how the serial number does.
# From Reconyx' RCNX_MN10.pdf, ultrafire_makernote.pdf and "Reconyx Metadata 1_4.pdf", as ExifTool's Reconyx.pm 1.08 has
# them: HyperFire in its versions, the first of which has a mark that others may begin with, UltraFire, HyperFire 2,
# MicroFire, HyperFire 4K.
_FIRST_MARK = b"\x01\xf1"
_HYPERFIRE = (0x28, 0x2A, 30, "utf-16-le")
_RECONYX = {
    b"\x01\xf1\x02\0": _HYPERFIRE,
    b"\x01\xf1\x03\0": _HYPERFIRE,
    _FIRST_MARK: _HYPERFIRE,
    b"RECONYXUF\0": (0x46, 0x4B, 15, "ascii"),
    b"RECONYXH2\0": (0x50, 0x7E, 30, "utf-16-le"),
    b"RECONYXMF\0": (0x60, 0x8C, 30, "utf-16-le"),
    b"RECONYXHF4K\0": (0x3A, 0x84, 15, "ascii"),
}
