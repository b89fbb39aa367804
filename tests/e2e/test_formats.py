"""One folder with every kind of image: one command, one table of what became of them."""

import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import photo
from PIL import Image
from raws import cr2, dng
from terminal import Terminal, job_folder
from tiffs import tiff

ODD = Path(__file__).parents[1] / "imaging" / "odd"
PIXELS = np.full((64, 96, 3), 200, np.uint8)
FRAMES = [Image.new("RGB", (96, 64), shade) for shade in ("red", "green", "blue")]


def saved(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    FRAMES[0].save(file, kind, **options)
    return file.getvalue()


def collection(folder: Path) -> Path:
    """Make a folder of all kinds, good and bad."""
    moving = {"save_all": True, "append_images": FRAMES[1:]}
    files = {
        "camera/a.jfif": photo("JPEG"),
        "camera/b.jpe": photo("JPEG"),
        "camera/c.mpo": saved("MPO", append_images=[FRAMES[1].copy()], save_all=True),
        "camera/d.cr2": cr2(photo("JPEG"), b""),
        "camera/e.dng": dng(photo("JPEG")),
        "camera/f.heic": (ODD / "heic.jpg").read_bytes(),
        "camera/png-by-its-content.jpg": saved("PNG"),
        "web/a.avif": saved("AVIF"),
        "web/b.gif": saved("GIF", **moving),
        "web/c.webp": saved("WEBP", **moving),
        "web/d.jp2": saved("JPEG2000"),
        "web/e.jxl": (ODD / "jpeg-xl.jpg").read_bytes(),
        "scans/a.tif": tiff(PIXELS, pages=2),
        "scans/float.tiff": tiff((PIXELS / 255).astype(np.float32)),
        "bad/cut.jpg": photo("JPEG")[:-200],
        "bad/cut.jp2": saved("JPEG2000")[:-20],
        "bad/cut.avif": saved("AVIF")[:-20],
        "bad/video.gif": b"\0\0\0\x18ftypisom\0\0\0\1isommp42",
        "bad/empty.png": b"",
        "notes.txt": b"not an image",
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.mark.slow
def test_every_kind_is_read_or_refused_and_said_so(terminal: Terminal, digits: Path, tmp_path: Path) -> None:
    photos = collection(tmp_path / "photos")
    options: list[str | Path] = ["--model", digits, "--pages", "all", "--metadata"]

    def results(output: str, *more: str) -> bytes:
        outcome = terminal.here("run", photos, *options, "-o", tmp_path / output, *more)
        assert outcome.code == 1, outcome.err  # some are bad
        return (job_folder(tmp_path / output) / "results.jsonl").read_bytes()

    written = results("out")
    found = {record["image"]: record for record in map(json.loads, written.splitlines())}
    missing = (not find_spec("pillow_heif")) + (not find_spec("pillow_jxl"))
    failed = [name for name, record in found.items() if "error" in record and not name.endswith((".heic", ".jxl"))]
    assert failed == sorted(name for name in found if name.startswith("bad/"))
    assert {"scans/a.tif#1", "scans/a.tif#2", "web/b.gif#3", "web/c.webp#3"} < found.keys()
    assert found["camera/a.jfif"]["metadata"]["captured_at"] == "2026-07-04T20:30:15.25+02:00"
    summary = json.loads((job_folder(tmp_path / "out") / "summary.json").read_text())
    assert (summary["failures"], summary["ignored"]) == ({"decode": 5 + missing}, {".txt": 1})
    receipt = json.loads((job_folder(tmp_path / "out") / "_SUCCESS.json").read_text())
    assert receipt["listed"] == len(found) == 24
    assert results("small", "--shard-size", "2") == written  # however the work is divided
