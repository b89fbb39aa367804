"""Paths that begin with `~/`, as no shell has read them: in Python, in a setting, behind `--option=`."""

from pathlib import Path


def expand_tilde(path: str | Path) -> Path:
    """Return a path with `~/` read as a shell does; `~name.jpg` is a file, not a user.

    >>> expand_tilde("~name.jpg"), expand_tilde("./~/a.jpg")
    (PosixPath('~name.jpg'), PosixPath('~/a.jpg'))
    """
    return Path(path).expanduser() if str(path).startswith("~/") else Path(path)
