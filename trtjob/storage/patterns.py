"""Patterns for keys, as shells and `.gitignore` files have them."""

import re
from functools import lru_cache

from trtjob.errors import ConfigError

MAGIC = re.compile(r"[*?\[]")
MOST_CHARACTERS, MOST_NAMES = 1000, 50

_TOKEN = re.compile(r"(?P<stars>\*+)|(?P<one>\?)|\[(?P<set>[!^]?\]?[^\]]*)\]|(?P<text>.)", re.DOTALL)


class Pattern:
    """A pattern for keys below a root; a folder that it matches means all that is below it.

    `*` and `?` stand for characters of one name, `**` for any number of folders, `[a-z]` for one character of a set.
    Without a `/` in it, a pattern is for a name anywhere; with one, it is for the path from the root on. With a `/` at
    its end it is for folders alone.

    >>> Pattern("*.jpg").matches("2026/july/a.jpg"), Pattern("2026/*.jpg").matches("2026/july/a.jpg")
    (True, False)
    >>> Pattern("july/").matches("2026/july/a.jpg"), Pattern("2026/**/*.jpg").matches("2026/july/a.jpg")
    (True, True)
    """

    def __init__(self, text: str) -> None:
        """Raises ConfigError for what cannot be one."""
        names = text.strip("/").split("/")
        if {"", ".", ".."} & set(names) or len(names) > MOST_NAMES or len(text) > MOST_CHARACTERS:
            raise ConfigError(
                f"the pattern {text[:80]!r} has an empty part, `.` or `..` in it, more than {MOST_NAMES} parts or "
                f"{MOST_CHARACTERS:,} characters. Examples: '*.png', 'raw', 'cam1/**/*.jpg'"
            )
        if "/" not in text.rstrip("/"):
            names = ["**", *names]
        self._is_for_folders = text.endswith("/")
        self._paths = re.compile(_path(names) + "(?:/.*)?", re.DOTALL)
        self._folders_above = re.compile(_beginnings(names[:-1]), re.DOTALL)

    def matches(self, key: str) -> bool:
        """Whether a key, or a folder above it, is what the pattern says."""
        return self.matches_all_below(key.rpartition("/")[0]) if self._is_for_folders else self.matches_all_below(key)

    def matches_all_below(self, folder: str) -> bool:
        """Whether all below a folder matches, which is named without a slash at its end."""
        return self._paths.fullmatch(folder) is not None

    def may_match_below(self, folder: str) -> bool:
        """Whether there may be something below a folder that matches."""
        return self.matches_all_below(folder) or self._folders_above.fullmatch(folder) is not None


@lru_cache(maxsize=1024)
def pattern(text: str) -> Pattern:
    """Return a pattern, made once. Raises ConfigError."""
    return Pattern(text)


def _path(names: list[str]) -> str:
    """Return the regular expression of a path.

    What stands between two `**` is looked for once, where it is first, as `_name` does: no pattern takes for ever.
    """
    runs: list[list[str]] = [[]]
    for name in names:
        if name == "**":
            runs.append([])
        else:
            runs[-1].append(_name(name))
    first, *middle = runs
    if not middle:
        return "/".join(first)
    *middle, last = middle
    between = ("".join(f"{name}/" for name in run) for run in middle if run)
    return (
        "".join(f"{name}/" for name in first)
        + "".join(f"(?>(?:[^/]+/)*?{run})" for run in between)
        + ("(?:[^/]+/)*" + "/".join(last) if last else ".+")
    )


def _beginnings(folders: list[str]) -> str:
    """Return the regular expression of the folders on the way to what a path matches."""
    if not folders:
        return "(?!)"
    if folders[0] == "**":
        return ".*"
    return _name(folders[0]) + (f"(?:/{_beginnings(folders[1:])})?" if folders[1:] else "")


def _name(text: str) -> str:
    """Return the regular expression of one name.

    What follows a `*` is looked for once, where it is first, as fnmatch does it: no pattern takes for ever.
    """
    groups = [""]
    for token in _TOKEN.finditer(text):
        if token["stars"]:
            groups.append("")
        else:
            groups[-1] += _one(token)
    first, *middle = groups
    if not middle:
        return first
    *middle, last = middle
    return first + "".join(f"(?>[^/]*?{group})" for group in middle if group) + f"[^/]*{last}"


def _one(token: "re.Match[str]") -> str:
    if token["one"]:
        return "[^/]"
    if token["set"]:
        inverted, characters = token["set"][0] in "!^", token["set"].lstrip("!^")
        escaped = re.sub(r"([\\\[\]^&|~])", r"\\\1", characters)
        return f"(?!/)[{'^' if inverted else ''}{escaped}]"
    return re.escape(token["text"])
