"""Colours of what commands print, for a terminal: elsewhere, and where NO_COLOR is set, the text is as it is."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from trtjob.printable import printable

Color = Literal["green", "yellow", "red", "cyan", "pink", "bold", "dim"]

# Pink and green are those of the bar of `trtjob run` (rich).
_CODES = {"green": "32", "yellow": "33", "red": "1;31", "cyan": "36", "pink": "38;5;197", "bold": "1", "dim": "2"}
_BAR = "━"


@dataclass(frozen=True, slots=True)
class Painted:
    """Text in a colour."""

    text: str
    color: Color

    def __str__(self) -> str:
        return self.text


Piece: TypeAlias = "str | Painted"


class Line(str):
    """A line that can be printed as it is: it holds no more than printable text and what colours it."""

    __slots__ = ()


def line(*pieces: Piece) -> Line:
    """Return a line of several pieces."""
    return Line("".join(map(_colored, pieces)))


def _colored(piece: Piece) -> str:
    from trtjob.config import wants_color

    text = printable(str(piece))
    if isinstance(piece, str) or not text or not wants_color():
        return text
    return f"\033[{_CODES[piece.color]}m{text}\033[0m"


def bar(done: int, images: int, width: int) -> tuple[Piece, Piece]:
    """Return a bar as long as a job is done, and what is missing of it."""
    from trtjob.config import wants_color

    filled = min(width, width * done // images) if images else 0
    rest = _BAR if wants_color() else " "
    return Painted(_BAR * filled, "green" if filled == width else "pink"), Painted(rest * (width - filled), "dim")
