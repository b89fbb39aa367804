"""Each Lua script opens with what it takes, and no key is named elsewhere."""

import re
from pathlib import Path

import pytest

import trtjob
from trtjob.queue import keys, scripts

FOLDER = Path(scripts.__file__).parent
PACKAGE = Path(trtjob.__file__).parent


def own_text(name: str) -> tuple[str, str]:
    """Return the comment that opens a script, and the script below it."""
    head, _, body = (FOLDER / f"{name}.lua").read_text().partition("\n\n")
    return head, body


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_opens_with_its_keys_its_arguments_its_answer_and_what_a_second_call_does(name: str) -> None:
    head, body = own_text(name)
    assert head.startswith(f"-- {name}: ")
    assert [part for part in ("\n-- ARGV ", "\n-- Answers ", "\n-- Sent twice: ") if part not in head] == []
    assert set(re.findall(r"KEYS\[\d\]", body)) <= set(re.findall(r"KEYS\[\d\]", head))


@pytest.mark.parametrize("name", scripts.names())
def test_a_script_names_the_parts_of_a_job_that_it_touches(name: str) -> None:
    head, body = own_text(name)
    touched = set(re.findall(r"KEYS\[1\] \.\. ':([a-z]+)'", body))
    assert touched <= set(keys.PARTS)
    assert [part for part in touched if f":{part}" not in head] == []


def test_a_files_includes_come_once_and_before_it() -> None:
    text = scripts.load("claim")
    assert text.count("local function tell(") == 1
    assert (
        text.index("local function tell(") < text.index("local function leave(") < text.index("local function grant(")
    )


def test_no_other_module_names_a_key() -> None:
    named = re.compile(r"""["'](?:trtjob|rq):[a-z]""")
    own = {PACKAGE / "queue" / "keys.py", PACKAGE / "queue" / "rq_internals.py"}
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.lua")]
    assert [str(file) for file in files if file not in own and named.search(file.read_text())] == []
