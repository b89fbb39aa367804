"""List the images of a source, in the order of their keys, a folder at a time."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile
from pathlib import Path
from typing import Protocol

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff"})


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
        return dropwhile(lambda entry: entry.key <= self.after, self._folder("", ()))

    def _folder(self, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[Entry]:
        path = self.root / prefix if prefix else self.root
        try:
            status = path.stat()
            with os.scandir(path) as scan:
                items = sorted(_sort_keys(scan), key=lambda item: item[0])
        except OSError:
            yield Entry(prefix or ".", 0, "")
            return
        identity = (status.st_dev, status.st_ino)
        if identity in above:  # a link back to a folder above: its images are listed there
            return
        for name, item in items:
            if name.endswith("/"):
                yield from self._folder(prefix + name, (*above, identity))
            elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield _entry(prefix + name, item)
            else:
                self.ignored[Path(name).suffix.lower() or "no suffix"] += 1


def _sort_keys(scan: Iterable["os.DirEntry[str]"]) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Name a folder with its `/`, so that sorting each folder sorts the whole: `a-b` comes before `a/b`."""
    for item in scan:
        if _is_dir(item):
            yield item.name + "/", item
            if Path(item.name).suffix.lower() in IMAGE_SUFFIXES:
                yield item.name, item
        else:
            yield item.name, item


def _is_dir(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _entry(key: str, item: "os.DirEntry[str]") -> Entry:
    try:
        return entry_of(key, item.stat())
    except OSError:
        return Entry(key, 0, "")


def entry_of(key: str, status: os.stat_result) -> Entry:
    """Return the entry of a file, changed when its time or its size is."""
    return Entry(key, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")
