"""Check that what README and docs name exists: links and their headings, paths, modules, targets of make, commands of
trtjob with their options, and settings."""

import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from trtjob.cli.app import command
from trtjob.config import Settings

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
# What a decision or a change names may be gone since.
_HISTORY = {ROOT / "CHANGELOG.md", *(ROOT / "docs" / "decisions").iterdir()}
_CODE = re.compile(r"`([^`\n]+)`|^ {4,}(.+)$", re.MULTILINE)
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ROOMS = "trtjob|docs|scripts|tests|benchmarks|examples|docker"
_PATH = re.compile(rf"(?<![\w./-])(?:{_ROOMS})/[\w./*-]*\w")
_IN_A_ROOM = re.compile(
    r"(?<![\w./-])(?:cli|bench|worker|queue|converters|jobs|imaging|engines|storage)/(?:\w+/)*\w+\.(?:py|lua)"
)
_MODULE = re.compile(rf"python3? -m ((?:{_ROOMS})[\w.]*)")
_TARGET = re.compile(r"(?:^|[\s;&])make ([a-z-]+)")
_SETTING = re.compile(r"TRTJOB_[A-Z0-9_]+")
_STOPS = {"|", "&&", ";", ">", "2>", "<", "&", "||", "..."}


def problems(page: Path) -> list[str]:
    """Return what a page names and does not exist."""
    text = page.read_text()
    found = [*_links(page, text)]
    if page not in _HISTORY:
        for code in _code(text):
            found += [*_paths(code), *_modules(code), *_targets(code), *_commands(code), *_settings(code)]
    return list(dict.fromkeys(found))


def _code(text: str) -> Iterator[str]:
    """Yield each piece of code, a line at the most."""
    for block in _FENCED.findall(text):
        yield from block.splitlines()
    for inline, indented in _CODE.findall(_FENCED.sub("", text)):
        yield inline or indented


def _links(page: Path, text: str) -> Iterator[str]:
    for link in _LINK.findall(_FENCED.sub("", text)):
        path, _, heading = link.partition("#")
        if ":" in path:
            continue
        target = page.parent / path if path else page
        if not target.exists():
            yield f"there is no file {link}"
        elif heading and heading not in _headings(target):
            yield f"there is no heading {link}"


def _headings(page: Path) -> set[str]:
    """Return a page's headings as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def _paths(code: str) -> Iterator[str]:
    for path in _PATH.findall(code):
        if not any(ROOT.glob(path)):
            yield f"there is no {path}"
    for path in _IN_A_ROOM.findall(code):
        if not (ROOT / "trtjob" / path).exists():
            yield f"there is no {path}"


def _modules(code: str) -> Iterator[str]:
    for module in _MODULE.findall(code):
        if find_spec(module) is None:
            yield f"there is no module {module}"


def _targets(code: str) -> Iterator[str]:
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in _TARGET.findall(code):
        if target not in known:
            yield f"make knows no {target}"


def _settings(code: str) -> Iterator[str]:
    for name in _SETTING.findall(code):
        if name not in _KNOWN_SETTINGS and not name.endswith("_"):
            yield f"nothing reads {name}"


def _commands(code: str) -> Iterator[str]:
    code = code.partition(" #")[0]
    start = re.search(r"(?:^|^\$ |[|;&] |bin/|sudo )trtjob (?=[a-z-])", code)
    if start is None:
        return
    try:
        words = shlex.split(code[start.end() :])
    except ValueError:  # a sentence with an apostrophe
        return
    command, said = _ROOT_COMMAND, "trtjob"
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word in _STOPS:
            return
        children = getattr(command, "commands", {})
        if word.startswith("-"):
            if word.startswith("--") and (name := word.partition("=")[0]) not in options:
                yield f"{said} knows no {name}"
        elif word in children:
            command, said = children[word], f"{said} {word}"
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        elif children:
            yield f"there is no command {said} {word}"
            return


_ROOT_COMMAND: Any = command()
_SOURCES = [
    *(path for room in ("trtjob", "scripts", "tests", "docker") for path in (ROOT / room).rglob("*") if path.is_file()),
    ROOT / "Makefile",
]
_KNOWN_SETTINGS = {f"TRTJOB_{name.upper()}" for name in Settings.model_fields} | {
    name
    for path in _SOURCES
    if path.suffix in (".py", ".sh", ".yaml", "") and path != Path(__file__)
    for name in _SETTING.findall(path.read_text(errors="ignore"))
}


def main() -> int:
    found = [f"{page.relative_to(ROOT)}: {problem}" for page in PAGES for problem in problems(page)]
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
