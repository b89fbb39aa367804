"""Make a folder as cameras, Macs, network disks and people leave them, with images of every format, to see what becomes
of each file.

    .venv/bin/python scripts/messy_folder.py messy/
    .venv/bin/trtjob run messy/ --model yolov3.weights

Prints what a run must say: how many images are taken, what is ignored by kind, and what fails by kind.
"""

import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

_TESTS = Path(__file__).parents[1] / "tests"
sys.path.append(str(_TESTS))  # for what writes files there that no library writes
from raws import cr2, dng  # noqa: E402
from tiffs import PHOTOMETRIC, tiff  # noqa: E402

_PIXELS = np.random.default_rng(7).integers(0, 256, (64, 96, 3), np.uint8)
_PICTURE = Image.fromarray(_PIXELS)
_WIDE = np.left_shift(_PIXELS, 4, dtype=np.uint16)  # 12 bits of 16
_CMYK = 5  # of a TIFF's colours

Make = Callable[[], bytes]


def _saved(kind: str, picture: Image.Image = _PICTURE, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def _moving(kind: str) -> bytes:
    return _saved(kind, save_all=True, append_images=[_PICTURE.rotate(180)])


def _odd(name: str) -> bytes:
    return (_TESTS / "imaging" / "odd" / name).read_bytes()


def _of_scanner(*, channels: int = 3, photometric: int = 2, scale: float | None = None) -> bytes:
    image = _PIXELS if scale is None else (_PIXELS * scale).astype(np.float32)
    pixels = np.dstack([image, image[..., :1]])[..., :channels]
    return tiff(pixels, tags={PHOTOMETRIC: photometric})


_JPEG = partial(_saved, "JPEG")
TAKEN: dict[str, Make] = {
    "DCIM/100CANON/IMG_0001.JPG": _JPEG,
    "DCIM/100CANON/IMG_0002.JPG": _JPEG,
    "DCIM/101CANON/IMG_0001.JPG": _JPEG,
    "DCIM/101CANON/IMG_0002.CR2": lambda: cr2(_JPEG(), _odd("lossless.jpg")),
    "DCIM/101CANON/IMG_0003.DNG": lambda: dng(_JPEG()),
    # Whose names do not say what they are.
    "DCIM/102CANON/IMG_0004": _JPEG,
    "holiday photos/saved from a page.JPG_large": _JPEG,
    "album.jpg/1.jpg": _JPEG,  # in a folder
    "formats/cmyk.jpg": partial(_saved, "JPEG", _PICTURE.convert("CMYK")),
    "formats/cmyk.tif": partial(_of_scanner, channels=4, photometric=_CMYK),
    "formats/float.tif": partial(_of_scanner, scale=1 / 255),
    "formats/new.jxl": partial(_odd, "jpeg-xl.jpg"),
    "formats/moves.gif": partial(_moving, "GIF"),
    "formats/moves.png": partial(_moving, "PNG"),
    "formats/moves.webp": partial(_moving, "WEBP"),
    "formats/palette.png": lambda: _saved("PNG", _PICTURE.quantize(16)),
    "formats/png called.jpg": partial(_saved, "PNG"),
    "formats/saved from a page.jfif": _JPEG,
    "formats/saved long ago.jpe": _JPEG,
    "formats/sixteen bits.png": lambda: cv2.imencode(".png", _WIDE)[1].tobytes(),
    "formats/sixteen bits.tif": lambda: tiff(_WIDE),
    "formats/slide.jp2": partial(_saved, "JPEG2000"),
    "formats/telephone.HEIC": partial(_odd, "heic.jpg"),
    "formats/two views.mpo": partial(_moving, "MPO"),
    "formats/web.avif": partial(_saved, "AVIF"),
    "holiday photos/größe.jpeg": _JPEG,
    "holiday photos/日本.png": partial(_saved, "PNG"),
    "scans/pages.tif": partial(_moving, "TIFF"),
    "thumbnails/not made by a system.webp": partial(_saved, "WEBP"),
    "upper.BMP": partial(_saved, "BMP"),
}
SEVERAL = ("formats/moves.gif", "formats/moves.png", "formats/moves.webp", "scans/pages.tif")  # pages
# Modules without which an image fails, with the name of the package.
NEEDED = {"formats/telephone.HEIC": "pillow_heif", "formats/new.jxl": "pillow_jxl"}
IGNORED = {
    "AppleDouble": ("DCIM/100CANON/._IMG_0001.JPG", "holiday photos/._größe.jpeg", ".AppleDouble/a.jpg"),
    ".DS_Store": (".DS_Store", "DCIM/.DS_Store"),
    "@eaDir": ("DCIM/@eaDir/IMG_0001.JPG/SYNOPHOTO_THUMB_M.jpg", "DCIM/@eaDir/IMG_0001.JPG/SYNOPHOTO_THUMB_XL.jpg"),
    "thumbnails": (".thumbnails/normal/a1b2.png", "scans/.@__thumb/s100page.jpg"),
    "trash": (".Trash-1000/files/old.jpg", ".Trashes/501/old.jpg", "$RECYCLE.BIN/S-1-5-21/$R1.jpg", "#recycle/old.jpg"),
    "snapshots": ("#snapshot/daily/DCIM/IMG_0001.JPG",),
    "__MACOSX": ("__MACOSX/DCIM/._IMG_0001.JPG",),
    "Thumbs.db": ("holiday photos/Thumbs.db",),
    "desktop.ini": ("holiday photos/desktop.ini",),
    "hidden": (".picasa.jpg", ".dtrash/files/a.jpg"),
    "system": ("System Volume Information/a.jpg",),
    # Lists, which are read where they are named; what belongs to images; kinds that are not read, and unknown ones.
    ".txt": ("list.txt", "notes.txt"),
    ".csv": ("list.csv",),
    ".json": ("coco.json",),
    ".thm": ("DCIM/100CANON/MVI_0003.THM",),
    ".xmp": ("DCIM/100CANON/IMG_0001.xmp",),
    ".cr3": ("DCIM/101CANON/IMG_0004.CR3",),
    ".pdf": ("scans/letter.pdf",),
    ".zip": ("holiday.zip",),
    ".xyz": ("unknown.xyz",),
    "no suffix": ("README",),
}
FAILED: dict[str, dict[str, Make]] = {
    "decode": {
        "broken/empty.jpg": lambda: b"",
        "broken/text.jpg": lambda: b"<html>not found</html>",
        "broken/cut.jpg": lambda: _JPEG()[:400],
        "broken/cut in its pixels.jpg": lambda: _JPEG(quality=95)[:-2000],
        "broken/cut.tif": lambda: _saved("TIFF")[:-2000],
        "broken/cut.webp": lambda: _saved("WEBP", lossless=True)[:-2000],
        "broken/float beyond white.tif": partial(_of_scanner, scale=1),
        "broken/no preview.dng": lambda: dng(b""),
        "broken/zeros.png": lambda: bytes(1000),
    },
    "too_large": {"broken/claims a lot.bmp": lambda: _saved("BMP")[:18] + b"\xff\xff\0\0" * 2 + _saved("BMP")[26:]},
}
_NOWHERE = "broken/nowhere.jpg"  # a link


def good() -> list[str]:
    """Return the images that are read with the packages that are installed here."""
    return sorted(name for name in TAKEN if name not in NEEDED or find_spec(NEEDED[name]))


class Counts(NamedTuple):
    """What a run says of a folder."""

    taken: int
    ignored: dict[str, int]
    failed: dict[str, int]


def make(folder: Path) -> Counts:
    """Make the folder. Returns what a run must say of it."""
    for made in (TAKEN, *FAILED.values()):
        for name, data in made.items():
            _write(folder / name, data())
    for name in (name for names in IGNORED.values() for name in names):
        _write(folder / name, b"Mac OS X        " * 8)
    (folder / _NOWHERE).symlink_to("elsewhere.jpg")
    failed = Counter({kind: len(made) for kind, made in FAILED.items()})
    failed.update(missing=1, decode=len(TAKEN) - len(good()))
    ignored = {kind: len(names) for kind, names in sorted(IGNORED.items())}
    return Counts(len(good()) + failed.total(), ignored, dict(sorted(failed.items())))


def make_many(folder: Path, copies: int) -> Counts:
    """Make a folder with so many of each bad kind, those that fail and those that are passed over, and a good image.

    Returns what a run must say of it.
    """
    _write(folder / "good.jpg", _JPEG())
    for made in FAILED.values():
        for name, data in made.items():
            _write_many(folder / name, data(), copies)
    for kind, (name, *_) in IGNORED.items():
        below = folder / kind.strip(".@_")
        if Path(name).name == kind:  # of which a folder has one
            for number in range(copies):
                _write(below / f"{number}" / kind, b"")
        else:
            _write_many(below / name, b"", copies)
    failed = {kind: copies * len(made) for kind, made in FAILED.items()}
    return Counts(1 + sum(failed.values()), {kind: copies for kind in sorted(IGNORED)}, dict(sorted(failed.items())))


def _write_many(path: Path, data: bytes, copies: int) -> None:
    """Write a file under many names."""
    _write(path, data)
    for number in range(1, copies):
        path.with_name(f"{path.stem} {number}{path.suffix}").hardlink_to(path)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit(f"Usage: {sys.argv[0]} NEW_FOLDER")
    print(json.dumps(make(Path(sys.argv[1]))._asdict(), indent=1))
