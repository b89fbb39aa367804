"""Which files of a place a job takes: the images of the user's, and of these what was asked for."""

from dataclasses import dataclass, field
from os.path import commonprefix
from typing import Annotated

from pydantic import AfterValidator, Field

from trtjob.documents import Document
from trtjob.errors import ConfigError
from trtjob.storage.patterns import MAGIC, pattern

MOST_SAMPLED = 1_000_000  # about 300 bytes of memory each

# What systems put beside people's images, by its name in small letters, and what it is called in counts.
_JUNK = {
    "@eadir": "@eaDir",  # Synology's thumbnails
    ".@__thumb": "thumbnails",  # QNAP's
    ".thumbnails": "thumbnails",
    "$recycle.bin": "trash",
    "recycler": "trash",
    "recycled": "trash",
    "#recycle": "trash",
    "@recycle": "trash",
    "#snapshot": "snapshots",  # of network disks: all of it again, as it was
    ".snapshot": "snapshots",
    "~snapshot": "snapshots",
    "@recently-snapshot": "snapshots",
    ".zfs": "snapshots",
    ".appledouble": "AppleDouble",
    "__macosx": "__MACOSX",  # in archives that a Mac has made
    "system volume information": "system",
    "lost+found": "system",
    "thumbs.db": "Thumbs.db",
    "ehthumbs.db": "Thumbs.db",
    "desktop.ini": "desktop.ini",
    ".ds_store": ".DS_Store",
}
HIDDEN, EXCLUDED, OLDER = "hidden", "excluded", "older"


def junk_kind(name: str) -> str:
    """Return what the name of a file or folder says that it is beside people's images, empty where it may be one.

    >>> junk_kind("._IMG_1.JPG"), junk_kind(".Trash-1000"), junk_kind(".hidden.jpg"), junk_kind("IMG_1.JPG")
    ('AppleDouble', 'trash', 'hidden', '')
    """
    small = name.lower()
    if (kind := _JUNK.get(small)) is not None:
        return kind
    if small[:1] != ".":
        return ""
    return "AppleDouble" if small.startswith("._") else "trash" if small.startswith(".trash") else HIDDEN


def _check_pattern(text: str) -> str:
    try:
        pattern(text)
    except ConfigError as err:
        raise ValueError(str(err)) from err
    return text


PatternText = Annotated[str, AfterValidator(_check_pattern)]


class Selection(Document):
    """What a user asked for of a source; as it is, all images but what is hidden.

    videos: whether these are taken, too; include: one of these patterns must match, where there are any; exclude: none
    of these may; since_s: changed then or later, in seconds since the epoch; limit: the first ones in the order of
    their keys; sample: so many at random, the same ones for the same keys and seed.
    """

    hidden: bool = False
    recursive: bool = True
    videos: bool = False
    include: tuple[PatternText, ...] = Field(default=(), max_length=100)
    exclude: tuple[PatternText, ...] = Field(default=(), max_length=100)
    since_s: float | None = None
    limit: int | None = Field(default=None, ge=1)
    sample: int | None = Field(default=None, ge=1, le=MOST_SAMPLED)
    seed: int = 0

    @property
    def most(self) -> int | None:
        """How many images are chosen of those that match, None for all."""
        return self.sample if self.limit is None else self.limit


@dataclass(frozen=True, slots=True)
class Rules:
    """What a selection, and patterns of which one must match, say of single keys.

    What is not taken has a kind, under which it is counted: `hidden`, `AppleDouble`, `trash` and the like, `excluded`,
    `older`.
    """

    selection: Selection = field(default_factory=Selection)
    patterns: tuple[str, ...] = ()

    @property
    def start(self) -> str:
        """What each key begins with that a pattern from the root on matches; empty where there are others.

        >>> Rules(patterns=("/cam1*/*.jpg", "/cam2*")).start
        'cam'
        """
        starts = [MAGIC.split(text[1:], maxsplit=1)[0] if text.startswith("/") else "" for text in self.patterns]
        return commonprefix(starts)  # noqa: RUF071 - of characters, as the prefix in a bucket is

    def why_not_folder(self, key: str) -> str:
        """Return the kind of all that is below a folder, empty where some of it may be taken. key: without a slash."""
        kind = self.junk(key)
        if not kind and any(pattern(text).matches_all_below(key) for text in self.selection.exclude):
            kind = EXCLUDED
        return kind

    def enters(self, key: str) -> bool:
        """Whether a folder is looked into. What lies in another is not counted: it may be all of a disk."""
        if not self.selection.recursive:
            return False
        return not self.patterns or any(pattern(text).may_match_below(key) for text in self.patterns)

    def junk(self, key: str) -> str:
        """Return the kind of a file or folder that is none of the user's by its name, empty for another."""
        kind = junk_kind(key[key.rfind("/") + 1 :])
        return "" if kind == HIDDEN and self.selection.hidden else kind

    def why_unwanted(self, key: str) -> str:
        """Return `excluded` where no pattern, or the wrong one, matches; empty otherwise."""
        include, exclude = self.selection.include, self.selection.exclude
        for wanted in (self.patterns, include):
            if wanted and not _matches(key, wanted):
                return EXCLUDED
        return EXCLUDED if exclude and _matches(key, exclude) else ""

    def is_too_old(self, modified_s: float) -> bool:
        return self.selection.since_s is not None and modified_s < self.selection.since_s


def _matches(key: str, texts: tuple[str, ...]) -> bool:
    return any(pattern(text).matches(key) for text in texts)
