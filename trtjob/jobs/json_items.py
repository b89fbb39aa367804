"""A large JSON document, read item by item."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

_BLOCK = 1 << 20  # characters
_BLANK = " \t\r\n"
_BEHIND = tuple(f"{_BLANK},]}}:")
_decoder = json.JSONDecoder()


def json_items(file: TextIO) -> Iterator[tuple[str, Any]]:
    """Yield the members of the object that a file holds, and of members that are arrays each item, with its name.

    No more than one item and a block of text is held. Raises ValueError where it is no JSON object.

    >>> import io
    >>> list(json_items(io.StringIO('{"info": {"year": 2017}, "images": [1, 2]}')))
    [('info', {'year': 2017}), ('images', 1), ('images', 2)]
    """
    text = _Text(file)
    text.expect("{")
    while text.next() != "}":
        name = str(text.value())
        text.expect(":")
        if text.next() == "[":
            text.expect("[")
            while text.next() != "]":
                yield name, text.value()
                text.pass_comma("]")
            text.expect("]")
        else:
            yield name, text.value()
        text.pass_comma("}")


class _Text:
    """The text of a file from where it is being read on."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text, self._at = "", 0

    def _read_on(self) -> bool:
        block = self._file.read(_BLOCK)
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def next(self) -> str:
        """Return the next character that is no blank. Raises ValueError at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _BLANK:
                    return self._text[self._at]
                self._at += 1
            if not self._read_on():
                raise ValueError("the file ends too early")

    def expect(self, character: str) -> None:
        if (found := self.next()) != character:
            raise ValueError(f"expected {character!r}, found {found!r}")
        self._at += 1

    def pass_comma(self, end: str) -> None:
        """Go past a comma, or stand before the end."""
        if self.next() != end:
            self.expect(",")

    def value(self) -> Any:
        """Return the next value, whatever it is."""
        self.next()
        while True:
            try:
                found, end = _decoder.raw_decode(self._text, self._at)
                if self._text[end : end + 1] in _BEHIND:  # else a number may go on
                    self._at = end
                    return found
            except RecursionError as err:
                raise ValueError("a value is nested too deeply") from err
            except ValueError:
                found, end = None, -1
            if not self._read_on():
                if end < 0:
                    raise ValueError("a value is damaged or cut off") from None
                self._at = end
                return found
