"""Text that others wrote - names, labels, messages of a server or a library - made fit for a terminal and for a log."""

import re

# What a terminal obeys instead of showing it (C0, DEL, C1), what turns the direction of a line around so that it reads
# as another one, other ends of lines, and what is no valid UTF-8.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text as one line that any terminal only shows: what it would obey is escaped, as Python writes it.

    >>> printable("a\nb\x1b[31m")
    'a\\nb\\x1b[31m'
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, each printable."""
    return "\n".join(map(printable, text.split("\n")))
