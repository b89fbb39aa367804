"""The command line inside the test's process, where it is quick, and at a terminal, where processes matter."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from terminal import DIGITS, Outcome

from trtjob.cli.app import main

Command = Callable[..., Outcome]


@pytest.fixture
def trtjob(capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run a command line in this process, through its error boundary."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def run(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        try:
            code = main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    yield run
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def scenes() -> Path:
    """The folder of sample scenes."""
    return DIGITS / "scenes"
