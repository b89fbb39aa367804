"""Text in XML, whatever a file is called."""

import re
from xml.sax.saxutils import escape, quoteattr

# Production 2 (Char) of XML 1.0: all else stands in no document, not even escaped.
_NO_CHARACTER = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def xml_text(text: str) -> str:
    """Return text as it stands between tags; what XML cannot hold is written as Python writes it.

    >>> xml_text("a<b\\0")
    'a&lt;b\\\\x00'
    """
    return escape(_possible(text))


def xml_attribute(text: str) -> str:
    """Return text in quotes, as it stands in a tag."""
    return quoteattr(_possible(text))


def _possible(text: str) -> str:
    return _NO_CHARACTER.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
