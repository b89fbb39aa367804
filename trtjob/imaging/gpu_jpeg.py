"""Which JPEG files a GPU may decode: those of which every decoder makes the same picture, give or take a rounding."""

import struct

from trtjob.imaging.jpeg_segments import APP1, EXIF, JPEG_END, JPEG_SIGNATURE, jpeg_segments

_BASELINE, _APP14 = 0xC0, 0xEE
_ORIENTATION, _SHORT, _UPRIGHT = 0x0112, 3, 1
_EIGHT_BITS = 8
# How often a component's samples lie across and down, packed as in the file: 4:4:4, 4:2:2 and 4:2:0.
_LUMA_SAMPLING, _CHROMA_SAMPLING = frozenset({0x11, 0x21, 0x22}), 0x11
_LEAST_SIDE = 16


def gpu_jpeg_hw(data: bytes) -> tuple[int, int] | None:
    """Return the (height, width) of a JPEG that a GPU may decode, None for every other file.

    It may where the file is whole, baseline, of 8 bits, grey or YCbCr in one of the usual samplings, and upright.
    """
    if not data.startswith(JPEG_SIGNATURE) or not data.endswith(JPEG_END):
        return None
    try:
        hw = None
        for marker, at in jpeg_segments(data):
            if marker == _BASELINE:
                hw = _usual_hw(data, at)
            elif (marker == APP1 and _orientation(data, at) != _UPRIGHT) or marker == _APP14:
                return None
        return hw
    except (IndexError, ValueError, struct.error):
        return None


def _usual_hw(data: bytes, at: int) -> tuple[int, int] | None:
    bits, height, width, components = struct.unpack_from(">BHHB", data, at + 2)
    sampling = [data[at + 9 + 3 * number] for number in range(components)]
    is_colour = components == 3 and sampling[0] in _LUMA_SAMPLING and sampling[1:] == [_CHROMA_SAMPLING] * 2
    if bits != _EIGHT_BITS or min(height, width) < _LEAST_SIDE or not (is_colour or components == 1):
        return None
    return height, width


def _orientation(data: bytes, at: int) -> int:
    """Return the orientation that an APP1 segment tells, upright where it tells none (Exif 2.3, 4.6.4)."""
    end = at + struct.unpack_from(">H", data, at)[0]
    exif = data[at + 2 : end]
    if not exif.startswith(EXIF):
        return _UPRIGHT
    tiff = exif[len(EXIF) :]
    order = "<" if tiff.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for number in range(entries):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * number)
        if tag == _ORIENTATION:
            return int(value) if kind == _SHORT else 0
    return _UPRIGHT
