"""The fonts of this machine, and which characters each of them has."""

import os
import struct
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})
_MOST_FILES = 10_000
_MOST_BYTES = 4 << 20  # of a font's map of characters
_COLLECTION = b"ttcf"
# What a caption's letters should not look like, where there is a choice.
_UNWANTED = (
    *("bold", "italic", "oblique", "light", "thin", "black", "heavy", "medium", "condensed", "display"),
    *("mono", "serif", "unifont"),
)
_WITHOUT_LETTERS = ("lastresort", "adobeblank")  # their glyphs stand for characters that no font has


@dataclass(frozen=True)
class Font:
    """A font's file, of which the first font counts.

    is_color: whether its glyphs are pictures, as those of emoji are.
    """

    path: Path

    @property
    def is_color(self) -> bool:
        return "emoji" in self.path.name.lower()

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The only sizes, in pixels, in which a font of pictures has them; nothing where it has any size."""
        try:
            return tuple(sorted(_picture_sizes(_Tables(self.path))))
        except (OSError, struct.error, ValueError):
            return ()

    @cached_property
    def opens(self) -> bool:
        """Whether Pillow takes it."""
        from PIL import ImageFont

        try:
            ImageFont.truetype(str(self.path), max(self.sizes, default=20))
        except (OSError, ValueError):
            return False
        return True

    def has(self, text: str) -> bool:
        """Return whether it has a glyph for each character."""
        return all(character in self._map for character in map(ord, text))

    @cached_property
    def _map(self) -> "_CharacterMap":
        try:
            tables = _Tables(self.path)
            # What Pillow draws nothing of: outlines in layers, as of 2021 and later.
            if tables.read("COLR", 2) == b"\0\1" and not _picture_sizes(tables):
                return _CharacterMap(())
            return _CharacterMap(tuple(_ranges(tables.read("cmap", _MOST_BYTES))))
        except (OSError, struct.error, ValueError):  # no font, or a damaged one
            return _CharacterMap(())


class Fonts:
    """The fonts in folders, those first that suit a caption."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)

    def find(self, text: str, *, is_picture: bool) -> Font | None:
        """Return the font for a text, None where none has all of it. is_picture: whether a coloured one is better.

        Fonts that are called after the text's script come first, which are made for it, and save a look at all others.
        """
        script = unicodedata.name(text[0], " ").split(" ")[0].lower()
        named = [font for font in self._fonts if script and script in font.path.name.lower()]
        fonts = (font for wanted in (is_picture, not is_picture) for font in self._fonts if font.is_color is wanted)
        return next((font for font in chain(named, fonts) if font.has(text) and font.opens), None)

    @cached_property
    def _fonts(self) -> Sequence[Font]:
        return sorted(map(Font, self._files()), key=lambda font: (_flaws(font.path), str(font.path)))

    def _files(self) -> Iterator[Path]:
        """Yield the files of fonts, each once."""
        seen: set[Path] = set()
        for folder in self._folders:
            for path in folder.rglob("*") if folder.is_dir() else ():
                if path.suffix.lower() in _SUFFIXES and path not in seen and len(seen) < _MOST_FILES:
                    seen.add(path)
                    if not path.name.lower().startswith(_WITHOUT_LETTERS):
                        yield path


def system_folders() -> tuple[Path, ...]:
    """Return where fonts lie on Linux, by the rules of the XDG, and on macOS."""
    data_home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    folders = [Path(folder) / "fonts" for folder in (data_home, *filter(None, shared.split(":")))]
    return (*folders, Path.home() / ".fonts", Path("/System/Library/Fonts"), Path("/Library/Fonts"))


def _flaws(path: Path) -> int:
    name = path.stem.lower()
    serifs = "sans" not in name
    return 2 * sum(word in name.replace("sansserif", "sans") for word in _UNWANTED) + serifs


class _Tables:
    """The tables of a font's file (OpenType 1.9, "Organization of an OpenType Font")."""

    def __init__(self, path: Path) -> None:
        """Raises OSError, struct.error, ValueError where the file is no font or damaged."""
        self._path = path
        with path.open("rb") as file:
            start = 0
            if file.read(4) == _COLLECTION:
                file.seek(12)
                (start,) = struct.unpack(">I", file.read(4))
            file.seek(start + 4)
            (count,) = struct.unpack(">H", file.read(2))
            file.seek(start + 12)
            records = file.read(16 * count)
        entries = (struct.unpack_from(">4sIII", records, 16 * number) for number in range(count))
        self._places = {tag: (offset, length) for tag, _, offset, length in entries}
        if any(sum(place) > path.stat().st_size for place in self._places.values()):
            raise ValueError(f"'{path}' is cut off")

    def read(self, tag: str, most: int) -> bytes:
        """Return a table, or its first `most` bytes; nothing where there is none of that name."""
        offset, length = self._places.get(tag.encode(), (0, 0))
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(min(length, most))


def _picture_sizes(tables: _Tables) -> set[int]:
    """Return the sizes in which a font has bitmaps with colours (its tables CBLC and sbix)."""
    sizes = set()
    if len(table := tables.read("CBLC", _MOST_BYTES)) > 8 and tables.read("CBDT", 4):
        (count,) = struct.unpack_from(">I", table, 4)
        sizes |= {table[8 + 48 * number + 45] for number in range(min(count, (len(table) - 8) // 48))}
    if len(table := tables.read("sbix", _MOST_BYTES)) > 8:
        (count,) = struct.unpack_from(">I", table, 4)
        offsets = struct.unpack_from(f">{min(count, 64)}I", table, 8)
        sizes |= {struct.unpack_from(">H", table, offset)[0] for offset in offsets if offset + 2 <= len(table)}
    return sizes


class _CharacterMap:
    """Which characters a font has. ranges: first and last of each."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = sorted(ranges, key=lambda range: range[1])
        self._lasts = [last for _, last in self._ranges]

    def __contains__(self, character: int) -> bool:
        index = bisect_left(self._lasts, character)
        return index < len(self._ranges) and self._ranges[index][0] <= character


def _ranges(table: bytes) -> Iterator[tuple[int, int]]:
    """Yield the characters that a table `cmap` has glyphs for: of its largest subtable for Unicode."""
    (count,) = struct.unpack_from(">H", table, 2)
    subtables = {}
    for number in range(count):
        platform, encoding, offset = struct.unpack_from(">HHI", table, 4 + 8 * number)
        if platform == 0 or (platform == 3 and encoding in (1, 10)):
            subtables[struct.unpack_from(">H", table, offset)[0]] = offset
    if 12 in subtables:
        yield from _ranges_of_groups(table, subtables[12])
    elif 4 in subtables:
        yield from _ranges_of_segments(table, subtables[4])


def _ranges_of_groups(table: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Read a subtable of format 12."""
    (count,) = struct.unpack_from(">I", table, start + 12)
    for number in range(count):
        first, last, glyph = struct.unpack_from(">III", table, start + 16 + 12 * number)
        yield first + (glyph == 0), last


def _ranges_of_segments(table: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Read a subtable of format 4: four arrays, of which the last one may lead to glyphs that lie behind it."""
    count = struct.unpack_from(">H", table, start + 6)[0] // 2
    lasts, firsts, deltas, offsets = (
        struct.unpack_from(f">{count}H", table, start + 14 + 2 * number * count + (2 if number else 0))
        for number in range(4)
    )
    end = start + 16 + 8 * count
    for index, (first, last, delta, offset) in enumerate(zip(firsts, lasts, deltas, offsets, strict=True)):
        if first > last or last == 0xFFFF:
            continue
        if offset == 0:
            missing = -delta & 0xFFFF  # which the segment gives the glyph 0
            parts = ((first, min(last, missing - 1)), (max(first, missing + 1), last))
            yield from (part for part in parts if part[0] <= part[1])
            continue
        place = end - 2 * (count - index) + offset
        glyphs = struct.unpack_from(f">{last - first + 1}H", table, place)
        yield from ((first + number, first + number) for number, glyph in enumerate(glyphs) if glyph)
