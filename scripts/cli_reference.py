"""Write what is made of the commands' own help: docs/cli.md, docs/settings.md, the manual page and the completions of
shells, which lie in the wheel; with --check, only say whether they are up to date."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from trtjob.cli.app import command
from trtjob.config import Settings

ROOT = Path(__file__).parents[1]
SHARE = ROOT / "packaging" / "share"
HEAD = """# The command line

Written by `scripts/cli_reference.py` from the commands' help. Results go to standard output, progress and messages to
standard error. Exit codes: 0 all fine; 1 images or the job failed; 2 wrong usage; 130 after Ctrl-C, 143 after SIGTERM.
"""
SETTINGS_HEAD = """# Settings

Written by `scripts/cli_reference.py` from `trtjob/config.py`. Each is a variable of the environment, or a line of
`~/.config/trtjob/config.toml` (or of the file that `TRTJOB_CONFIG` names): `threads = 4` for `TRTJOB_THREADS=4`. The
environment goes over the file, and a command's options over both. A variable that is nearly one of these is warned of.

| variable | default | what it says |
|---|---|---|
"""
# The same in every program made with Typer.
LEFT_OUT = {"help", "install_completion", "show_completion"}


def reference() -> str:
    """Return docs/cli.md."""
    return "\n".join([HEAD, *_sections(command(), "trtjob")])


def _sections(command: Any, name: str) -> Iterator[str]:
    yield f"## `{name}`\n"
    yield f"{_shown(command.help).strip()}\n"
    if command.epilog:
        yield f"    {command.epilog.removeprefix('Example: ')}\n"
    yield from _table(_parameters(command))
    for child in getattr(command, "commands", {}).values():
        yield from _sections(child, f"{name} {child.name}")


def _parameters(command: Any) -> list[Any]:
    return [parameter for parameter in command.params if parameter.name not in LEFT_OUT]


def _table(parameters: list[Any]) -> Iterator[str]:
    if not parameters:
        return
    yield "| | |\n|---|---|"
    for parameter in parameters:
        yield f"| {_usage(parameter)} | {_cell(_shown(parameter.help))}{' Required.' if parameter.required else ''} |"
    yield ""


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.is_flag:
        return names
    return _cell(f"{names} `{parameter.metavar}`")


def _shown(text: str) -> str:
    """Return a help text as Rich shows it, which takes `[word]` for markup unless a backslash stands before it."""
    return Text.from_markup(text).plain


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def settings_page() -> str:
    """Return docs/settings.md."""
    rows = (
        f"| `TRTJOB_{name.upper()}` | {_default(field)} | {_cell(field.description or '')} |\n"
        for name, field in Settings.model_fields.items()
    )
    return SETTINGS_HEAD + "".join(rows)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "`$XDG_DATA_HOME/trtjob`, else `~/.local/share/trtjob`"
    shown = "" if field.default in (None, "", ()) else str(field.default)
    return f"`{shown}`" if shown else "none"


def manual_page() -> str:
    """Return the manual page, in man(7)'s macros."""
    root = command()
    lines = ['.TH TRTJOB 1 "" trtjob "User Commands"', ".SH NAME", "trtjob \\- detectors and classifiers over images"]
    lines += [".SH SYNOPSIS", ".B trtjob", ".I COMMAND", "[options]", ".SH DESCRIPTION", _roff(root.help)]
    lines += [".SH COMMANDS", *_manual(root, "trtjob")]
    lines += [
        ".SH EXIT STATUS",
        "0 all fine; 1 images or the job failed; 2 wrong usage; 130 after Ctrl-C, 143 after SIGTERM.",
    ]
    lines += [".SH ENVIRONMENT"]
    for name, field in Settings.model_fields.items():
        lines += [".TP", f".B TRTJOB_{name.upper()}", _roff(field.description or name)]
    return "\n".join(lines) + "\n"


def _manual(command: Any, name: str) -> Iterator[str]:
    for child in command.commands.values():
        title = f"{name} {child.name}"
        yield from (f".SS {title}", _roff(_shown(child.help)))
        for parameter in _parameters(child):
            named = re.sub(r"[`\\]", "", _usage(parameter))
            yield from (".TP", f".B {_roff(named)}", _roff(_shown(parameter.help)))
        if child.epilog:
            yield from (".PP", _roff(child.epilog))
        if hasattr(child, "commands"):
            yield from _manual(child, title)


def _roff(text: str) -> str:
    """Return text that roff shows as it is, a line."""
    flat = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{flat}" if flat.startswith((".", "'")) else flat


def completion(shell: str) -> str:
    """Return a shell's completion, as `trtjob --show-completion` prints it."""
    from typer._completion_shared import get_completion_script

    return get_completion_script(prog_name="trtjob", complete_var="_TRTJOB_COMPLETE", shell=shell) + "\n"


def documents() -> dict[Path, str]:
    """Return all that is written."""
    return {
        ROOT / "docs" / "cli.md": reference(),
        ROOT / "docs" / "settings.md": settings_page(),
        SHARE / "man" / "man1" / "trtjob.1": manual_page(),
        SHARE / "bash-completion" / "completions" / "trtjob": completion("bash"),
        SHARE / "zsh" / "site-functions" / "_trtjob": completion("zsh"),
        SHARE / "fish" / "vendor_completions.d" / "trtjob.fish": completion("fish"),
    }


def main() -> int:
    stale = {path: text for path, text in documents().items() if not path.is_file() or path.read_text() != text}
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path} is stale. Write it anew with: python scripts/cli_reference.py", file=sys.stderr)
        return int(bool(stale))
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
