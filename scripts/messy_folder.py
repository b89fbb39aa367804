"""Make a folder as cameras, Macs, network disks and people leave them, to see what becomes of each file.

    .venv/bin/python scripts/messy_folder.py messy/
    .venv/bin/trtjob run messy/ --model yolov3.weights

Prints what a run must say: how many images are taken, what is ignored by kind, and what fails by kind.
"""

import io
import json
import sys
from collections import Counter
from pathlib import Path

from PIL import Image

IMAGES = (
    "DCIM/100CANON/IMG_0001.JPG",
    "DCIM/100CANON/IMG_0002.JPG",
    "DCIM/101CANON/IMG_0001.JPG",
    "formats/moves.gif",
    "formats/saved from a page.jfif",
    "formats/saved long ago.jpe",
    "formats/two views.mpo",
    "formats/slide.jp2",
    "formats/web.avif",
    "holiday photos/größe.jpeg",
    "holiday photos/日本.png",
    "scans/page.tif",
    "thumbnails/not made by a system.webp",
    "upper.BMP",
)
IGNORED = {
    "AppleDouble": ("DCIM/100CANON/._IMG_0001.JPG", "holiday photos/._größe.jpeg"),
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
    ".thm": ("DCIM/100CANON/MVI_0003.THM",),
    ".xmp": ("DCIM/100CANON/IMG_0001.xmp",),
    ".txt": ("notes.txt",),
    "no suffix": ("README",),
}
FAILED = {
    "decode": ("broken/empty.jpg", "broken/text.jpg", "broken/cut.jpg", "broken/zeros.png"),
    "read": ("broken/album.jpg",),  # a folder
    "missing": ("broken/nowhere.jpg",),  # a link
}
_FORMATS = {"jpg": "jpeg", "jpe": "jpeg", "jfif": "jpeg", "tif": "tiff", "jp2": "jpeg2000"}
# Below the folder that is named like an image.
IN_ALBUM = "broken/album.jpg/1.jpg"


def make(folder: Path) -> dict[str, object]:
    """Make the folder. Returns what a run must say of it."""
    for name in (*IMAGES, IN_ALBUM):
        _write(folder / name, _picture(name))
    for name in (name for names in IGNORED.values() for name in names):
        _write(folder / name, b"Mac OS X        " * 8)
    broken = {"empty": b"", "text": b"<html>not found</html>", "cut": _picture("cut.jpg")[:400]}
    for name, data in broken.items():
        _write(folder / f"broken/{name}.jpg", data)
    _write(folder / "broken/zeros.png", bytes(1000))
    (folder / "broken/nowhere.jpg").symlink_to("elsewhere.jpg")
    failed = Counter({kind: len(names) for kind, names in FAILED.items()})
    return {
        "taken": len(IMAGES) + 1 + failed.total(),
        "ignored": {kind: len(names) for kind, names in sorted(IGNORED.items())},
        "failed": dict(sorted(failed.items())),
    }


def _picture(name: str) -> bytes:
    """Return a picture in the format that its name says."""
    suffix = name.rpartition(".")[2].lower()
    file = io.BytesIO()
    picture = Image.effect_noise((96, 64), 60).convert("RGB")
    format = _FORMATS.get(suffix, suffix)
    several = {"save_all": True, "append_images": [picture.rotate(180)]} if format in ("gif", "mpo") else {}
    picture.save(file, format, **several)
    return file.getvalue()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    if len(sys.argv) != 2 or Path(sys.argv[1]).exists():
        sys.exit(f"Usage: {sys.argv[0]} NEW_FOLDER")
    print(json.dumps(make(Path(sys.argv[1])), indent=1))
