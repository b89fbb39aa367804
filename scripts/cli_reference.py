"""Write docs/cli.md from the commands' own help; with --check, only say whether it is up to date."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trtjob.cli.app import command

TARGET = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Written by `scripts/cli_reference.py` from the commands' help. Results go to standard output, progress and messages to
standard error. Exit codes: 0 all fine; 1 images or the job failed; 2 wrong usage; 130 after Ctrl-C, 143 after SIGTERM.
"""
# The same in every program made with Typer.
LEFT_OUT = {"help", "install_completion", "show_completion"}


def reference() -> str:
    """Return the whole document."""
    return "\n".join([HEAD, *_sections(command(), "trtjob")])


def _sections(command: Any, name: str) -> Iterator[str]:
    yield f"## `{name}`\n"
    yield f"{command.help.strip()}\n"
    if command.epilog:
        yield f"    {command.epilog.removeprefix('Example: ')}\n"
    yield from _table([p for p in command.params if p.name not in LEFT_OUT])
    for child in getattr(command, "commands", {}).values():
        yield from _sections(child, f"{name} {child.name}")


def _table(parameters: list[Any]) -> Iterator[str]:
    if not parameters:
        return
    yield "| | |\n|---|---|"
    for parameter in parameters:
        yield f"| {_usage(parameter)} | {_cell(parameter.help)}{' Required.' if parameter.required else ''} |"
    yield ""


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}`"
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    if parameter.is_flag:
        return names
    return _cell(f"{names} `{parameter.metavar}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> int:
    text = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text)
        return 0
    if TARGET.is_file() and TARGET.read_text() == text:
        return 0
    print(f"{TARGET} is stale. Write it anew with: python scripts/cli_reference.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
