"""The directories of an EXIF block, which is a TIFF file without pixels (Exif 2.3, 4.5.2)."""

import re
import struct
from dataclasses import dataclass

_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # by a value's type
UNITS = {**_SIZES, 5: 4, 10: 4}  # what a byte order turns round: a fraction is two numbers
EXIF_DIRECTORY, GPS_DIRECTORY = 0x8769, 0x8825
_FRACTIONS = {5: "II", 10: "ii"}
_WHOLE = {1: "B", 3: "H", 4: "I", 13: "I"}
_MOST_ENTRIES = 1000
_MOST_BYTES = 1 << 20  # of a value
_ORIENTATION, _UPRIGHT = 0x0112, 1
# An attribute or an element, as XMP writes a value (XMP specification part 1, 7.9.2.2).
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:\s*=\s*[\"']|>))[2-8](?=[\"'<])")


@dataclass(frozen=True, slots=True)
class Directory:
    """Entries by tag: the type of the values, how many there are, and where they lie."""

    data: bytes
    order: str
    entries: dict[int, tuple[int, int, int]]

    def raw(self, tag: int) -> bytes:
        """Return a value's bytes, none where it is not there, cut off or without measure."""
        if tag not in self.entries:
            return b""
        kind, count, place = self.entries[tag]
        length = _SIZES[kind] * count
        return self.data[place : place + length] if length <= min(_MOST_BYTES, len(self.data) - place) else b""

    def text(self, tag: int) -> str | None:
        """Return a text without the blanks around it, None where it is empty."""
        return self.raw(tag).split(b"\0")[0].decode("utf-8", "replace").strip() or None

    def number(self, tag: int) -> int | None:
        """Return a whole number, the first where there are several."""
        raw, kind = self.raw(tag), self.entries.get(tag, (0, 0, 0))[0]
        if not raw or kind not in _WHOLE:
            return None
        return int(struct.unpack_from(self.order + _WHOLE[kind], raw)[0])

    def fractions(self, tag: int) -> list[float]:
        """Return fractions as numbers, none where one has no value."""
        raw, kind = self.raw(tag), self.entries.get(tag, (0, 0, 0))[0]
        if kind not in _FRACTIONS:
            return []
        pairs = list(struct.iter_unpack(self.order + _FRACTIONS[kind], raw))
        return [above / below for above, below in pairs] if all(below for _, below in pairs) else []

    def below(self, tag: int) -> "Directory":
        """Return the directory to which a value points, an empty one where there is none."""
        at = self.number(tag)
        return Directory(self.data, self.order, {}) if at is None else _directory(self.data, self.order, at)


def exif_directory(exif: bytes) -> Directory:
    """Return the first directory of an EXIF block or a TIFF file, an empty one where it is damaged."""
    order = _ORDERS.get(exif[:4])
    if order is None or len(exif) < 8:
        return Directory(exif, "<", {})
    return _directory(exif, order, struct.unpack_from(order + "I", exif, 4)[0])


def upright_exif(exif: bytes) -> bytes:
    """Return an EXIF block of which the orientation says that nothing has to be turned.

    Where it said something else, its small picture, which lies as the large one did, is not shown any more.
    """
    directory = exif_directory(exif)
    kind, _, place = directory.entries.get(_ORIENTATION, (0, 0, 0))
    if kind not in _WHOLE or directory.number(_ORIENTATION) in (None, _UPRIGHT):
        return exif
    upright = bytearray(exif)
    struct.pack_into(directory.order + _WHOLE[kind], upright, place, _UPRIGHT)
    (first,) = struct.unpack_from(directory.order + "I", exif, 4)
    (count,) = struct.unpack_from(directory.order + "H", exif, first)
    following = first + 2 + 12 * count
    upright[following : following + 4] = bytes(len(upright[following : following + 4]))
    return bytes(upright)


def upright_xmp(xmp: bytes) -> bytes:
    """Return XMP of which the orientation says that nothing has to be turned."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _directory(data: bytes, order: str, at: int) -> Directory:
    entries: dict[int, tuple[int, int, int]] = {}
    count = struct.unpack_from(order + "H", data, at)[0] if at + 2 <= len(data) else 0
    for number in range(min(count, _MOST_ENTRIES)):
        start = at + 2 + 12 * number
        if start + 12 > len(data):
            break
        tag, kind, length = struct.unpack_from(order + "HHI", data, start)
        if kind in _SIZES:
            is_inside = _SIZES[kind] * length <= 4
            place = start + 8 if is_inside else struct.unpack_from(order + "I", data, start + 8)[0]
            entries.setdefault(tag, (kind, length, place))
    return Directory(data, order, entries)
