"""List the images of a source, in the order of their keys, a folder at a time."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
_OTHER_SUFFIXES = (".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl")
IMAGE_SUFFIXES = frozenset({*_JPEG_SUFFIXES, *_OTHER_SUFFIXES, ".dng", ".cr2"})

# Names that are sorted in memory at a time, some 5 MB of them; those of a larger folder go through temporary files.
RUN = 50_000
_BLOCK_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to process. etag changes when the file does; size_bytes is 0 and etag empty where it cannot be told."""

    key: str
    size_bytes: int
    etag: str


class Images(Protocol):
    """The images of a place, sorted by key as UTF-8 sorts; can be iterated once.

    ignored: the objects that are no images by their names, counted by suffix, complete when the iteration has ended.
    """

    @property
    def ignored(self) -> Counter[str]: ...

    def __iter__(self) -> Iterator[Entry]: ...


@dataclass(slots=True)
class Listing:
    """The images below a folder, behind the key `after`, sorted by key as UTF-8 sorts.

    A folder that cannot be listed, or is named like an image, is an entry too (the former with a `/` at its end):
    reading it fails, so it ends as an error record and not in silence.
    """

    root: Path
    after: str = ""
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        return self._folder("", ())

    def _folder(self, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
        path = self.root / prefix if prefix else self.root
        try:
            status = path.stat()
            with os.scandir(path) as scan:
                names = _sorted(_names(scan))
        except OSError:
            if (key := prefix or ".") > self.after:
                yield Entry(key, 0, "")
            return
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link back to a folder above: its images are listed there
            return
        for name in names:
            if name.endswith("/"):
                yield from self._folder(prefix + name, (*above, identity))
            elif (suffix := suffix_of(name)) not in IMAGE_SUFFIXES:
                self.ignored[suffix or "no suffix"] += 1
            elif (key := prefix + name) > self.after:
                yield _entry(key, f"{self.root}/{key}")


def suffix_of(key: str) -> str:
    """Return the suffix of a key's last part, in small letters: `.jpg`; empty where it has none.

    >>> suffix_of("2026/July.d/IMG_1.JPG"), suffix_of("2026/.hidden")
    ('.jpg', '')
    """
    name = key[key.rfind("/") + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""


def _names(scan: Iterable["os.DirEntry[str]"]) -> Iterator[str]:
    """Name a folder with its `/`, so that sorting each folder sorts the whole: `a-b` comes before `a/b`."""
    for item in scan:
        if not _is_dir(item):
            yield item.name
            continue
        yield item.name + "/"
        if suffix_of(item.name) in IMAGE_SUFFIXES:
            yield item.name


def _is_dir(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _sorted(names: Iterator[str]) -> Iterator[str]:
    """Sort names by an external merge: memory holds RUN of them, however many there are."""
    spilled = []
    while len(run := sorted(islice(names, RUN))) == RUN:
        spilled.append(_spill(run))
    return merge(*map(_read, spilled), run)


def _spill(run: list[str]) -> IO[bytes]:
    file = tempfile.TemporaryFile(prefix="trtjob-")  # noqa: SIM115 - it lives as long as it is read
    file.writelines(os.fsencode(name) + b"\0" for name in run)
    return file


def _read(file: IO[bytes]) -> Iterator[str]:
    with file:
        file.seek(0)
        rest = b""
        while block := file.read(_BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\0")
            yield from map(os.fsdecode, whole)


def _entry(key: str, path: str) -> Entry:
    try:
        return entry_of(key, os.stat(path))  # noqa: PTH116 - a million of them, without a Path each
    except OSError:
        return Entry(key, 0, "")


def entry_of(key: str, status: os.stat_result) -> Entry:
    """Return the entry of a file, changed when its time or its size is."""
    return Entry(key, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")
