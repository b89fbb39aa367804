"""Write tests/imaging/odd: files of kinds that no package of ours can write, each of the same four colours.

Run by hand, in an environment of its own, with imagecodecs, pillow-heif and pillow, and libjpeg-turbo's jpegtran.
"""

import io
import subprocess
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

FOLDER = Path(__file__).parent.parent / "tests" / "imaging" / "odd"


def picture() -> NDArray[np.uint8]:
    """Return what every file shows: RGB, the colours of `picture` in tests/imaging/test_odd_images.py."""
    image = np.empty((32, 48, 3), np.uint8)
    image[:16, :24], image[:16, 24:] = (200, 40, 30), (20, 180, 60)
    image[16:, :24], image[16:, 24:] = (40, 60, 220), (240, 240, 240)
    return image


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture()).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def arithmetic() -> bytes:
    return subprocess.run(["jpegtran", "-arithmetic"], input=jpeg(), capture_output=True, check=True).stdout


def heic() -> bytes:
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(picture())).save(file, quality=80)
    return file.getvalue()


GREY12 = picture()[..., 0].astype(np.uint16) << 4
FILES: dict[str, Callable[[], bytes]] = {
    "arithmetic.jpg": arithmetic,
    "12-bit.jpg": lambda: imagecodecs.jpeg8_encode(GREY12, bitspersample=12),
    "lossless.jpg": lambda: imagecodecs.jpeg8_encode(picture(), lossless=True),
    "lossless-16-bit.jpg": lambda: imagecodecs.ljpeg_encode(GREY12 << 4),
    "jpeg-ls.jpg": lambda: imagecodecs.jpegls_encode(picture()[..., 0].copy()),
    "jpeg-xl.jpg": lambda: imagecodecs.jpegxl_encode(picture()),
    "jpeg-xl-moving.jpg": lambda: imagecodecs.jpegxl_encode(np.stack([picture(), 255 - picture()])),
    "jpeg-2000-signed.jpg": lambda: imagecodecs.jpeg2k_encode(GREY12.astype(np.int16)),
    "jpeg-2000-grey-and-alpha.jpg": lambda: imagecodecs.jpeg2k_encode(np.dstack([GREY12 << 4] * 2)),
    "jpeg-xr.jpg": lambda: imagecodecs.jpegxr_encode(picture()),
    "heic.jpg": heic,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, made in FILES.items():
        (FOLDER / name).write_bytes(made())
