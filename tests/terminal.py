"""A user at a terminal: the real command and its processes, and what it leaves behind."""

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from trtjob.cli.app import main

ROOT = Path(__file__).parents[1]
DIGITS = ROOT / "examples" / "digits"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclass
class Terminal:
    """Runs `trtjob` as its own process, with a home of its own.

    within: what starts a command elsewhere, when put before it.
    """

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    within: tuple[str, ...] = ()
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a session of its own, as a shell does."""
        process = subprocess.Popen(
            [*self.within, sys.executable, "-m", "trtjob", *map(str, arguments)],
            env={**os.environ, "TRTJOB_HOME": str(self.home), **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *arguments: str | Path, timeout_s: float = 100, **environment: str) -> Outcome:
        """Run a command to its end."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=timeout_s)
        return Outcome(process.returncode, out, err)

    def here(self, *arguments: str | Path, **environment: str) -> Outcome:
        """Run a command to its end in this process: what it says is the same, and a start of Python takes longer."""
        assert not self.within, "this process is not there"
        root, out, err = logging.getLogger(), StringIO(), StringIO()
        handlers, level = root.handlers[:], root.level
        environment = {"TRTJOB_HOME": str(self.home), **self.environment, **environment}
        try:
            with mock.patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(err):
                code = main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
        return Outcome(code, out.getvalue(), err.getvalue())

    def status(self, *job_ids: str) -> Any:
        """Return what `trtjob status` says of all, or of these jobs."""
        outcome = self.here("status", *job_ids, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    def json(self, *arguments: str | Path) -> Any:
        """Run a command that must succeed and return its JSON."""
        outcome = self.here(*arguments, "--json")
        assert outcome.code == 0, outcome.err
        return json.loads(outcome.out)

    def end_all(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self._started:
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def small_digits(folder: Path) -> Path:
    """Make the sample model with a tenth of its pixels below a folder. Returns its weights."""
    made = folder / "digits"
    made.mkdir()
    for suffix in (".weights", ".names"):
        shutil.copy(DIGITS / f"digits{suffix}", made)
    cfg = (DIGITS / "digits.cfg").read_text()
    (made / "digits.cfg").write_text(cfg.replace("=320", "=96"))
    return made / "digits.weights"


def job_folder(output: Path) -> Path:
    """Return the one job's folder below an output folder."""
    (folder,) = [path for path in output.iterdir() if path.is_dir()]
    return folder


def records(folder: Path) -> dict[str, dict[str, Any]]:
    """Return a job's records by image."""
    lines = (folder / "results.jsonl").read_text("utf-8", "surrogateescape").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    return {row["image"]: row for row in rows}


def wait_for(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> Any:
    """Return what `condition` gives, once it gives something."""
    deadline = time.monotonic() + timeout_s
    while (began_s := time.monotonic()) < deadline:
        if found := condition():
            return found
        # A look that starts a process leaves as much time to what is waited for.
        time.sleep(max(0.05, time.monotonic() - began_s))
    raise AssertionError(f"not in {timeout_s} s: {what}")


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, and not seen the end of."""
    found: list[int] = []
    # A thread or a process may end between its listing and the reading.
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    return [pid for child in children(pid) for pid in (child, *descendants(child))]


def worker_pids(pid: int) -> list[int]:
    """Return the worker processes below a process."""
    found = []
    for child in descendants(pid):
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        if b"trtjob.worker.process" in command:
            found.append(child)
    return found
