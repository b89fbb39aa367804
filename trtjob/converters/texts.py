"""Texts out of foreign files and libraries: read as a value, or made fit for one line of a message."""

import ast

_LONGEST_SHOWN = 60
_LONGEST_ERROR = 400
# ImageNet's thousand names take 30 kB.
_LONGEST_LITERAL = 2_000_000


def literal(text: str) -> object:
    """Return the value that a Python literal stands for; None where it is none, or is too long.

    >>> literal("{0: 'cat', 1: 'dog'}"), literal("__import__('os')")
    ({0: 'cat', 1: 'dog'}, None)
    """
    if len(text) > _LONGEST_LITERAL:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that its documentation names
        return None


def one_line(err: BaseException) -> str:
    """Return a foreign library's message as one line of bounded length, without the point at its end."""
    text = " ".join(str(err).split()).rstrip(".") or type(err).__name__
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _LONGEST_ERROR else printable[:_LONGEST_ERROR] + " ..."


def shown(name: str) -> str:
    """Return a name out of a file as a message may have it."""
    return repr(name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "...")
