"""List the images of a source, in the order of their keys, a folder at a time."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import islice
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from trtjob.errors import ImageError
from trtjob.imaging.headers import HEAD_BYTES, begins_as_image
from trtjob.storage.files import open_file
from trtjob.storage.other_suffixes import OTHER_SUFFIXES
from trtjob.storage.selection import OLDER, Rules

_JPEG_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")
_OTHER_SUFFIXES = (".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".hif", ".jp2", ".jxl")
IMAGE_SUFFIXES = frozenset({*_JPEG_SUFFIXES, *_OTHER_SUFFIXES, ".dng", ".cr2"})
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mts"})
NO_SUFFIX = "no suffix"
_KNOWN_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | OTHER_SUFFIXES

# Names that are sorted in memory at a time, some 5 MB of them; those of a larger folder go through temporary files.
RUN = 50_000
_BLOCK_BYTES = 1 << 16


class Frame(NamedTuple):
    """A frame of a video. number: from 0 on, in the order in which they are shown; pts: when that is; start: when the
    keyframe is shown from which it is decoded, seek: where that is looked for; these in the units of the file's own
    clock. begin, stop: the part of the file that has this clock; 0: from its beginning, to its end."""

    number: int
    pts: int
    start: int
    seek: int
    begin: int = 0
    stop: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One image to process. etag changes when the file does; size_bytes is 0 and etag empty where it cannot be told.

    modified_s: when the file was changed, in seconds since the epoch, where it has just been listed; frame: which frame
    of a video it is, whose size and etag it has; None where it is a file.
    """

    key: str
    size_bytes: int
    etag: str
    modified_s: float = field(default=0.0, compare=False)
    frame: Frame | None = None

    @property
    def run(self) -> tuple[str, int] | None:
        """What frames have in common that are decoded one after another, None for what is no frame."""
        return None if self.frame is None else (self.key.rpartition("#")[0], self.frame.start)


class Images(Protocol):
    """The images of a place, sorted by key as UTF-8 sorts; can be iterated once.

    ignored: what is not taken, counted by suffix where it is no image by its name or its first bytes, else by kind (see
    Rules); complete when the iteration has ended.
    """

    @property
    def ignored(self) -> Counter[str]: ...

    def __iter__(self) -> Iterator[Entry]: ...


class _Folder(NamedTuple):
    """A folder that is being listed. prefix: of its keys; identity: its device and inode; names: still to come."""

    prefix: str
    identity: tuple[int, int]
    names: Iterator[str]


@dataclass(slots=True)
class Listing:
    """The images below a folder that the rules take, sorted by key as UTF-8 sorts.

    Of a file whose name does not say what it is, the first bytes do; one that cannot be read is no image. A folder that
    cannot be listed is an entry too, with a `/` at its end: reading it fails, so it ends as an error record and not in
    silence.
    """

    root: Path
    rules: Rules = field(default_factory=Rules)
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Entry]:
        opened: list[_Folder] = []  # from the root down; not by recursion: folders may lie deeper than Python's stack
        yield from self._open("", opened)
        while opened:
            folder = opened[-1]
            name = next(folder.names, None)
            if name is None:
                opened.pop()
            elif name.endswith("/"):
                yield from self._below(folder.prefix + name, opened)
            else:
                yield from self._file(folder.prefix + name)

    def _open(self, prefix: str, opened: list["_Folder"]) -> Iterator[Entry]:
        """Open one more folder. Yields an entry of its own where it cannot be listed."""
        path = self.root / prefix if prefix else self.root
        try:
            status = path.stat()
            with os.scandir(path) as scan:
                names = _sorted(_names(scan))
        except OSError:
            yield Entry(prefix or ".", 0, "")
            return
        identity = (status.st_dev, status.st_ino)
        if all(identity != above.identity for above in opened):  # else a link back: its images are listed there
            opened.append(_Folder(prefix, identity, names))

    def _below(self, prefix: str, opened: list["_Folder"]) -> Iterator[Entry]:
        key = prefix.rstrip("/")
        if not self.rules.enters(key):
            return
        if kind := self.rules.why_not_folder(key):
            self.ignored += Counter({kind: _files_below(f"{self.root}/{key}")})  # which leaves out what is none
        else:
            yield from self._open(prefix, opened)

    def _file(self, key: str) -> Iterator[Entry]:
        suffix = suffix_of(key)
        if kind := why_not_taken(key, suffix, self.rules):
            self.ignored[kind] += 1
            return
        path = f"{self.root}/{key}"
        entry = _entry(key, path)
        if entry.etag and self.rules.is_too_old(entry.modified_s):
            self.ignored[OLDER] += 1
        elif suffix not in _KNOWN_SUFFIXES and not self._begins_as_image(path):
            self.ignored[suffix or NO_SUFFIX] += 1
        else:
            yield entry

    def _begins_as_image(self, path: str) -> bool:
        try:
            # A device may do something when it is opened. A link may lead to what is none of the source's.
            if not os.path.isfile(path) or not self._is_below(path):  # noqa: PTH113 - as in _entry
                return False
            with open_file(path) as file:
                return begins_as_image(file.read(HEAD_BYTES))
        except (OSError, ImageError):
            return False

    def _is_below(self, path: str) -> bool:
        """Whether a file is no link, or one that leads to another file of the source."""
        if not os.path.islink(path):  # noqa: PTH114 - as in _entry
            return True
        return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self.root))


def why_not_taken(key: str, suffix: str, rules: Rules) -> str:
    """Return as what a file is counted that is not taken for its own name, empty for another. suffix: its."""
    if kind := rules.junk(key):
        return kind
    if suffix not in IMAGE_SUFFIXES and (
        suffix in OTHER_SUFFIXES or (suffix in VIDEO_SUFFIXES and not rules.selection.videos)
    ):
        return suffix
    return rules.why_unwanted(key)


def is_unknown(key: str) -> bool:
    """Whether the name of a file does not say what kind it is of.

    >>> is_unknown("IMG_0001"), is_unknown("a.JPG_large"), is_unknown("a.jpg"), is_unknown("a.txt")
    (True, True, False, False)
    """
    return suffix_of(key) not in _KNOWN_SUFFIXES


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
        yield item.name + "/" if _is_dir(item) else item.name


def _is_dir(item: "os.DirEntry[str]") -> bool:
    try:
        return item.is_dir()
    except OSError:  # a link that leads round in a circle
        return False


def _files_below(path: str) -> int:
    """Count the files below a folder whose images are not taken; what cannot be listed has none."""
    count, above = 0, [_scanned(path)]  # not by recursion: folders may lie deeper than Python's stack
    while above:
        try:
            item = next(above[-1], None)
        except OSError:
            item = None
        if item is None:
            above.pop()
        elif item.is_dir(follow_symlinks=False):
            above.append(_scanned(item.path))
        else:
            count += 1
    return count


def _scanned(path: str) -> "Iterator[os.DirEntry[str]]":
    try:
        return os.scandir(path)
    except OSError:
        return iter(())


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
    etag = f"{status.st_mtime_ns:x}-{status.st_size:x}"
    return Entry(key, status.st_size, etag, status.st_mtime_ns / 1e9)
