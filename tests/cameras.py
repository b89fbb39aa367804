"""Files as cameras write them, with what they know of a picture."""

import io
import struct
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

MAKE, MODEL, ORIENTATION, PHOTO, GPS = 0x010F, 0x0110, 0x0112, 0x8769, 0x8825
TAKEN, OFFSET, FRACTION, MAKER_NOTE, SERIAL, TEMPERATURE = 0x9003, 0x9011, 0x9291, 0x927C, 0xA431, 0x9400
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'></x:xmpmeta>"
PICTURE = Image.fromarray(np.random.default_rng(5).integers(0, 256, (40, 60, 3)).astype(np.uint8))


def exif(
    photo: dict[int, Any] | None = None, gps: dict[int, Any] | None = None, first: dict[int, Any] | None = None
) -> Image.Exif:
    """Return an EXIF block: what is in its first directory, in that of the photo and in that of the place."""
    block = Image.Exif()
    block.update(first or {})
    block.get_ifd(PHOTO).update(photo or {})
    block.get_ifd(GPS).update(gps or {})
    return block


FULL = exif(
    {TAKEN: "2026:07:04 20:30:15", OFFSET: "+02:00", FRACTION: "25", SERIAL: " SN 1 "},
    {1: "S", 2: (10.0, 30.0, 0.0), 3: "E", 4: (20.0, 15.0, 36.0)},
    {MAKE: "Maker", MODEL: "Model X", ORIENTATION: 6},
)


def photo(kind: str, block: Image.Exif = FULL, **options: Any) -> bytes:
    """Return a picture with EXIF, a profile and, where Pillow writes that, XMP."""
    if kind == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    elif kind in ("JPEG", "WEBP", "AVIF"):
        options["xmp"] = XMP
    file = io.BytesIO()
    PICTURE.save(file, kind, exif=block.tobytes(), icc_profile=PROFILE, **options)
    return file.getvalue()


def reconyx(mark: bytes, temperature_at: int, temperature_c: int, serial_at: int, serial: bytes) -> bytes:
    """Return a maker's note as Reconyx' cameras have it."""
    note = bytearray(256)
    note[: len(mark)] = mark
    note[temperature_at : temperature_at + 2] = struct.pack("<h", temperature_c)
    note[serial_at : serial_at + len(serial)] = serial
    return bytes(note)
