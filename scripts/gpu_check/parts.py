"""The parts of the check, and each of them in a process of its own: what breaks a GPU's context breaks one part."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check import answers, copies, faults, host, jpeg, machine, speed, suite
from scripts.gpu_check.rows import NotRun, Row, State, from_lines, to_line
from scripts.gpu_check.wishes import Wishes
from trtjob.errors import TrtjobError

Check = Callable[[Wishes], Iterator[Row]]


@dataclass(frozen=True, slots=True)
class Part:
    """Checks that belong together. limit_s: a part that takes longer is ended, and that is a failure."""

    title: str
    check: Check
    limit_s: float


PARTS = {
    "machine": Part("What is there", machine.check, 120),
    "copies": Part("pycuda: the context and copies", copies.check, 120),
    "suite": Part("The tests marked gpu", suite.check, 1800),
    "answers": Part("TensorRT's answers beside ONNX Runtime's", answers.check, 1800),
    "speed": Part("Throughput", speed.check, 1800),
    "host": Part("What the host can feed", host.check, 900),
    "jpeg": Part("JPEG decoding", jpeg.check, 900),
    "memory": Part("Out of memory", faults.out_of_memory, 120),
    "plans": Part("Plans of another GPU", faults.foreign_plan, 60),
    "killed": Part("Killed in mid batch", faults.killed, 300),
    "cycles": Part("Opened and closed 200 times", faults.cycles, 900),
}


def run_part(name: str, wishes: Wishes) -> list[Row]:
    """Return what a part found, run in a child process; its own output goes to standard error."""
    part = PARTS[name]
    with tempfile.TemporaryDirectory(prefix="trtjob-gpu-check-") as folder:
        found = Path(folder) / "rows"
        found.touch()
        command = [sys.executable, "-m", "scripts.gpu_check", *wishes.arguments(), "--child", name, str(found)]
        child = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
        try:
            problem = _problem(child.wait(part.limit_s))
        except subprocess.TimeoutExpired:
            problem = f"not done after {part.limit_s:.0f} s, and ended"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        rows = from_lines(found.read_text())
    return [*rows, Row(part.title, State.FAILED, note=problem)] if problem else rows


def _problem(code: int) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}" if code else ""


def run_here(name: str, wishes: Wishes, found: Path) -> None:
    """Run a part in this process, and write each row as soon as it is there."""
    part = PARTS[name]
    with found.open("a", buffering=1) as file:
        try:
            for row in part.check(wishes):
                file.write(to_line(row))
        except NotRun as err:
            file.write(to_line(Row(part.title, State.NOT_RUN, note=str(err))))
        except TrtjobError as err:
            file.write(to_line(Row(part.title, State.FAILED, note=str(err))))
        except Exception as err:  # noqa: BLE001 - whatever it is, it belongs into the table
            file.write(to_line(Row(part.title, State.FAILED, note=f"{type(err).__name__}: {err}")))
