"""Which JPEG files a GPU may decode: those of which every decoder makes the same picture, give or take a rounding."""

import struct

from trtjob.imaging.jpeg_segments import (
    APP1,
    EXIF,
    JPEG_END,
    JPEG_FRAMES,
    JPEG_SCAN,
    JPEG_SIGNATURE,
    jpeg_segments,
)

_BASELINE, _APP14 = 0xC0, 0xEE
_ORIENTATION, _SHORT, _UPRIGHT = 0x0112, 3, 1
_EIGHT_BITS = 8
# How often a component's samples lie across and down, packed as in the file: 4:4:4, 4:2:2 and 4:2:0.
_LUMA_SAMPLING, _CHROMA_SAMPLING = frozenset({0x11, 0x21, 0x22}), 0x11
_LEAST_SIDE = 16


def gpu_jpeg_hw(data: bytes) -> tuple[int, int] | None:
    """Return the (height, width) of a JPEG that a GPU may decode, None for every other file.

    It may where the file is whole, baseline, of 8 bits, grey or YCbCr in one of the usual samplings, in one scan, and
    upright; and where its header can be read in one way alone, since a decoder that reads another size than this
    writes beyond the memory that it is given.
    """
    if not data.startswith(JPEG_SIGNATURE) or not data.endswith(JPEG_END):
        return None
    try:
        return _plain_hw(data)
    except (IndexError, ValueError, struct.error):
        return None


def _plain_hw(data: bytes) -> tuple[int, int] | None:
    hw, frame, end = None, 0, len(JPEG_SIGNATURE)
    for marker, at in jpeg_segments(data):
        if at != end + 2:  # there is something between two segments
            return None
        end = at + struct.unpack_from(">H", data, at)[0]
        if marker in JPEG_FRAMES:
            if frame or marker != _BASELINE:
                return None
            hw, frame = _usual_hw(data, at), at
        elif marker == JPEG_SCAN:
            return hw if frame and data[at + 2] == data[frame + 7] else None
        elif marker == _APP14 or (marker == APP1 and _orientation(data, at) != _UPRIGHT):
            return None
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
