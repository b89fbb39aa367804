"""The kinds of images that Pillow decodes, some of them with a package that an extra brings.

Their decoders take no size for granted that was read before: a file may say one in its boxes and hold another. So what
they may allocate is bounded while they work.
"""

import importlib
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trtjob.errors import FailureKind, ImageError, MissingDependencyError
from trtjob.imaging.headers import check_size
from trtjob.memory import bounded_allocations

if TYPE_CHECKING:
    from PIL import Image  # 80 ms and 4 MB, which most image processes never need

BY_PILLOW = frozenset({"AVIF", "HEIC", "JPEG 2000", "JPEG XL"})
# Measured: 15 to 21 bytes for a pixel, ours among them; JPEG XL calculates in floating point numbers.
DECODING_BYTES = 24
_MOST_PIXEL_BYTES, _SPARE_BYTES = 96, 128 << 20
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B")


@dataclass(frozen=True, slots=True)
class PillowKind:
    """A kind of image, by Pillow.

    format: as Pillow calls it; module, package, extra: what it needs beside Pillow, empty where that is nothing;
    suffixes: of files that need the package; turns: whether the decoder turns the image itself, so that its EXIF
    orientation says nothing.
    """

    format: str
    module: str = ""
    package: str = ""
    extra: str = ""
    suffixes: tuple[str, ...] = ()
    turns: bool = False

    @property
    def is_missing(self) -> bool:
        """Whether the package that it needs is not installed here."""
        return bool(self.module) and find_spec(self.module) is None


PILLOW_KINDS = {
    "AVIF": PillowKind("AVIF"),
    "HEIC": PillowKind("HEIF", "pillow_heif", "pillow-heif", "heif", (".heic", ".heif", ".hif"), turns=True),
    "JPEG 2000": PillowKind("JPEG2000"),
    "JPEG XL": PillowKind("JXL", "pillow_jxl", "pillow-jxl-plugin", "jxl", (".jxl",), turns=True),
    # What moves: OpenCV reads the first frame alone.
    "GIF": PillowKind("GIF"),
    "PNG": PillowKind("PNG"),
    "WebP": PillowKind("WEBP"),
}


def missing_package(keys: Iterable[str]) -> MissingDependencyError | None:
    """Return what is not installed here and an image needs, by its name; None where all is there."""
    missing = {suffix: known for known in PILLOW_KINDS.values() if known.is_missing for suffix in known.suffixes}
    found = next((known for key in keys if (known := missing.get(PurePosixPath(key).suffix.lower()))), None)
    return MissingDependencyError(found.package, extra=found.extra) if found else None


def pillow_pixels(data: bytes, kind: str, size: tuple[int, int], *, max_pixels: int, page: int = 1) -> NDArray[Any]:
    """Return an image as Pillow decodes it: uint8 [H, W, 3], RGB, turned as it is to be seen; or uint16 [H, W], grey.

    kind: a key of PILLOW_KINDS; size: its largest (width, height), as its header says; page: which frame, from 1 on.
    An alpha channel is dropped. Raises ImageError.
    """
    known = PILLOW_KINDS[kind]
    if known.is_missing:
        missing = MissingDependencyError(known.package, extra=known.extra)
        raise ImageError(FailureKind.DECODE, f"it is a {kind} image, and {missing}")
    _register(known.module)
    most_bytes = _SPARE_BYTES + _MOST_PIXEL_BYTES * size[0] * size[1]
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            bounded_allocations(most_bytes),
            _opened(data, known) as image,
        ):
            check_size(*image.size, max_pixels)
            image.seek(page - 1)
            check_size(*image.size, max_pixels)
            # The plugin for JPEG XL gives a JPEG that was packed without loss as it is stored.
            return _pixels(image, turn=not known.turns or getattr(image, "jpeg", False))
    except ImageError:
        raise
    except MemoryError as err:
        what = f"the {kind} image takes more memory than {size[0]:,} x {size[1]:,} pixels can need"
        raise ImageError(FailureKind.DECODE, what) from err
    except Exception as err:
        raise ImageError(FailureKind.DECODE, f"the {kind} image is damaged or cut off") from err


def pillow_info(data: bytes, kind: str) -> dict[str, object]:
    """Return what Pillow says of an image beside its pixels, nothing where it is damaged or its package missing."""
    known = PILLOW_KINDS[kind]
    if known.is_missing:
        return {}
    _register(known.module)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            bounded_allocations(_SPARE_BYTES),
            _opened(data, known) as image,
        ):
            return {str(name): value for name, value in image.info.items()}
    except Exception:  # noqa: BLE001 - as above
        return {}


def _opened(data: bytes, known: PillowKind) -> "Image.Image":
    from PIL import Image

    return Image.open(io.BytesIO(data), formats=(known.format,))


def _pixels(image: "Image.Image", *, turn: bool) -> NDArray[Any]:
    from PIL import ImageOps

    if turn:
        image = ImageOps.exif_transpose(image)
    if image.mode in _SIXTEEN_BITS:
        return np.asarray(image, np.uint16)
    if image.mode.startswith(("I", "F")):
        raise ImageError(
            FailureKind.DECODE, f"the image's pixels are of a kind that is not read (Pillow's {image.mode})"
        )
    return np.asarray(image.convert("RGB"))


@cache
def _register(module: str) -> None:
    """Make Pillow know what a package reads. One thread decodes an image: others have images of their own."""
    from PIL import AvifImagePlugin, Image

    Image.MAX_IMAGE_PIXELS = None  # the sizes are checked here, by the limit that the user has set
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    if module == "pillow_heif":
        pillow_heif = importlib.import_module(module)
        pillow_heif.register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    elif module:
        importlib.import_module(module)
        plugin: Any = importlib.import_module("pillow_jxl.JpegXLImagePlugin")
        plugin.DECODE_THREADS = 0
