"""The bytes of an image file -> its pixels, or the reason why there are none."""

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.depth import DARK, Depth, eight_bits
from trtjob.imaging.headers import (
    KINDS,
    check_bmp,
    check_png,
    check_size,
    image_kind,
    is_sixteen_bit_png,
    probe_size,
    unread_kind,
)
from trtjob.imaging.iso_media import check_jp2, jp2_bits, jxl_moves
from trtjob.imaging.jpeg_segments import JPEG_END, JPEG_SIGNATURE, has_exif, jpeg_bits, jpeg_scans
from trtjob.imaging.pillow_kinds import BY_PILLOW, DECODING_BYTES, pillow_pixels
from trtjob.imaging.raw import is_raw, raw_preview
from trtjob.imaging.tiff import CUT_OFF, from_page, missing_bytes, readable, sample_bytes
from trtjob.imaging.tiff import SIGNATURES as TIFF_SIGNATURES
from trtjob.library_output import as_remark, library_output

log = logging.getLogger(__name__)

OnDamage = Callable[[str], None]
ENDS_EARLY = "the file ends before the image does"

# But for the time of a decoding, when it is listened to: what else OpenCV says on standard error is no more than noise.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# What means that pixels are wrong. libtiff: every error, and what its decoders warn of, but for LZW as it was written
# long ago. libjpeg: jerror.h.
_TIFF_DAMAGE = re.compile(r"TIFF_Error (.*)|TIFF_Warning (?=JPEGLib:|\w*(?<!Pre)Decode\w*:)(.*)")
_JPEG_DAMAGE = re.compile(r"(Premature end.*|.*(?:premature end|bad \w+ code|instead of RST).*|Inconsistent progr.*)")
_JPEG_PASSED_OVER = re.compile(r"(\d+) extraneous bytes before marker")
# Some cameras leave a few bytes between picture and end. Where it is this share of the file, the picture ended early.
_MOST_PASSED_OVER = 0.1
_REASON = re.compile(r"(?:TIFF_Error |TIFFRGBAImageOK: |libpng error: )(.*)")

# Progressive JPEGs have about ten. Each is a pass over the whole picture, so a small file could take hours.
_MOST_JPEG_SCANS = 100
_CHANNELS = 3
_ALL_BITS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
# By EXIF orientation, the directions down and across in which what may have been transposed is read.
_FLIPS = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def decode_image(
    data: bytes, *, max_pixels: int, on_damage: OnDamage | None = None, depth: Depth = "auto", page: int | None = None
) -> UInt8Array:
    """Return the pixels of an image: uint8 [H, W, 3], BGR, turned as its EXIF orientation says.

    Grey becomes colour, more than 8 bits become 8 (`depth`: how, see `eight_bits`), CMYK is converted, an alpha channel
    is dropped: the colours under it stay as they are stored. The size in the header is checked before any pixel is
    decoded, so a kind whose header is not read here is refused, whatever a decoder could make of it: twenty bytes may
    claim gigabytes of pixels. What the decoders say of an image that is not damaged is logged, and never printed.
    page: which page or frame of several, from 1 on; None: the first, whatever a TIFF says that it is.
    on_damage: called with what is wrong with the pixels of a JPEG or TIFF that can be read in part, which is then
    returned, first with ENDS_EARLY where it is cut off; None: that is an error, too.
    Raises ImageError: `too_large` above `max_pixels`, `decode` for anything that is not a whole image.

    >>> from trtjob.imaging.encode import encode_image
    >>> file = encode_image(np.full((2, 3, 3), 200, np.uint8), ".png")
    >>> decode_image(file, max_pixels=1000).shape
    (2, 3, 3)
    >>> decode_image(file[:40], max_pixels=1000)
    Traceback (most recent call last):
    trtjob.errors.ImageError: the PNG file is cut off
    """
    if not data:
        raise ImageError(FailureKind.DECODE, "the file is empty")
    kind = image_kind(data)
    if kind == "TIFF" and page is not None:
        data, page = from_page(data, page), None
    size = probe_size(data)
    if size is None:
        raise ImageError(FailureKind.DECODE, _no_size(data, kind))
    check_size(*size, max_pixels)
    if kind in BY_PILLOW or (page or 1) > 1:
        return _decode_by_pillow(data, kind, size, page or 1, max_pixels, depth)
    if kind == "TIFF":
        return _decode_raw(data, max_pixels, on_damage) if is_raw(data) else _decode_tiff(data, on_damage, depth)
    if kind == "PNG":
        check_png(data, *size)
    if kind == "JPEG":
        _check_jpeg(data)
    if kind == "BMP":
        check_bmp(data)
    image = _decoded(data, on_damage=on_damage)
    return _in_eight_bits(image, depth, lambda: _decoded(data, _ALL_BITS)) if is_sixteen_bit_png(data) else image


def decoding_bytes(data: bytes, page: int | None = None) -> int:
    """Return how many bytes it takes to decode a pixel of a file, by its header.

    An image lies in memory twice meanwhile: turned as its orientation says, or with more bits than are kept.
    """
    kind = image_kind(data)
    if kind == "TIFF":
        with suppress(*CUT_OFF, StopIteration, ImageError):
            return _CHANNELS * (1 + max(1, sample_bytes(data, page)))
    return DECODING_BYTES if kind in BY_PILLOW or (page or 1) > 1 else 2 * _CHANNELS


def _no_size(data: bytes, kind: str) -> str:
    if kind == "TIFF" and is_raw(data):
        return "the camera's raw file has no JPEG inside it that is whole, and its sensor's numbers are not read"
    if kind:
        return "the image's header is damaged or cut off"
    unread = unread_kind(data)
    return f"it is not an image of a kind we read{f', but {unread}' if unread else ''}: {KINDS}"


def _check_jpeg(data: bytes) -> None:
    if (bits := jpeg_bits(data)) != 8:
        raise ImageError(FailureKind.DECODE, f"the JPEG has {bits} bits a sample: read are those of 8")
    if (scans := jpeg_scans(data)) > _MOST_JPEG_SCANS:
        raise ImageError(FailureKind.DECODE, f"the JPEG has {scans:,} scans, which would take long to decode")


def _decode_by_pillow(
    data: bytes, kind: str, size: tuple[int, int], page: int, max_pixels: int, depth: Depth
) -> UInt8Array:
    if kind == "JPEG 2000":
        check_jp2(data)
        if (bits := jp2_bits(data)) > 8:  # which Pillow rounds: of 16 bits, the brightest become black
            return _as_color(_decoded(data, _ALL_BITS) << (16 - bits), depth, is_inverted=False)
    if kind == "JPEG XL" and jxl_moves(data):
        raise ImageError(FailureKind.DECODE, "the JPEG XL moves, and its decoder gives the last frame alone")
    with library_output() as said:
        pixels = pillow_pixels(data, kind, size, max_pixels=max_pixels, page=page)
    if said:
        log.info("a decoder's remark", extra={"remark": as_remark(said)})
    if pixels.ndim == 2:
        return _as_color(pixels, depth, is_inverted=False)
    return np.ascontiguousarray(pixels[..., ::-1])


def _decode_raw(data: bytes, max_pixels: int, on_damage: OnDamage | None) -> UInt8Array:
    preview = raw_preview(data)
    assert preview is not None  # its size has been read
    image = decode_image(preview.jpeg, max_pixels=max_pixels, on_damage=on_damage)
    return image if has_exif(preview.jpeg) else _turned(image, preview.orientation)


def _turned(image: UInt8Array, orientation: int) -> UInt8Array:
    """Return an image as its EXIF orientation, 1 to 8, says that it is to be seen (Exif 2.3, 4.6.4)."""
    turned = image.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else image
    down, across = _FLIPS.get(orientation, (1, 1))
    return np.ascontiguousarray(turned[::down, ::across])


def _decode_tiff(data: bytes, on_damage: OnDamage | None, depth: Depth) -> UInt8Array:
    if missing := missing_bytes(data):
        if on_damage is None:
            raise ImageError(FailureKind.DECODE, "the TIFF is cut off. --truncated ok takes what can be read of it")
        on_damage(ENDS_EARLY)
        data += bytes(missing)
    tiff = readable(data)
    if tiff.damage:
        _meet(tiff.damage, on_damage)

    def decoded(flags: int) -> NDArray[Any]:
        return _decoded(tiff.data, flags, on_damage=on_damage, from_file=tiff.has_raw_tiles)

    if tiff.has_shares:
        return _as_color(decoded(cv2.IMREAD_UNCHANGED), depth, is_inverted=tiff.is_inverted)
    image = decoded(cv2.IMREAD_COLOR)
    if not tiff.has_sixteen_bits:
        return image

    def read() -> NDArray[Any] | None:
        return None if tiff.has_planes else decoded(_ALL_BITS)

    return _in_eight_bits(image, depth, read, is_inverted=tiff.is_inverted)


def _as_color(stored: NDArray[Any], depth: Depth, *, is_inverted: bool) -> UInt8Array:
    """Return numbers, [H, W] or BGR with or without more, as a picture: uint8 [H, W, 3], BGR."""
    if stored.ndim == 3:
        stored = stored[..., :3] if stored.shape[2] >= 3 else stored[..., 0]
    narrow = eight_bits(stored, depth)
    if is_inverted:
        narrow = 255 - narrow
    return narrow if narrow.ndim == 3 else np.repeat(narrow[..., np.newaxis], 3, axis=2)


def _in_eight_bits(
    image: UInt8Array, depth: Depth, read: Callable[[], NDArray[Any] | None], *, is_inverted: bool = False
) -> UInt8Array:
    """Return the bits that are wanted of a file of 16. image: of all 16 the upper ones.

    read: reads all bits as they are stored, None where that cannot be; is_inverted: 0 is white, in the image no longer.
    """
    if depth == "high" or (depth == "auto" and (255 - image if is_inverted else image).max() > DARK):
        return image
    stored = read()
    if stored is None or stored.dtype != np.uint16:
        what = "the TIFF is as good as black: few of its 16 bits are in use"
        if depth == "full":
            what = "the TIFF's 16 bits are wanted"
        why = "of planes, and of grey with an alpha channel, OpenCV gives the upper 8 alone"
        raise ImageError(FailureKind.DECODE, f"{what}, and {why}. Save it with 8 bits")
    narrow = eight_bits(stored, depth)
    return 255 - narrow if is_inverted else narrow


def _decoded(
    data: bytes, flags: int = cv2.IMREAD_COLOR, *, on_damage: OnDamage | None = None, from_file: bool = False
) -> NDArray[Any]:
    """Return what OpenCV makes of a file. Raises ImageError where that is nothing, or it says that it is damaged."""
    with library_output() as said, _talkative():
        try:
            image = _read_in_file(data, flags) if from_file else cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except (cv2.error, MemoryError) as err:
            reason = str(err).strip().split("\n")[-1] if str(err) else "out of memory"
            raise ImageError(FailureKind.DECODE, f"the image cannot be decoded: {reason}") from err
    if image is None and data.startswith(JPEG_SIGNATURE) and not data.endswith(JPEG_END):
        if on_damage is None:
            what = "the JPEG is cut off or damaged. --truncated ok takes what can be read of it"
            raise ImageError(FailureKind.DECODE, what)
        on_damage(ENDS_EARLY)
        return _decoded(data + JPEG_END, flags, on_damage=on_damage)
    if image is None:
        what = "the image is damaged, cut off or of a kind that is not supported"
        raise ImageError(FailureKind.DECODE, f"{what}: {reason}" if (reason := _reason(said)) else what)
    if damage := _damage(data, said):
        _meet(damage, on_damage)
    elif said:
        log.log(_level(said), "a decoder's remark", extra={"remark": as_remark(said)})
    return np.asarray(image)


def _read_in_file(data: bytes, flags: int) -> NDArray[Any] | None:
    """Decode a file that can be mapped. Else libtiff 4.7.1 refuses tiles whose bytes are no multiple of 1,024."""
    with os.fdopen(os.memfd_create("image"), "wb") as file:
        file.write(data)
        file.flush()
        return cv2.imread(f"/proc/self/fd/{file.fileno()}", flags)


@contextmanager
def _talkative() -> Iterator[None]:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_WARNING)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _meet(damage: str, on_damage: OnDamage | None) -> None:
    if on_damage is None:
        raise ImageError(FailureKind.DECODE, f"the image is damaged: {damage}")
    on_damage(damage)


def _reason(said: list[str]) -> str:
    return next((match[1] for line in said if (match := _REASON.search(line))), "")


def _damage(data: bytes, said: list[str]) -> str:
    """Return what a decoder says of pixels that are not those that were written; empty where it says nothing."""
    if data.startswith(TIFF_SIGNATURES):
        return next((match[1] or match[2] for line in said if (match := _TIFF_DAMAGE.search(line))), "")
    if data.startswith(JPEG_SIGNATURE):
        most = int(_MOST_PASSED_OVER * len(data))
        return next((line for line in said if _JPEG_DAMAGE.match(line) or _passed_over(line) > most), "")
    return ""


def _passed_over(line: str) -> int:
    match = _JPEG_PASSED_OVER.search(line)
    return int(match[1]) if match else 0


def _level(said: list[str]) -> int:
    """Return how loud a remark is: what libjpeg calls corrupt may be seen, or not; most others are about metadata."""
    return logging.WARNING if any(line.startswith("Corrupt") for line in said) else logging.INFO
