"""Pixels -> the bytes of an image file."""

import struct
import zlib

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, ImageError
from trtjob.imaging.embedded import JPEG_XMP, NOTHING, PNG_XMP, Embedded
from trtjob.imaging.exif import upright_exif, upright_xmp
from trtjob.imaging.exif_writer import tiff_with_blocks
from trtjob.library_output import library_output

_TIFF = (".tif", ".tiff")
_JPEG = frozenset({".jpg", ".jpeg", ".jpe"})
# PNG: compression level 1 takes a quarter of the default's time for files a tenth larger.
_PARAMETERS: dict[str, list[int]] = {
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 90],
    ".bmp": [],
    ".tif": [],
    ".tiff": [],
}
# A JPEG's segment has no more, its mark among it.
_MOST_BLOCK_BYTES = {**dict.fromkeys(_JPEG, 65_000), ".png": 1 << 20, ".webp": 1 << 20}
_PNG_HEADER_BYTES = 33  # the signature and the first chunk
_MAX_SIDE = {".webp": 16_383, **dict.fromkeys(_JPEG, 65_500)}


def encode_image(image: UInt8Array, suffix: str, *, jpeg_quality: int = 90, original: Embedded = NOTHING) -> bytes:
    r"""Return the image, uint8 [H, W, 3] BGR, as a file of the kind that `suffix` names. Raises ImageError: `write`.

    original: what a JPEG, PNG or WebP gets beside its pixels; its orientation becomes upright, as the image is.

    >>> import numpy as np
    >>> encode_image(np.zeros((2, 3, 3), np.uint8), ".png")[:4]
    b'\x89PNG'
    """
    suffix = suffix.lower()
    longest, limit = max(image.shape[:2]), _MAX_SIDE.get(suffix)
    if limit is not None and longest > limit:
        raise ImageError(
            FailureKind.WRITE, f"a {suffix} file cannot have a side of {longest:,} pixels: {limit:,} is the limit"
        )
    parameters = [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality] if suffix in _JPEG else _PARAMETERS[suffix]
    try:
        done, data = _with_blocks(suffix, image, parameters, original)
        if not done:
            done, data = cv2.imencode(suffix, image, parameters)
    except cv2.error as err:
        raise ImageError(FailureKind.WRITE, f"the annotated image cannot be encoded: {err}") from err
    if not done:
        raise ImageError(FailureKind.WRITE, f"the annotated image cannot be encoded as {suffix}")
    return data.tobytes()


def _with_blocks(suffix: str, image: UInt8Array, parameters: list[int], original: Embedded) -> tuple[bool, UInt8Array]:
    """Encode an image with its original's blocks, but for those that are too large. Not done: it takes none of them."""
    exif, xmp = upright_exif(original.exif), upright_xmp(original.xmp)
    if suffix in _TIFF and original != NOTHING:
        done, data = cv2.imencode(suffix, image, parameters)
        blocks = exif, original.icc, xmp
        return done, np.frombuffer(tiff_with_blocks(data.tobytes(), *blocks), np.uint8) if done else image
    most_bytes = _MOST_BLOCK_BYTES.get(suffix, 0)
    by_kind = {
        cv2.IMAGE_METADATA_EXIF: exif,
        cv2.IMAGE_METADATA_ICCP: original.icc,
        cv2.IMAGE_METADATA_XMP: JPEG_XMP + xmp if xmp and suffix in _JPEG else xmp,
    }
    kept = {kind: np.frombuffer(block, np.uint8) for kind, block in by_kind.items() if 0 < len(block) <= most_bytes}
    png_xmp = kept.pop(cv2.IMAGE_METADATA_XMP, None) if suffix == ".png" else None
    if not kept and png_xmp is None:
        return False, image
    with library_output():  # which says why a block is not taken
        done, data = cv2.imencodeWithMetadata(suffix, image, list(kept), list(kept.values()), parameters)
    return done, np.asarray(_with_png_xmp(data, png_xmp) if done and png_xmp is not None else data, np.uint8)


def _with_png_xmp(png: UInt8Array, xmp: UInt8Array) -> UInt8Array:
    """Put XMP into a chunk of the kind that its specification asks for (part 3, 1.1.5); OpenCV takes another one."""
    chunk = b"iTXt" + PNG_XMP + bytes(4) + xmp.tobytes()  # not deflated, and in no language
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return np.concatenate([png[:_PNG_HEADER_BYTES], np.frombuffer(framed, np.uint8), png[_PNG_HEADER_BYTES:]])
