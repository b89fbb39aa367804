"""How commands speak: every line is printable, whoever wrote what is in it."""

import json
from typing import Any

import typer

from trtjob.cli.ui.paint import Line
from trtjob.printable import printable


def say(*lines: str, err: bool = False) -> None:
    """Print lines on standard output, an empty one where none is given. err: on standard error.

    A terminal shows the colours of those that have some.
    """
    typer.echo("\n".join(each if isinstance(each, Line) else printable(each) for each in lines), err=err)


def say_json(document: Any, *, indent: int | None = None) -> None:
    """Print a JSON document, in ASCII: a name that is no valid UTF-8, and what a terminal obeys, is escaped."""
    typer.echo(json.dumps(document, indent=indent))
