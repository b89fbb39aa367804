"""What a foreign file or library says, fit for one line of a message."""

_LONGEST_SHOWN = 60
_LONGEST_ERROR = 400


def one_line(err: BaseException) -> str:
    """Return a foreign library's message as one line of bounded length."""
    text = " ".join(str(err).split()) or type(err).__name__
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _LONGEST_ERROR else printable[:_LONGEST_ERROR] + " ..."


def shown(name: str) -> str:
    """Return a name out of a file as a message may have it."""
    return repr(name if len(name) <= _LONGEST_SHOWN else name[:_LONGEST_SHOWN] + "...")
