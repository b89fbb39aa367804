"""A list of images, as people and tools write it: one path on each line."""

import codecs
from dataclasses import dataclass
from pathlib import Path

_BLANKS = " \t\r"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # as PowerShell redirects output into a file


@dataclass(frozen=True, slots=True)
class ImageList:
    """paths: as they are written; folder: the list's own, from which its images get their names, absolute."""

    paths: tuple[str, ...]
    folder: Path


def parsed_list(data: bytes) -> tuple[str, ...]:
    r"""Return the paths of a list: blanks around them, empty lines, and those that begin with `#` do not count.

    Quotes around a path keep what is in them. Bytes that are no UTF-8 survive, as file names have them.

    >>> parsed_list(b"# of July\na.jpg\n'b c.jpg'\n")
    ('a.jpg', 'b c.jpg')
    """
    text = text_of(data)
    # Not splitlines(): a file name may hold what else Python takes for the end of a line.
    lines = (line.strip(_BLANKS) for line in text.split("\n" if "\n" in text else "\r"))
    return tuple(_unquoted(line) for line in lines if line and not line.startswith("#"))


def text_of(data: bytes) -> str:
    """Return the text of a file that people and tools have written; bytes that are no UTF-8 survive."""
    if data.startswith(_UTF_16):
        return data.decode("utf-16", "replace")
    return data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _unquoted(line: str) -> str:
    is_quoted = len(line) > 2 and line[0] == line[-1] and line[0] in "\"'"
    return line[1:-1] if is_quoted else line
