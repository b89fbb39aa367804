"""Wherever trtjob's home lies, and whatever it is called, work is done."""

from pathlib import Path

import pytest
from terminal import DIGITS, Terminal, job_folder, records

from trtjob.queue.embedded_server import EmbeddedServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


ODD = """größe=中文, it's a "home", 100% = #1\\n\nof two\tlines"""


@pytest.fixture
def scenes() -> Path:
    return DIGITS / "scenes"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(ODD.ljust(150, "x"), id="both"),  # characters, of which some take several bytes
        pytest.param("x" * 200, id="200-characters", marks=pytest.mark.chaos),
        pytest.param(ODD, id="odd-characters", marks=pytest.mark.chaos),
    ],
)
def test_work_is_done_in_a_home_of_any_name(name: str, digits: Path, scenes: Path, tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / name)
    try:
        outcome = terminal.run("run", scenes, "--model", digits, "-o", tmp_path / "out", timeout_s=120)
        assert outcome.code == 0, outcome.err
        assert len(records(job_folder(tmp_path / "out"))) == 12
        (job,) = terminal.status()["jobs"]
        assert job["state"] == "done"
        doctor = terminal.run("doctor", "--json")
        assert '"broken"' not in doctor.out, doctor.out
    finally:
        terminal.end_all()


def test_a_server_behind_a_socket_with_a_space_is_worked_with(
    terminal: Terminal, digits: Path, scenes: Path, public_folder: Path, tmp_path: Path
) -> None:
    with EmbeddedServer(public_folder / "my server = mine") as server:
        terminal.environment["TRTJOB_REDIS_URL"] = server.url
        outcome = terminal.run("run", scenes, "--model", digits, "-o", tmp_path / "out", timeout_s=120)
    assert outcome.code == 0, outcome.err


def test_a_home_that_no_json_can_name_is_one_line(terminal: Terminal) -> None:
    outcome = terminal.run("status", TRTJOB_HOME="/tmp/\udcff")
    assert outcome.code == 2
    assert "TRTJOB_HOME" in outcome.err
    assert "valid UTF-8" in outcome.err
    assert len(outcome.err.splitlines()) == 1
