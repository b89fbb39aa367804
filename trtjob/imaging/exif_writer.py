"""EXIF blocks made anew from the directories of a TIFF or raw file, and TIFF files that get what such a block says."""

import struct
from collections.abc import Mapping

from trtjob.imaging.exif import EXIF_DIRECTORY, GPS_DIRECTORY, UNITS, Directory, exif_directory

# Of the first directory what speaks of the picture and not of how its pixels lie: description, make, model,
# orientation, software, time, artist and copyright.
_ABOUT = (0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x8298)
_BELOW = (EXIF_DIRECTORY, GPS_DIRECTORY)
_INTEROPERABILITY = 0xA005  # a directory below that of the photo, which says nothing of it
_XMP, _ICC = 0x02BC, 0x8773
_LONG, _BYTE, _UNDEFINED = 4, 1, 7
_MOST_VALUE_BYTES, _MOST_BYTES = 32_768, 1 << 20
_ENTRY_BYTES, _HEAD_BYTES = 12, 8

_Entries = dict[int, tuple[int, int, bytes]]  # by tag: the values' type, how many there are, and they, little-endian


def exif_from_directories(data: bytes) -> bytes:
    """Return an EXIF block with what the directories of a TIFF say, empty where that is nothing."""
    entries, below = _about(exif_directory(data))
    if not (entries or below):
        return b""
    return struct.pack("<4sI", b"II*\0", _HEAD_BYTES) + _directories(entries, below, _HEAD_BYTES)


def tiff_with_blocks(tiff: bytes, exif: bytes, icc: bytes, xmp: bytes) -> bytes:
    """Return a TIFF of one page, little-endian, with what blocks say in its directory, which then lies at its end."""
    entries, below = _about(exif_directory(exif))
    if icc:
        entries[_ICC] = _UNDEFINED, len(icc), icc
    if xmp:
        entries[_XMP] = _BYTE, len(xmp), xmp
    # What is there stays, each with its four bytes, be they values or say where these lie.
    (at,) = struct.unpack_from("<I", tiff, 4)
    for number in range(struct.unpack_from("<H", tiff, at)[0]):
        tag, kind, count, field = struct.unpack_from("<HHI4s", tiff, at + 2 + _ENTRY_BYTES * number)
        entries[tag] = kind, count, field
    body = tiff + bytes(len(tiff) % 2)
    return body[:4] + struct.pack("<I", len(body)) + body[_HEAD_BYTES:] + _directories(entries, below, len(body))


def _about(first: Directory) -> tuple[_Entries, dict[int, _Entries]]:
    entries = {tag: entry for tag, entry in _entries(first).items() if tag in _ABOUT}
    below = {tag: found for tag in _BELOW if (found := _entries(first.below(tag)))}
    return entries, below


def _entries(directory: Directory) -> _Entries:
    """Return the entries of a directory, without those that are large: makers' notes of raw files."""
    found: _Entries = {}
    room = _MOST_BYTES
    for tag, (kind, count, _) in directory.entries.items():
        raw = directory.raw(tag)
        if tag != _INTEROPERABILITY and 0 < len(raw) <= min(_MOST_VALUE_BYTES, room):
            room -= len(raw)  # values may lie over each other
            found[tag] = kind, count, raw if directory.order == "<" else _swapped(raw, UNITS[kind])
    return found


def _swapped(raw: bytes, unit: int) -> bytes:
    return b"".join(raw[at : at + unit][::-1] for at in range(0, len(raw), unit))


def _directories(entries: _Entries, below: Mapping[int, _Entries], at: int) -> bytes:
    """Return a directory that comes to lie at a place, and behind it those to which it points."""
    placed = {**entries, **{tag: (_LONG, 1, bytes(4)) for tag in below}}
    end = at + len(_directory(placed, at))
    parts = []
    for tag, inner in below.items():
        placed[tag] = _LONG, 1, struct.pack("<I", end)
        parts.append(_directory(inner, end))
        end += len(parts[-1])
    return b"".join([_directory(placed, at), *parts])


def _directory(entries: _Entries, at: int) -> bytes:
    head, values = [struct.pack("<H", len(entries))], b""
    start = at + 2 + _ENTRY_BYTES * len(entries) + 4
    for tag, (kind, count, raw) in sorted(entries.items()):
        field = raw.ljust(4, b"\0")
        if len(raw) > 4:
            field = struct.pack("<I", start + len(values))
            values += raw + bytes(len(raw) % 2)
        head.append(struct.pack("<HHI4s", tag, kind, count, field))
    return b"".join([*head, bytes(4), values])
