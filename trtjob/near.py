"""Which known name somebody may have meant."""

from collections.abc import Iterable
from difflib import get_close_matches

_NEAR = 0.66  # of 1, by difflib: a letter or two of a word, or two that have changed places


def near(name: str, known: Iterable[str], least: float = _NEAR) -> list[str]:
    """Return the names that are so near that one of them is likely meant, the nearest first.

    >>> near("rnu", ["run", "resume", "retry"])
    ['run']
    >>> near("bananas", ["annotate", "anonymous"])
    []
    """
    return get_close_matches(name, list(known), 3, least)
