"""File names are bytes, and everywhere the same text: UTF-8, with what is none held as lone surrogates.

Python would read them by the locale, so that a name were another one on a node whose locale is Latin-1 or C.
"""

import os
import sys
from collections.abc import Mapping
from typing import Any


def ensure_utf8() -> None:
    """Have this process, and all that it starts, read file names as UTF-8: by beginning it anew where it does not."""
    os.environ["PYTHONUTF8"] = "1"
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    # The first -X wins, and holds where the environment is not asked.
    os.execv(sys.executable, [sys.executable, "-X", "utf8=1", *sys.orig_argv[1:]])


def escaped(text: str) -> str:
    r"""Return a text for what takes UTF-8 alone, with what is none written out.

    >>> print(escaped("caf\udce9.jpg"))
    caf\udce9.jpg
    """
    return text.encode(errors="backslashreplace").decode()


def escaped_values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with their texts escaped."""
    return {name: escaped(value) if isinstance(value, str) else value for name, value in fields.items()}
