"""The project's tests that need a GPU, run by pytest as they are."""

import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check import need
from scripts.gpu_check.options import ROOT, CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State
from trtjob.engines.choice import EngineKind

PROCESSES = 6  # most of a test is one core's work, above all the building of a plan
_OUTCOMES = (("passed",), ("failure", "error"), ("skipped",))


@dataclass(frozen=True, slots=True)
class Case:
    """One test. text: what it said where it did not pass."""

    file: str
    name: str
    outcome: str
    text: str = ""


def check(options: CheckOptions) -> Iterator[Row]:
    need.gpu()
    need.module("pytest", "pytest")
    engines = {kind: _lacking(kind) for kind in need.ON_GPU}
    for kind, why in engines.items():
        if why:
            yield Row(f"tests with {kind}", State.NOT_RUN, note=why)
    started = time.perf_counter()
    usable = ",".join(kind for kind, why in engines.items() if not why)
    # Plans are kept from run to run.
    told = {"TRTJOB_GPU_ENGINES": usable, "TRTJOB_GPU_PLANS": str(options.home / "test-plans")}
    yield from rows_of(run(gpu_test_files(ROOT / "tests"), told))
    yield Row("all together", figure=f"{time.perf_counter() - started:.0f} s")


def _lacking(kind: EngineKind) -> str:
    try:
        need.engine(kind)
    except NotRun as err:
        return str(err)
    return ""


def gpu_test_files(tests: Path) -> list[Path]:
    """Return the test files that mark a test with gpu, or whose conftest does: the others need not be importable."""
    marking = [path for path in tests.rglob("*.py") if "mark.gpu" in path.read_text()]
    folders = {path.parent for path in marking if path.name == "conftest.py"}
    return sorted(path for path in tests.rglob("test_*.py") if path in marking or path.parent in folders)


def run(files: list[Path], told: dict[str, str], root: Path = ROOT) -> list[Case]:
    """Run the tests of files that are marked gpu, several side by side, then those that must be alone.

    told: variables of the environment; root: the folder of pytest's settings.
    Raises RuntimeError where pytest gives no report.
    """
    with tempfile.TemporaryDirectory(prefix="trtjob-gpu-check-") as folder:
        together, alone = (_collected(files, marks, told, root) for marks in ("gpu and not alone", "gpu and alone"))
        count = min(PROCESSES, need.workers())
        groups = [tests for number in range(count) if (tests := together[number::count])]
        cases: list[Case] = []
        for running in (groups, [alone] if alone else []):
            started = [
                _started(tests, Path(folder) / f"{len(tests)}-{n}", told, root) for n, tests in enumerate(running)
            ]
            for process, report in started:
                code = process.wait()
                if not report.exists():
                    raise RuntimeError(f"pytest ended with exit code {code} and no report")
                cases += cases_of(report.read_text())
        return cases


def _pytest(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, arguments)]


def _collected(files: list[Path], marks: str, told: dict[str, str], root: Path) -> list[str]:
    listed = subprocess.run(
        _pytest("--collect-only", "-m", marks, *files),
        cwd=root,
        env=os.environ | told,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    return [line for line in listed.stdout.split("\n") if "::" in line and not line.startswith(("ERROR", "FAILED"))]


def _started(tests: list[str], place: Path, told: dict[str, str], root: Path) -> tuple["subprocess.Popen[bytes]", Path]:
    """Start tests. Returns their process, and where its report will be."""
    place.write_text("\n".join(tests))  # more than a command line may hold
    report = place.with_suffix(".xml")
    command = _pytest("--durations=10", f"--junitxml={report}", f"@{place}")
    return subprocess.Popen(command, cwd=root, env=os.environ | told, stdout=sys.stderr), report


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


def rows_of(cases: list[Case]) -> Iterator[Row]:
    """Return a row for each file and engine, which a test's parameter names."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        engine = next((kind for kind in need.ON_GPU if f"[{kind}" in case.name or f"-{kind}" in case.name), "")
        groups.setdefault(f"{case.file} {engine}".strip(), []).append(case)
    for name, ours in groups.items():
        by_outcome = {what: [case for case in ours if case.outcome in what] for what in _OUTCOMES}
        passed, failed, skipped = by_outcome.values()
        state = State.FAILED if failed else (State.OK if passed else State.NOT_RUN)
        notes = [f"failed: {', '.join(case.name for case in failed)}: {failed[0].text}"[:400]] if failed else []
        notes += [f"{len(skipped)} skipped: {skipped[0].text[:200]}"] if skipped else []
        yield Row(name, state, f"{len(passed)} of {len(ours)} passed", "; ".join(notes))
