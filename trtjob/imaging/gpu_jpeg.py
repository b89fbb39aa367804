"""Which JPEG files a GPU may decode: those of which every decoder makes the same picture, give or take a rounding."""

import struct

import numpy as np

from trtjob.imaging.jpeg_segments import APP1, EXIF, JPEG_END, JPEG_SCAN, JPEG_SIGNATURE, jpeg_segments

# More than this is the CPU's: it would take too much of a GPU's memory beside all else.
MOST_PIXELS = 80_000_000

_BASELINE, _CODES, _TABLES, _APP14 = 0xC0, 0xC4, 0xDB, 0xEE
# Comments and what applications add, but for Adobe's, which may tell of other colours.
_HARMLESS = frozenset({0xFE, *range(0xE0, 0xF0)}) - {_APP14}
_ORIENTATION, _SHORT, _UPRIGHT = 0x0112, 3, 1
_EIGHT_BITS = 8
# How often a component's samples lie across and down, packed as in the file: 4:4:4, 4:2:2 and 4:2:0.
_LUMA_SAMPLING, _CHROMA_SAMPLING = frozenset({0x11, 0x21, 0x22}), 0x11
_YCBCR = b"\x01\x02\x03"  # the components' numbers; others may mean RGB
_LEAST_SIDE, _MOST_SIDE = 16, 16_384
_TABLE_BYTES = 65  # of quantization, of 8 bits: its number, and 64
_WHOLE_SCAN = b"\x00\x3f\x00"  # from the first coefficient to the last, all their bits
# In a scan's data 0xFF is followed by 0 or, where intervals are told, by a restart marker.
_ESCAPE, _INTERVALS, _RESTARTS = 0xFF, 0xDD, range(0xD0, 0xD8)


def gpu_jpeg_hw(data: bytes) -> tuple[int, int] | None:
    """Return the (height, width) of a JPEG that a GPU may decode, None for every other file.

    It may where the file is whole, baseline, of 8 bits, grey or YCbCr in one of the usual samplings, in one scan, not
    too large, and upright; and where it can be read in one way alone, since a decoder that reads another size than this
    writes beyond the memory that it is given. Bits that are damaged within the scan do not show.
    """
    if not data.startswith(JPEG_SIGNATURE) or not data.endswith(JPEG_END):
        return None
    try:
        return _plain_hw(data)
    except (IndexError, ValueError, struct.error):
        return None


def _plain_hw(data: bytes) -> tuple[int, int] | None:
    frame, end = b"", len(JPEG_SIGNATURE)
    met: set[int] = set()
    tables: set[int] = set()
    for marker, at in jpeg_segments(data):
        if at != end + 2:  # there is something between two segments
            return None
        end = at + struct.unpack_from(">H", data, at)[0]
        segment = data[at + 2 : end]
        met.add(marker)
        if marker == _BASELINE and not frame:
            frame = segment
        elif marker == JPEG_SCAN:
            is_whole = _CODES in met and set(frame[8::3]) <= tables and _is_scan_of(frame, segment)
            is_last = is_whole and _ends_with_scan(data, end, has_intervals=_INTERVALS in met)
            return _usual_hw(frame) if is_last else None
        elif marker == _TABLES and len(segment) % _TABLE_BYTES == 0:
            tables.update(segment[::_TABLE_BYTES])
        elif marker not in (_CODES, _INTERVALS) and not (marker in _HARMLESS and _is_upright(marker, segment)):
            return None
    return None


def _usual_hw(frame: bytes) -> tuple[int, int] | None:
    bits, height, width, components = struct.unpack_from(">BHHB", frame)
    numbers, sampling = frame[6::3], frame[7::3]
    is_colour = components == 3 and numbers == _YCBCR and sampling[1:] == bytes([_CHROMA_SAMPLING] * 2)
    is_usual = sampling[0] in _LUMA_SAMPLING and (is_colour or components == 1)
    if bits != _EIGHT_BITS or not is_usual or len(frame) != 6 + 3 * components:
        return None
    is_of_a_size = min(height, width) >= _LEAST_SIDE and max(height, width) <= _MOST_SIDE
    return (height, width) if is_of_a_size and height * width <= MOST_PIXELS else None


def _is_scan_of(frame: bytes, scan: bytes) -> bool:
    """Tell whether a scan has all of a frame's components, in their order."""
    components = frame[6::3]
    return scan[0] == len(components) and scan[1:-3:2] == components and scan[-3:] == _WHOLE_SCAN


def _ends_with_scan(data: bytes, start: int, *, has_intervals: bool) -> bool:
    """Tell whether nothing but a scan's data, from `start` on, and the end of the image follow."""
    samples = np.frombuffer(data, np.uint8, offset=start)
    behind = samples[np.flatnonzero(samples[:-1] == _ESCAPE) + 1]
    is_restart = (behind >= _RESTARTS[0]) & (behind <= _RESTARTS[-1]) & has_intervals
    return bool(behind[(behind != 0) & ~is_restart].tobytes() == JPEG_END[1:])


def _is_upright(marker: int, segment: bytes) -> bool:
    """Tell whether a segment leaves the image as it is: only EXIF in an APP1 may say otherwise (Exif 2.3, 4.6.4)."""
    if marker != APP1 or not segment.startswith(EXIF):
        return True
    tiff = segment[len(EXIF) :]
    order = "<" if tiff.startswith(b"II") else ">"
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, directory)
    for number in range(entries):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, directory + 2 + 12 * number)
        if tag == _ORIENTATION:
            return bool(kind == _SHORT and value == _UPRIGHT)
    return True
