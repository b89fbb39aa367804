"""Labels as tiles: a text is rendered once for each size and colour, and from then on copied."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock, local

import cv2
import numpy as np

from trtjob.imaging.canvas import Canvas, Tile

Color = tuple[int, int, int]  # BGR

_CACHE_BYTES = 12 * 1024 * 1024
_ENTRY_BYTES = 1000  # about what Python's objects for a tile and its key take beside the pixels
_MAX_CHARACTERS = 256  # a label is rendered whole before it is cut to the image, so it must end somewhere
_WEIGHT = 500
_HEIGHT, _BASELINE = 1.35, 0.76  # of the text's size, and of the tag's height

_fonts = local()  # FontFace keeps state while it renders


@dataclass(frozen=True, slots=True, eq=False)
class Style:
    """How a tag looks: the size of its text, its own colour, the text's, and its own as it lies in memory."""

    text_px: int
    color: Color
    ink: Color
    pixel: bytes


@dataclass(slots=True)
class Tag:
    """A text on a filled box. The score has a tile of its own, so that a hundred of them serve every label."""

    label: Tile | None
    score: Tile
    width: int

    def draw(self, canvas: Canvas, x: int, y: int) -> None:
        """Draw it with its upper left corner at (x, y), a pixel of the image."""
        if self.label is not None:
            canvas.blit(x, y, self.label)
            x += self.label.width
        canvas.blit(x, y, self.score)


def tag_of(label: str, score: float, style: Style, max_width: int) -> Tag:
    """Return the tag for a label and its score. One that is too wide loses the label's end, and the score stays."""
    name, number = _labels.get(label[:_MAX_CHARACTERS], style), _scores.get(f"{score:.2f}", style)
    width = name.width + number.width
    if width <= max_width:
        return Tag(name, number, width)
    room = max_width - number.width
    return Tag(_shortened(name, room, style) if room > 0 else None, number, max_width)


def _shortened(tile: Tile, width: int, style: Style) -> Tile:
    """Return a tile's first columns; the last of them are empty, so that the text does not run into what follows."""
    pixels = np.array(tile.pixels[:, :width])
    pixels[:, max(0, width - _margin(style)) :] = style.color
    return Tile.of(pixels)


def tag_height(text_px: int) -> int:
    """Return the height of every tag with a text of this size."""
    return round(_HEIGHT * text_px)


class TileCache:
    """The tiles that were used last, up to a number of bytes; threads may share it."""

    def __init__(self, make: Callable[[str, Style], Tile], max_bytes: int) -> None:
        self.used_bytes = 0
        self._make = make
        self._max_bytes = max_bytes
        self._tiles: OrderedDict[tuple[str, Style], tuple[Tile, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, text: str, style: Style) -> Tile:
        """Return the tile for a text and a style."""
        key = (text, style)
        with self._lock:
            if (found := self._tiles.get(key)) is not None:
                self._tiles.move_to_end(key)
                return found[0]
        # Two threads may make the same tile, which is better than that one waits for the other's.
        tile = self._make(text, style)
        size = _ENTRY_BYTES + 4 * len(text) + tile.rows.nbytes
        with self._lock:
            if key not in self._tiles:
                self._tiles[key] = tile, size
                self.used_bytes += size
            while self.used_bytes > self._max_bytes:
                _, (_, size) = self._tiles.popitem(last=False)
                self.used_bytes -= size
        return tile


def _label_tile(label: str, style: Style) -> Tile:
    """Return the tag's left part. It ends where the score's first digit begins, so that the two fit as one text."""
    # OpenCV crashes on half of a surrogate pair, and would go on below the tag after a line break.
    whole = label.encode("utf-8", "replace").decode()
    return _rendered(" ".join((*whole.splitlines(), "")), style, left=_margin(style), right=0)


def _score_tile(score: str, style: Style) -> Tile:
    return _rendered(score, style, left=0, right=_margin(style))


def _rendered(text: str, style: Style, *, left: int, right: int) -> Tile:
    """Return a text on its background, with a margin on either side."""
    _, _, width, _ = cv2.getTextSize((1, 1), text, (0, 0), _font(), style.text_px, weight=_WEIGHT)
    height = tag_height(style.text_px)
    pixels = np.full((height, left + width + style.text_px, 3), style.color, np.uint8)
    baseline = round(height * _BASELINE)
    (end, _), _ = cv2.putText(pixels, text, (left, baseline), style.ink, _font(), style.text_px, weight=_WEIGHT)
    return Tile.of(pixels[:, : (left + width + right) if right else end])


def _margin(style: Style) -> int:
    return max(2, style.text_px // 4)


def _font() -> "cv2.FontFace":
    if not hasattr(_fonts, "face"):
        _fonts.face = cv2.FontFace("sans")
    face: cv2.FontFace = _fonts.face
    return face


_labels = TileCache(_label_tile, _CACHE_BYTES)
_scores = TileCache(_score_tile, _CACHE_BYTES)
