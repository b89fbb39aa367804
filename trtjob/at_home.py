"""Paths that begin with `~/`, as no shell has read them: in Python, in a setting, behind `--option=`."""

from pathlib import Path


def at_home(path: str | Path) -> Path:
    """Return a path with `~/` read as a shell does; `~name.jpg` is a file, not a user.

    >>> at_home("~name.jpg"), at_home("./~/a.jpg")
    (PosixPath('~name.jpg'), PosixPath('~/a.jpg'))
    """
    return Path(path).expanduser() if str(path).startswith("~/") else Path(path)
