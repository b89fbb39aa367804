"""Captions: a label and its score, as tiles that are rendered once for each text, size and colour, and then copied."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, local

import cv2
import numpy as np

from trtjob.engines.protocol import UInt8Array
from trtjob.imaging.canvas import Canvas, Tile
from trtjob.imaging.scripts import beginning, font_runs, is_plain, is_right_to_left, written_by_pillow

Color = tuple[int, int, int]  # BGR

CACHE_BYTES = 12 * 1024 * 1024
_ENTRY_BYTES = 1000  # about what Python's objects for a tile and its key take beside the pixels
_MAX_CHARACTERS = 256  # a label is rendered whole before it is shortened, so it must end somewhere
NARROWEST = 12  # of the text's size: what has less room than this is narrow
_ELLIPSIS = "\u2026"
_WEIGHT = 500
_HEIGHT, _BASELINE = 1.35, 0.76  # of the text's size, and of the caption's height

_fonts = local()  # FontFace keeps state while it renders


@dataclass(frozen=True, slots=True, eq=False)
class Style:
    """How a caption looks: the size of its text, its own colour, the text's, and its own as it lies in memory."""

    text_px: int
    color: Color
    ink: Color
    pixel: bytes


@dataclass(slots=True)
class Caption:
    """A text on a filled box. The score has a tile of its own, so that a hundred of them serve every label."""

    label: Tile | None
    score: Tile | None
    width: int

    def draw(self, canvas: Canvas, x: int, y: int) -> None:
        """Draw it with its upper left corner at (x, y), a pixel of the image."""
        if self.label is not None:
            canvas.blit(x, y, self.label)
            x += self.label.width
        if self.score is not None:
            canvas.blit(x, y, self.score)


def caption_of(label: str, score: float | None, style: Style, max_width: int) -> Caption:
    """Return the caption for a label and its score, if it is to have one.

    Of one that is too wide, the label ends earlier, in an ellipsis; where it would be hard to tell then, it stands
    alone.
    """
    label = label[:_MAX_CHARACTERS]
    name = label_tiles.get(label, style)
    number = None if score is None else score_tiles.get(f"{score:.2f}", style)
    width = name.width + number.width if number else name.width
    if width <= max_width:
        return Caption(name, number, width)
    if number and max_width < NARROWEST * style.text_px:
        return caption_of(label, None, style, max_width)
    taken = number.width if number else 0
    shorter = _shortened(label, name.width, max_width - taken, style)
    return Caption(shorter, number, taken + (shorter.width if shorter else 0))


def _shortened(label: str, width: int, room: int, style: Style) -> Tile | None:
    """Return the tile of as much of a label as has room, None where nothing has. width: of the whole label."""
    for length in range(len(label) * max(0, room) // width, 0, -1):
        tile = label_tiles.get(beginning(label, length) + _ELLIPSIS, style)
        if tile.width <= room:
            return tile
    return None


def caption_height(text_px: int) -> int:
    """Return the height of every caption with a text of this size."""
    return round(_HEIGHT * text_px)


class TileCache:
    """The tiles that were made last, up to a number of bytes; threads may share it.

    Those that were used last would be worth more, but each use would have to be noted, which takes a third of a copy.
    """

    def __init__(self, make: Callable[[str, Style], Tile], max_bytes: int) -> None:
        self.used_bytes = 0
        self._make = make
        self._max_bytes = max_bytes
        self._tiles: OrderedDict[tuple[str, Style], Tile] = OrderedDict()
        self._lock = Lock()  # of changes: to look up needs none

    def get(self, text: str, style: Style) -> Tile:
        """Return the tile for a text and a style."""
        key = (text, style)
        tile = self._tiles.get(key)
        if tile is None:
            # Two threads may make the same tile, which is better than that one waits for the other's.
            tile = self._make(text, style)
            self._keep(key, tile)
        return tile

    def tiles(self) -> list[Tile]:
        """Return the tiles that are kept, the oldest first."""
        with self._lock:
            return list(self._tiles.values())

    def _keep(self, key: tuple[str, Style], tile: Tile) -> None:
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile
                self.used_bytes += _size(key[0], tile)
            while self.used_bytes > self._max_bytes:
                (text, _), oldest = self._tiles.popitem(last=False)
                self.used_bytes -= _size(text, oldest)


def _size(text: str, tile: Tile) -> int:
    return _ENTRY_BYTES + 4 * len(text) + tile.rows.nbytes


def label_tile(label: str, style: Style) -> Tile:
    """Return the caption's left part. It ends where the score's first digit begins, so that the two fit as one text."""
    # OpenCV crashes on half of a surrogate pair, and would go on below the caption after a line break.
    whole = label.encode("utf-8", "replace").decode()
    text = " ".join((*whole.splitlines(), ""))
    pixels, end = _rendered(text, _margin(style), style)
    return Tile.of(pixels[:, :end])


def score_tile(score: str, style: Style) -> Tile:
    """Return the caption's right part."""
    pixels, end = _rendered(score, 0, style)
    return Tile.of(pixels[:, : end + 1 + _margin(style)])


def _rendered(text: str, left: int, style: Style) -> tuple[UInt8Array, int]:
    """Return a text on its background, with room to its right, and the column where a next letter would begin."""
    return _in_one(text, left, style) if is_plain(text) else _in_runs(text, left, style)


def _in_runs(text: str, left: int, style: Style) -> tuple[UInt8Array, int]:
    """Return as `_rendered` does a text of which OpenCV cannot write all."""
    height = caption_height(style.text_px)
    baseline = round(height * _BASELINE)
    pieces = []
    for run in font_runs(text.rstrip()):
        if run.font is not None:
            pieces.append(written_by_pillow(run, style.text_px, height, baseline, (style.color, style.ink)))
        elif not run.is_missing:
            pixels, end = _in_one(run.text, 0, style)
            pieces.append(pixels[:, :end])
    if is_right_to_left(text):
        pieces.reverse()
    space, end = _in_one(" ", 0, style)
    if text.endswith(" "):
        pieces.append(space[:, :end])
    before = np.full((height, left, 3), style.color, np.uint8)
    pixels = np.hstack([before, *pieces, space])
    return pixels, pixels.shape[1] - space.shape[1]


def _in_one(text: str, left: int, style: Style) -> tuple[UInt8Array, int]:
    """Return as `_rendered` does a text that OpenCV can write."""
    size, height = style.text_px, caption_height(style.text_px)
    end = left + (len(text) * size * 2) // 3  # a guess: to ask OpenCV takes as long as to write
    while True:
        width = end + 2 * size
        pixels = np.frombuffer(bytearray(style.pixel * (width * height)), np.uint8).reshape(height, width, 3)
        baseline = (left, round(height * _BASELINE))
        (end, _), _ = cv2.putText(pixels, text, baseline, style.ink, _font(), size, weight=_WEIGHT)
        if end + size <= width:
            return pixels, end


def _margin(style: Style) -> int:
    return max(2, style.text_px // 4)


def _font() -> "cv2.FontFace":
    if not hasattr(_fonts, "face"):
        _fonts.face = cv2.FontFace("sans")
    face: cv2.FontFace = _fonts.face
    return face


label_tiles = TileCache(label_tile, CACHE_BYTES)
score_tiles = TileCache(score_tile, CACHE_BYTES)
