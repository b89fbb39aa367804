"""What the check of a GPU machine says, where there is none: its figures come from such a machine alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from terminal import DIGITS

from scripts.gpu_check import answers, host, jpeg, parts, speed, suite
from scripts.gpu_check.__main__ import main
from scripts.gpu_check.rows import (
    MARKER,
    NotRun,
    Row,
    State,
    as_markdown,
    as_text,
    below_marker,
    failures,
    from_lines,
    to_line,
)
from scripts.gpu_check.wishes import Wishes

ROWS = [
    Row("copies", figure="50 GB/s", note="page-locked"),
    Row("plans", State.NOT_RUN, note="there is no GPU"),
    Row("graphs | streams", State.FAILED, note="two\nlines"),
]


@pytest.fixture
def wishes(tmp_path: Path) -> Wishes:
    return Wishes((DIGITS / "digits.weights",), None, 0.1, tmp_path / "home")


def test_rows_come_back_from_their_lines() -> None:
    assert from_lines("".join(map(to_line, ROWS))) == ROWS


def test_a_row_cut_off_by_the_end_of_its_process_is_left_out() -> None:
    assert from_lines(to_line(ROWS[0]) + to_line(ROWS[1])[:20]) == [ROWS[0]]


def test_the_text_has_a_line_for_each_row_whatever_is_in_it() -> None:
    lines = as_text({"One": ROWS[:1], "Two": ROWS[1:]}).splitlines()
    assert [line.split("  ")[0] for line in lines if line] == ["check", "ONE", "copies", "TWO", "plans", ROWS[2].check]


def test_a_bar_or_a_line_break_does_not_break_the_markdown_table() -> None:
    assert as_markdown({"One": ROWS}).splitlines()[-1] == "| graphs / streams | FAILED |  | two lines |"


def test_new_tables_leave_what_a_person_wrote_above_them() -> None:
    first = below_marker("", "old tables")
    assert (
        below_marker(first.replace(MARKER, f"Ours.\n{MARKER}"), "new")
        == f"# GPU: what was measured\n\nOurs.\n{MARKER}\n\nnew"
    )


def test_only_what_failed_counts_as_failed() -> None:
    assert failures({"One": ROWS[:2], "Two": ROWS}) == 1


def check_that_kills_itself(_: Wishes) -> Iterator[Row]:
    yield ROWS[0]
    os.kill(os.getpid(), signal.SIGKILL)


def check_that_cannot_run(_: Wishes) -> Iterator[Row]:
    yield ROWS[0]
    raise NotRun("there is no GPU")


def check_that_breaks(_: Wishes) -> Iterator[Row]:
    yield ROWS[0]
    raise ValueError("7")


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        pytest.param(check_that_cannot_run, Row("Title", State.NOT_RUN, note="there is no GPU"), id="not run"),
        pytest.param(check_that_breaks, Row("Title", State.FAILED, note="ValueError: 7"), id="failed"),
    ],
)
def test_what_ends_a_part_is_its_last_row(
    check: "parts.Check", expected: Row, wishes: Wishes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parts.PARTS, "part", parts.Part("Title", check, 1))
    parts.run_here("part", wishes, tmp_path / "rows")
    assert from_lines((tmp_path / "rows").read_text()) == [ROWS[0], expected]


@pytest.mark.slow
def test_a_part_that_takes_too_long_is_ended_and_has_failed(wishes: Wishes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(parts.PARTS, "machine", parts.Part("Title", parts.PARTS["machine"].check, 0.01))
    assert parts.run_part("machine", wishes)[-1] == Row("Title", State.FAILED, note="not done after 0 s, and ended")


@pytest.mark.slow
def test_without_a_gpu_every_part_that_needs_one_says_why(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    if subprocess.run([sys.executable, "-c", "import pycuda.driver"], capture_output=True, check=False).returncode == 0:
        pytest.skip("there is pycuda here")
    wanted = ["copies", "suite", "answers", "memory", "plans", "killed", "cycles"]
    assert main(["--only", *wanted, "--home", str(tmp_path / "home"), "--markdown", str(tmp_path / "found.md")]) == 0
    lines = [line for line in capfd.readouterr().out.splitlines() if "not run" in line]
    assert len(lines) == len(wanted) + 1  # two precisions of the sample model
    assert all("the package 'pycuda' is not installed" in line for line in lines)
    assert (tmp_path / "found.md").read_text().count("| not run |") == len(lines)


REPORT = """<testsuites><testsuite>
<testcase classname="tests.test_a" name="test_ok"/>
<testcase classname="tests.test_a" name="test_tensorrt"><error message="TensorRT is missing">trace</error></testcase>
<testcase classname="tests.test_b" name="test_bad"><failure message="1 != 2">trace</failure></testcase>
<testcase classname="tests.test_c" name="test_left"><skipped message="no torch"/></testcase>
</testsuite></testsuites>"""


def test_a_test_that_lacks_tensorrt_did_not_fail_and_others_did() -> None:
    found = list(suite.rows_of(suite.cases_of(REPORT), "TensorRT is missing"))
    assert [(row.state, row.figure) for row in found] == [
        (State.OK, "1 of 2 passed"),
        (State.FAILED, "0 of 1 passed"),
        (State.NOT_RUN, "0 of 1 passed"),
    ]
    assert found[0].note == "1 cannot run: TensorRT is missing"


def test_where_tensorrt_runs_the_same_is_a_failure() -> None:
    assert next(suite.rows_of(suite.cases_of(REPORT), None)).state is State.FAILED


@pytest.mark.slow
@pytest.mark.parametrize("precision", answers.PRECISIONS)
def test_answers_are_compared_with_those_of_onnx_runtime(precision: str, wishes: Wishes) -> None:
    images = DIGITS / "scenes"
    row = answers.row_of(wishes.models[0], precision, images, wishes.home, lambda: None, "onnxruntime")
    assert (row.state, row.note) == (State.OK, "CPU, 12 images.")
    assert row.figure.startswith("100.0% found again")


@pytest.mark.slow
def test_throughput_is_what_bench_says(wishes: Wishes) -> None:
    names = [row.check for row in speed.check(wishes) if row.state is State.OK]
    assert "digits.weights: engine alone, batch 1" in names
    assert "digits.weights: 1920x1080, files to results, annotated" in names


def test_opencv_is_measured_with_both_steps() -> None:
    files = jpeg._files("640x480")[:1]
    found = list(jpeg.on_cpu("640x480", files, 0.01))
    assert [row.check for row in found] == ["640x480, OpenCV: decode", "640x480, OpenCV: decode, resize to 416x416"]
    assert all(float(row.figure.split()[0]) > 0 for row in found)


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        pytest.param(1, [(1, 1)], id="one core"),
        pytest.param(6, [(1, 1), (1, 2), (1, 4), (1, 6), (2, 3)], id="six cores"),
        pytest.param(8, [(1, 1), (1, 2), (1, 4), (1, 8), (2, 4), (4, 2)], id="eight cores"),
    ],
)
def test_the_host_is_measured_by_threads_and_by_processes(cores: int, expected: list[tuple[int, int]]) -> None:
    assert host.shapes(cores) == expected
