"""The project's tests that need a GPU, run by pytest as they are."""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check import need
from scripts.gpu_check.rows import NotRun, Row, State
from scripts.gpu_check.wishes import ROOT, Wishes

_USAGE_ERROR = 4


@dataclass(frozen=True, slots=True)
class Case:
    """One test. text: what it said where it did not pass."""

    file: str
    name: str
    outcome: str
    text: str = ""


def check(wishes: Wishes) -> Iterator[Row]:
    need.gpu()
    need.module("pytest", "pytest")
    files = gpu_test_files(ROOT / "tests")
    if not files:
        raise NotRun(f"there are no tests marked gpu below {ROOT / 'tests'}")
    try:
        need.tensorrt(wishes.home)
        lacking = None
    except NotRun as err:
        lacking = str(err)
    cases = _run(files)
    yield from rows_of(cases, lacking)
    yield _graphs(cases)


def gpu_test_files(tests: Path) -> list[Path]:
    """Return the test files that mark a test with gpu: the others need not be importable here."""
    return [path for path in sorted(tests.rglob("test_*.py")) if "mark.gpu" in path.read_text()]


def _run(files: list[Path]) -> list[Case]:
    with tempfile.TemporaryDirectory(prefix="trtjob-gpu-check-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
        ended = subprocess.run([*command, *map(str, files)], cwd=ROOT, stdout=sys.stderr, check=False)
        if not report.exists():
            raise RuntimeError(f"pytest ended with exit code {ended.returncode} and no report")
        return cases_of(report.read_text())


def cases_of(report: str) -> list[Case]:
    """Return the tests of a JUnit report; each element says what it is by its children."""
    cases = []
    for element in ET.fromstring(report).iter("testcase"):
        outcome, text = "passed", ""
        for child in element:
            if child.tag in ("failure", "error", "skipped"):
                outcome, text = child.tag, f"{child.get('message', '')} {child.text or ''}"
        cases.append(Case(element.get("classname", ""), element.get("name", ""), outcome, text))
    return cases


def rows_of(cases: list[Case], lacking: str | None) -> Iterator[Row]:
    """Return a row for each file. lacking: what TensorRT says where it cannot run: a test that says the same did not
    fail, it could not run."""
    for file in dict.fromkeys(case.file for case in cases):
        ours = [case for case in cases if case.file == file]
        held_up = [case for case in ours if lacking and case.outcome in ("failure", "error") and lacking in case.text]
        failed = [case for case in ours if case.outcome in ("failure", "error") and case not in held_up]
        passed = [case for case in ours if case.outcome == "passed"]
        skipped = [case for case in ours if case.outcome == "skipped"]
        state = State.FAILED if failed else (State.OK if passed else State.NOT_RUN)
        notes = [f"failed: {', '.join(case.name for case in failed)}"] if failed else []
        notes += [f"{len(held_up)} cannot run: {lacking}"] if held_up else []
        notes += [f"{len(skipped)} skipped: {skipped[0].text}"] if skipped else []
        yield Row(file, state, f"{len(passed)} of {len(ours)} passed", "; ".join(notes))


def _graphs(cases: list[Case]) -> Row:
    name = "CUDA graphs: capture and replay"
    ours = [case for case in cases if "graph" in case.name or "graph" in case.file]
    if not ours:
        return Row(name, State.NOT_RUN, note="no test marked gpu speaks of graphs")
    bad = [case for case in ours if case.outcome != "passed"]
    outcomes = "; ".join(f"{case.name}: {case.outcome} {case.text[:200]}" for case in bad)
    skipped = all(case.outcome == "skipped" for case in bad)
    state = State.OK if not bad else (State.NOT_RUN if skipped else State.FAILED)
    return Row(name, state, f"{len(ours) - len(bad)} of {len(ours)} passed", outcomes)
