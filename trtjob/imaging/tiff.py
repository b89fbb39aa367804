"""What a TIFF file says of its pages, and whether OpenCV reads the first one right.

OpenCV gives black pixels where its libtiff lacks the codec, takes signed numbers for unsigned ones, multiplies colours
with their alpha, and stops before the checksum of deflated data. So this is looked at here, before a pixel is decoded.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice
from typing import NamedTuple

from trtjob.errors import FailureKind, ImageError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
CUT_OFF = (struct.error, OverflowError)  # what reading beyond the end of a file raises


class _Layout(NamedTuple):
    """start: where the first directory's offset stands, in `room` bytes; offset, length: its format, and a count's."""

    start: int
    offset: str
    length: str
    room: int


_SMALL, _BIG = _Layout(4, "I", "H", 4), _Layout(8, "Q", "Q", 8)
_BIG_VERSION = 43


class Tag(IntEnum):
    """The tags that are looked at here (TIFF 6.0; DEPTH is SGI's, the last one Adobe's)."""

    SUBFILE = 254
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTES = 279
    PLANAR = 284
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_BYTES = 325
    SUB_DIRECTORIES = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_OFFSET = 513
    JPEG_BYTES = 514
    DEPTH = 32997
    DNG_VERSION = 50706


_TAGS = frozenset(Tag)
_TYPES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # BYTE, SHORT, LONG, IFD, LONG8, IFD8
_MOST_ENTRIES = 1_000_000  # of all directories, which may lie over each other: half a second
_MOST_SUB_PAGES = 16
_NOT_A_PAGE = 0b101  # NewSubfileType: a smaller copy of another page, or a mask
_DEFLATE = (8, 32946)
_READ = frozenset({1, 2, 3, 4, 5, 7, 32771, 32773, *_DEFLATE})
_CODECS = {
    6: "old-style JPEG",
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    32766: "NeXT",
    32809: "ThunderScan",
    32909: "PixarLog",
    33003: "JPEG 2000",
    33004: "JPEG 2000",
    33005: "JPEG 2000",
    33007: "JPEG",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34713: "Nikon NEF",
    34715: "JBIG2",
    34887: "LERC",
    34892: "lossy JPEG",
    34925: "LZMA",
    34926: "Zstandard",
    34927: "WebP",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
_NUMBERS = {2: "signed numbers", 3: "floating-point numbers", 5: "complex numbers", 6: "complex numbers"}
_UNASSOCIATED_ALPHA = 2
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE = 0, 1, 2, 3
_SCALES = (_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB)  # in which a larger number is brighter, or darker
_SHARES = frozenset({(1, 32), (2, 8), (2, 16), (2, 32), (3, 32), (3, 64)})  # by SampleFormat and bits
_MOST_PART_PIXELS = 1 << 30  # a strip or tile may be larger than the image that is in it
_INFLATED_BYTES = 16_384  # of the file at a time, so that no more than 17 MB come of them


@dataclass(frozen=True, slots=True)
class Page:
    """A page's directory, of `count` entries, and where they end.

    entries: by tag, the type of the values, how many there are and where they lie.
    """

    data: bytes
    order: str
    entries: dict[int, tuple[int, int, int]]
    sizes: dict[int, int]
    count: int
    end: int

    def values(self, tag: Tag) -> tuple[int, ...]:
        """Return the values of a tag; none where it is not there. Raises CUT_OFF where they are."""
        if tag not in self.entries:
            return ()
        kind, count, place = self.entries[tag]
        return struct.unpack_from(f"{self.order}{count}{_TYPES[kind]}", self.data, place)

    def value(self, tag: Tag, default: int) -> int:
        """Return the first value of a tag."""
        if tag not in self.entries:
            return default
        kind, _, place = self.entries[tag]
        (value,) = struct.unpack_from(self.order + _TYPES[kind], self.data, place)
        return int(value)

    @property
    def bits(self) -> int:
        """Bits of a sample, the most of any."""
        return max(self.values(Tag.BITS), default=1)

    @property
    def numbers(self) -> int:
        """What its numbers are, as SampleFormat says."""
        return self.value(Tag.SAMPLE_FORMAT, 1)

    @property
    def has_shares(self) -> bool:
        """Whether only all of its numbers tell what one means: they are signed, of 32 bits, or floating-point."""
        return (self.numbers, self.bits) in _SHARES and self.value(Tag.PHOTOMETRIC, _MIN_IS_BLACK) in _SCALES

    @property
    def has_planes(self) -> bool:
        """Whether each sample has a plane of its own."""
        return self.value(Tag.PLANAR, 1) == 2 and self.value(Tag.SAMPLES, 1) > 1

    @property
    def is_a_page(self) -> bool:
        return not self.value(Tag.SUBFILE, 0) & _NOT_A_PAGE


@dataclass(frozen=True, slots=True)
class Readable:
    """A file that OpenCV reads right, but for damage.

    has_sixteen_bits: of grey or colour, so that fewer of them may be in use; has_shares: its numbers are not those of
    pixels, and have to be brought to such; is_inverted: 0 is white; has_planes: each colour is stored for itself;
    has_raw_tiles: without compression; damage: what is wrong with its pixels, empty where nothing is seen of that.
    """

    data: bytes
    has_sixteen_bits: bool
    has_shares: bool
    is_inverted: bool
    has_planes: bool
    has_raw_tiles: bool
    damage: str


def pages(data: bytes) -> Iterator[Page]:
    """Yield the pages of a file, one after another. Raises CUT_OFF where a directory is."""
    order = "<" if data[:2] == b"II" else ">"
    (version,) = struct.unpack_from(order + "H", data, 2)
    layout = _BIG if version == _BIG_VERSION else _SMALL
    (at,) = struct.unpack_from(order + layout.offset, data, layout.start)
    seen: set[int] = set()
    looked_at = 0
    while at and at not in seen and looked_at < _MOST_ENTRIES:
        seen.add(at)
        page = _page_at(data, at, order, layout)
        looked_at += 1 + page.count
        yield page
        at = page.end
        at = struct.unpack_from(order + layout.offset, data, at)[0] if at + layout.room <= len(data) else 0


def sub_pages(page: Page) -> Iterator[Page]:
    """Yield the pages that a page names beside itself, the first few. Raises CUT_OFF where one is."""
    for at in page.values(Tag.SUB_DIRECTORIES)[:_MOST_SUB_PAGES]:
        yield _page_at(page.data, at, page.order, _layout(page))


def _page_at(data: bytes, at: int, order: str, layout: _Layout) -> Page:
    (count,) = struct.unpack_from(order + layout.length, data, at)
    count = min(count, _MOST_ENTRIES)
    at += struct.calcsize(order + layout.length)
    entries: dict[int, tuple[int, int, int]] = {}
    sizes: dict[int, int] = {}
    for start in range(at, at + count * (4 + 2 * layout.room), 4 + 2 * layout.room):
        tag, kind, number = struct.unpack_from(order + "HH" + layout.offset, data, start)
        if tag not in _TAGS or kind not in _TYPES or not number:
            continue
        place = start + 4 + layout.room
        if tag in (Tag.WIDTH, Tag.HEIGHT):
            (value,) = struct.unpack_from(order + _TYPES[kind], data, place)
            sizes[tag] = max(value, sizes.get(tag, 0))  # named twice: whichever the decoder takes, none is larger
        elif tag not in entries:
            if number * struct.calcsize(order + _TYPES[kind]) > layout.room:
                (place,) = struct.unpack_from(order + layout.offset, data, place)
            entries[tag] = kind, number, place
    return Page(data, order, entries, sizes, count, at + count * (4 + 2 * layout.room))


def tiff_size(data: bytes, number: int | None = None) -> tuple[int, int]:
    """Return a page's (width, height), of the first directory unless given.

    Raises CUT_OFF where it is, KeyError where it has none, ImageError where there is no such page.
    """
    sizes = _numbered(data, number).sizes
    return sizes[Tag.WIDTH], sizes[Tag.HEIGHT]


def sample_bytes(data: bytes, number: int | None = None) -> int:
    """Return how many bytes a sample of a page takes. Raises as `tiff_size` does."""
    return -(-_numbered(data, number).bits // 8)


def from_page(data: bytes, number: int) -> bytes:
    """Return a file that begins with its page of a number, from 1 on. Raises ImageError where there is none."""
    page = _numbered(data, number)
    layout = _layout(page)
    start = page.end - page.count * (4 + 2 * layout.room) - struct.calcsize(page.order + layout.length)
    place = struct.pack(page.order + layout.offset, start)
    return data[: layout.start] + place + data[layout.start + layout.room :]


def _numbered(data: bytes, number: int | None) -> Page:
    """Return a page by its number, from 1 on, without smaller copies and masks; None: the first directory."""
    if number is None:
        return next(pages(data))
    first = 1
    try:
        for page in pages(data):
            slices = page.value(Tag.DEPTH, 1) if page.is_a_page else 0
            if first <= number < first + slices:
                if slices > 1:
                    raise _refused("the page is a slice of a volume, which is not read for itself")
                return page
            first += slices
    except CUT_OFF:
        pass
    raise _refused(f"the TIFF has no page {number:,}, or its directory is cut off")


def _layout(page: Page) -> _Layout:
    (version,) = struct.unpack_from(page.order + "H", page.data, 2)
    return _BIG if version == _BIG_VERSION else _SMALL


def page_count(data: bytes) -> int:
    """Return how many pages, or slices of a volume, there are, without smaller copies and masks."""
    count = 0
    try:
        for page in pages(data):
            count += page.value(Tag.DEPTH, 1) if page.is_a_page else 0
    except CUT_OFF:
        pass  # what comes is cut off; the first page, which is the one that is read, may be whole
    return max(1, count)


def readable(data: bytes) -> Readable:
    """Return what is to be decoded of a file. Raises ImageError where it would be read wrong, or not at all."""
    page = next(pages(data))
    try:
        _check_page(page)
        photometric = page.value(Tag.PHOTOMETRIC, _MIN_IS_BLACK)
        return Readable(
            data=_without_alpha(page),
            has_sixteen_bits=page.bits == 16 and not page.has_shares and photometric in _SCALES,
            has_shares=page.has_shares,
            is_inverted=photometric == _MIN_IS_WHITE,
            has_planes=page.has_planes,
            has_raw_tiles=Tag.TILE_OFFSETS in page.entries and page.value(Tag.COMPRESSION, 1) == 1,
            damage=_damage(page) if page.value(Tag.COMPRESSION, 1) in _DEFLATE else "",
        )
    except CUT_OFF:
        raise _refused("the TIFF's header is damaged or cut off") from None


def missing_bytes(data: bytes) -> int:
    """Return by how much a file ends before its first page does, no more than its pixels have.

    Raises as `readable` does.
    """
    page = next(pages(data))
    try:
        _check_page(page)
        count, part_bytes = _parts(page)
        # More than there can be of uncompressed pixels is named by some; libtiff reads over that.
        most_bytes = part_bytes if page.value(Tag.COMPRESSION, 1) == 1 else len(data) + part_bytes
        ends = (offset + min(length, most_bytes) for offset, length in islice(_places(page), count))
        return max(0, min(max(ends, default=0) - len(data), count * part_bytes))
    except CUT_OFF:
        raise _refused("the TIFF's header is damaged or cut off") from None


def _check_page(page: Page) -> None:
    _check_first(page)
    codec = page.value(Tag.COMPRESSION, 1)
    if codec not in _READ:
        name = _CODECS.get(codec, "a codec without a name here")
        raise _refused(f"the TIFF is compressed with {name} (number {codec}), which is not read here")
    allowed = (1, 4, 8) if page.value(Tag.PHOTOMETRIC, _MIN_IS_BLACK) == _PALETTE else (1, 8, 16)
    if not page.has_shares and (page.numbers in _NUMBERS or page.bits not in allowed):
        what = f"{page.bits}-bit {_NUMBERS.get(page.numbers, 'numbers')}"
        raise _refused(f"the TIFF's pixels are {what}, which are not read here")


def _check_first(page: Page) -> None:
    if page.is_a_page:
        return
    others = pages(page.data)
    next(others)
    try:
        is_copy = Tag.SUB_DIRECTORIES in page.entries or any(other.is_a_page for other in others)
    except CUT_OFF:
        is_copy = True
    if is_copy:
        raise _refused("the TIFF's first page is a small copy or a mask of another one, and only the first is read")


def _damage(page: Page) -> str:
    """Return what is wrong inside a deflated strip or tile: its checksum is at its end, where libtiff does not look."""
    count, most_bytes = _parts(page)
    view = memoryview(page.data)
    for number, (offset, length) in enumerate(islice(_places(page), count)):
        if not _is_whole(view[offset : offset + length], most_bytes):
            return f"the deflated data of its part {number} is not what was written"
    return ""


def _places(page: Page) -> Iterator[tuple[int, int]]:
    """Yield where each strip or tile lies, and its bytes. Parts that no pixel needs may be named without end."""
    tiles = Tag.TILE_OFFSETS in page.entries
    offsets = page.values(Tag.TILE_OFFSETS if tiles else Tag.STRIP_OFFSETS)
    return zip(offsets, page.values(Tag.TILE_BYTES if tiles else Tag.STRIP_BYTES), strict=False)


def _parts(page: Page) -> tuple[int, int]:
    """Return how many strips or tiles there are, and the most bytes of pixels that one may have."""
    width, height = page.sizes[Tag.WIDTH], page.sizes[Tag.HEIGHT]
    rows = min(height, page.value(Tag.ROWS_PER_STRIP, height))
    part_width, part_height = page.value(Tag.TILE_WIDTH, width), page.value(Tag.TILE_HEIGHT, rows)
    if part_width < 1 or part_height < 1 or part_width * part_height > _MOST_PART_PIXELS:
        raise _refused(f"the TIFF's strips or tiles are of {part_width:,} x {part_height:,} pixels, which cannot be")
    samples, has_planes = page.value(Tag.SAMPLES, 1), page.has_planes
    count = -(-width // part_width) * -(-height // part_height) * (samples if has_planes else 1)
    return count, (part_width * page.bits * (1 if has_planes else samples) + 7) // 8 * part_height


def _is_whole(deflated: memoryview, most_bytes: int) -> bool:
    """Tell whether data inflates to its end, with the right checksum, and to no more bytes than there can be."""
    inflater, count = zlib.decompressobj(), 0
    try:
        for at in range(0, len(deflated), _INFLATED_BYTES):
            count += len(inflater.decompress(deflated[at : at + _INFLATED_BYTES]))
            if inflater.eof or count > most_bytes:
                break
    except zlib.error:
        return False
    return inflater.eof and count <= most_bytes


def _without_alpha(page: Page) -> bytes:
    """Return a file whose colours OpenCV leaves as they are stored: it would multiply them with an alpha channel."""
    if page.value(Tag.EXTRA_SAMPLES, 0) != _UNASSOCIATED_ALPHA:
        return page.data
    # The extra sample becomes one of which nothing is said. A SHORT's two bytes lie there in either order.
    _, _, place = page.entries[Tag.EXTRA_SAMPLES]
    return page.data[:place] + bytes(2) + page.data[place + 2 :]


def _refused(why: str) -> ImageError:
    return ImageError(FailureKind.DECODE, why)
