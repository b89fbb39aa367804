"""What a terminal would obey, in a name, a label or a message, is only shown."""

import ast
import io
import logging
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import Progress, TextColumn

import trtjob.cli
from trtjob.api.progress import LineStages, LiveStages
from trtjob.cli.entries import print_line
from trtjob.cli.logs import log_line
from trtjob.cli.ui.output import print_rows, print_table
from trtjob.cli.ui.say import say, say_json
from trtjob.logs import TextFormatter
from trtjob.printable import printable
from trtjob.queue.job_log import LogLine

# The title of the window, the clipboard, a cleared screen, an 8-bit escape, and a line that is read backwards.
HOSTILE = "\x1b]0;owned\x07\x1b]52;c;ZWNobw==\x1b\\\x1b[2J\x9b31m\u202egpj.exe"
SHOWN = r"\x1b]0;owned\x07\x1b]52;c;ZWNobw==\x1b\\x1b[2J\x9b31m\u202egpj.exe"


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    shown.encode()


@pytest.mark.parametrize("name", ["ü.jpg", "猫 😀.jpg", "👨‍👩‍👧.jpg", "عربي.jpg", "back\\slash.jpg", "a\u3000b.jpg"])
def test_a_name_of_any_language_is_as_it_is(name: str) -> None:
    assert printable(name) == name


def test_a_name_that_no_terminal_can_show_is_escaped() -> None:
    assert printable("latin\udce9\nline.jpg") == "latin\\udce9\\nline.jpg"


def test_a_line_a_table_and_rows_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, err=True)
    print_table(("NAME", "B"), [(HOSTILE, "1")])
    print_rows([("name", HOSTILE)])
    out, err = capsys.readouterr()
    assert out.splitlines() == [SHOWN, f"{'NAME':<{len(SHOWN)}}  B", f"{SHOWN}  1", f"name       {SHOWN}"]
    assert err == f"{SHOWN}\n"


def test_json_escapes_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    say_json({"image": HOSTILE})
    assert "\x1b" not in capsys.readouterr().out


def test_a_line_of_a_jobs_log_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    fields = {
        "ts": "2026-01-01T00:00:00+00:00",
        "msg": HOSTILE,
        "image": HOSTILE,
        "level": "warning",
        "exception": f"Traceback\n  {HOSTILE}",
    }
    print_line(log_line(LogLine("1-0", fields)))
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)


def test_a_line_of_the_log_is_shown() -> None:
    record = logging.makeLogRecord({"msg": HOSTILE, "levelname": "INFO", "created": 0.0, "image": HOSTILE})
    record.exc_info = (ValueError, ValueError(HOSTILE), None)
    line = TextFormatter().format(record)
    assert line.count(SHOWN) == 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", line)


def test_what_a_worker_says_of_its_progress_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    LineStages(HOSTILE).show(HOSTILE, 0, 0)
    assert capsys.readouterr().err == f"{SHOWN}: {SHOWN}\n"


def test_what_a_worker_says_of_its_progress_is_no_markup_and_no_command_in_a_bar() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=300, color_system=None)
    with Progress(TextColumn("{task.description}"), console=console) as progress:
        LiveStages(progress, "model").show(f"[link=file:///x]{HOSTILE}", 1, 2)
    assert f"model: [link=file:///x]{SHOWN}" in screen.getvalue()
    assert "\x1b" not in screen.getvalue()


def test_commands_speak_in_this_way_alone() -> None:
    speaks = re.compile(r"typer\.s?echo|click\.s?echo|print|sys\.std(out|err)\.write|traceback\.print_.*")
    others = [
        f"{path.name}:{node.lineno}"
        for path in Path(trtjob.cli.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and speaks.fullmatch(ast.unparse(node.func)) and path.name != "say.py"
    ]
    assert others == []
