"""What files made of boxes say of themselves, before a pixel is decoded: AVIF, HEIC, JPEG 2000 and JPEG XL.

A box is its length, four letters and what is in it (ISO/IEC 14496-12, 4.2).
"""

import struct
from collections.abc import Iterator
from itertools import islice

from trtjob.errors import FailureKind, ImageError

JP2_SIGNATURE, J2K_SIGNATURE = b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"
JXL_SIGNATURE, JXL_BARE_SIGNATURE = b"\0\0\0\x0cJXL ", b"\xff\x0a"
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_FULL_BOX_BYTES = 4  # version and flags, before what is in some boxes
_SIZES = (b"meta", b"iprp", b"ipco")
_FRAMES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsz")
_FULL_BOXES = frozenset({b"meta"})
_MOST_BOXES = 100_000  # side by side; each may be of eight bytes
_MOST_COMPONENTS = 4  # of JPEG 2000, which may have 16,384: each is held in 32 bits a pixel
_SIGNED = 0x80
_TILE_PART, _END_OF_CODESTREAM = 0xFF90, 0xFFD9
# JPEG XL's aspect ratios (ISO/IEC 18181-1, D.2), and the bits that its sizes may have.
_JXL_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
_JXL_SIZE_BITS = (9, 13, 18, 30)
_JXL_HEADER_BYTES = 40  # a size, another one, and what is between them, take less

Span = tuple[int, int]  # where something begins, and where it ends


def heif_kind(data: bytes) -> str:
    """Return `AVIF` or `HEIC` by a file's brands, empty where it is neither."""
    if data[4:8] != b"ftyp":
        return ""
    end = min(int.from_bytes(data[:4], "big"), len(data))
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if brands & _HEIC_BRANDS else ""


def heif_size(data: bytes) -> tuple[int, int]:
    """Return the largest (width, height) of any image in an AVIF or HEIC file: no other takes more to decode.

    Raises StopIteration where there is none, struct.error where it is cut off.
    """
    sizes = [
        struct.unpack_from(">II", data, start + _FULL_BOX_BYTES)
        for outer in _below(data, (0, len(data)), _SIZES)
        for kind, (start, _) in boxes(data, outer)
        if kind == b"ispe"
    ]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    if not sizes:
        raise StopIteration
    return width, height


def heif_frames(data: bytes) -> int:
    """Return how many frames an AVIF or HEIC that moves has, 0 for one that does not."""
    tracks = _below(data, (0, len(data)), _FRAMES)
    return max((struct.unpack_from(">I", data, start + 8)[0] for start, _ in tracks), default=0)


def jp2_size(data: bytes) -> tuple[int, int]:
    """Return the (width, height) of JPEG 2000 pixels, by the codestream, which the decoder goes by."""
    start, _ = _codestream(data)
    right, lower, left, upper = struct.unpack_from(">IIII", data, start + 8)
    return right - left, lower - upper


def check_jp2(data: bytes) -> None:
    """Raise ImageError for other numbers than a picture has, and a codestream that is cut off: its decoder does not say
    so. The size has been read."""
    at, end = _codestream(data)
    try:
        components, numbers = struct.unpack_from(">HB", data, at + 40)
    except struct.error:
        raise _cut_off() from None
    if components > _MOST_COMPONENTS:
        raise ImageError(FailureKind.DECODE, f"the JPEG 2000 file has {components:,} components, where 1 to 4 are read")
    if numbers & _SIGNED:
        raise ImageError(FailureKind.DECODE, "the JPEG 2000 file has signed numbers: what of them is white is a guess")
    try:
        is_whole = _reaches_its_end(data, at + 2, end)
    except struct.error:
        is_whole = False
    if not is_whole:
        raise _cut_off()


def _cut_off() -> ImageError:
    return ImageError(FailureKind.DECODE, "the JPEG 2000 file is cut off or damaged")


def jp2_bits(data: bytes) -> int:
    """Return how many bits a number of a JPEG 2000 file has, which has been checked."""
    at, _ = _codestream(data)
    return 1 + int(data[at + 42])


def _reaches_its_end(data: bytes, at: int, end: int) -> bool:
    """Tell whether a codestream's segments and tiles, from the first on, lead to its last marker."""
    while at + 2 <= end:
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == _END_OF_CODESTREAM:
            return True
        if marker == _TILE_PART:
            (length,) = struct.unpack_from(">6xI", data, at)
            at = at + length if length else end - 2  # 0: it is the last
        else:
            at += 2 + struct.unpack_from(">2xH", data, at)[0]
    return False


def jxl_size(data: bytes) -> tuple[int, int]:
    """Return the (width, height) of a JPEG XL codestream (ISO/IEC 18181-1, D.2).

    Raises StopIteration where there is none, struct.error or ValueError where it is cut off.
    """
    return _jxl_size(_jxl_bits(data))


def jxl_moves(data: bytes) -> bool:
    """Tell whether a JPEG XL has frames (ISO/IEC 18181-1, D.3), as far as that is told before a preview's size."""
    try:
        bits = _jxl_bits(data)
        _jxl_size(bits)
        is_plain, has_more = _number(bits, 1), _number(bits, 1)
        if is_plain or not has_more:
            return False
        _number(bits, 3)  # orientation
        if _number(bits, 1):  # a size to be shown in
            _jxl_size(bits)
        has_preview = _number(bits, 1)
        return not has_preview and bool(_number(bits, 1))
    except ValueError:
        return False  # cut off; the decoder says so


def _jxl_bits(data: bytes) -> Iterator[int]:
    """Return the bits behind a codestream's signature, the lowest of each byte first. Raises as `jxl_size` does."""
    start = 0
    if data.startswith(JXL_SIGNATURE):
        kind, (start, _) = next((kind, span) for kind, span in boxes(data) if kind in (b"jxlc", b"jxlp"))
        start += 4 if kind == b"jxlp" else 0  # its number
    if data[start : start + 2] != JXL_BARE_SIGNATURE:
        raise StopIteration
    return (byte >> bit & 1 for byte in data[start + 2 : start + 2 + _JXL_HEADER_BYTES] for bit in range(8))


def _jxl_size(bits: Iterator[int]) -> tuple[int, int]:
    in_eights = _number(bits, 1)

    def length() -> int:
        if in_eights:
            return 8 * (1 + _number(bits, 5))
        return 1 + _number(bits, _JXL_SIZE_BITS[_number(bits, 2)])

    height = length()
    ratio = _JXL_RATIOS.get(_number(bits, 3))
    return (length(), height) if ratio is None else (height * ratio[0] // ratio[1], height)


def jxl_exif(data: bytes) -> bytes:
    """Return the EXIF block of a JPEG XL file, empty where it has none, or a compressed one. Raises struct.error."""
    found = boxes(data) if data.startswith(JXL_SIGNATURE) else ()
    for kind, (start, end) in found:
        if kind == b"Exif":
            (offset,) = struct.unpack_from(">I", data, start)
            has_offset = data[start : start + 4] not in (b"II*\0", b"MM\0*")  # which some writers leave out
            return data[start + (4 + offset if has_offset else 0) : end]
    return b""


def _codestream(data: bytes) -> Span:
    if data.startswith(J2K_SIGNATURE):
        return 0, len(data)
    start, end = next(span for kind, span in boxes(data) if kind == b"jp2c")
    if not data.startswith(J2K_SIGNATURE, start):
        raise StopIteration
    return start, end


def boxes(data: bytes, within: Span | None = None) -> Iterator[tuple[bytes, Span]]:
    """Yield the kind of each box of a file, or of another box, and where what is in it lies."""
    at, end = within or (0, len(data))
    for _ in range(_MOST_BOXES):
        if at + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = end if length == 0 else at + length
        if stop < start:
            return
        yield kind, (start, min(stop, end))
        at = stop


def _below(data: bytes, within: Span, path: tuple[bytes, ...]) -> Iterator[Span]:
    """Yield every box that lies in boxes of these kinds."""
    first, *rest = path
    for kind, (start, end) in boxes(data, within):
        if kind == first:
            span = (start + _FULL_BOX_BYTES if kind in _FULL_BOXES else start, end)
            yield from _below(data, span, tuple(rest)) if rest else (span,)


def _number(bits: Iterator[int], count: int) -> int:
    """Return the next bits as a number, the lowest first. Raises ValueError where there are not as many."""
    taken = list(islice(bits, count))
    if len(taken) < count:
        raise ValueError("the header is cut off")
    return sum(bit << place for place, bit in enumerate(taken))
