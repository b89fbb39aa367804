"""The page: HTML, style and script become one file that asks nothing of any network."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

# In the order in which they run.
_SCRIPTS = (
    "index",
    "elements",
    "chunks",
    "state",
    "filter",
    "marks",
    "reference",
    "masks",
    "pictures",
    "panel",
    "grid",
    "timeline",
    "viewer",
    "main",
)


def render_page(title: str, index: dict[str, Any], origins: Iterable[str] = ()) -> bytes:
    """Return the page as UTF-8. title: a text; index: what the page's script reads, see `page/index.js`;
    origins: scheme and host of images' addresses that it may ask."""
    style, script = _part("page.css"), _script()
    return (
        Template(_part("page.html"))
        .substitute(
            title=escape(title),
            policy=_policy(style, script, origins),
            style=style,
            # A text of the index must not end the element.
            index=json.dumps(index, separators=(",", ":")).replace("<", "\\u003c"),
            script=script,
        )
        .encode()
    )


def _policy(style: str, script: str, origins: Iterable[str]) -> str:
    """Return what a browser allows the page: itself, scripts and images beside it, and images of these origins.

    `file:` is `'self'` of a disk.
    """
    places = " ".join(["'self'", "file:", *sorted(origins)])
    return (
        f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src {places}; media-src {places}; "
        f"script-src 'self' file: {_hash(script)}; style-src {_hash(style)}"
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@cache
def _script() -> str:
    parts = "\n".join(_part(f"{name}.js") for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text("utf-8")
