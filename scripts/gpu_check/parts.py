"""The parts of the check, and each of them in a process of its own: what breaks a GPU's context breaks one part."""

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.gpu_check import (
    answers,
    darknet,
    faults,
    feed,
    gpus,
    host,
    jpeg,
    machine,
    phases,
    plan_choices,
    plans,
    rival,
    speed,
    suite,
    zoo,
)
from scripts.gpu_check.options import CheckOptions
from scripts.gpu_check.rows import NotRun, Row, State, from_lines, to_line
from trtjob.errors import TrtjobError

Check = Callable[[CheckOptions], Iterator[Row]]

LOOK_S = 2.0
_children: set[int] = set()


@dataclass(frozen=True, slots=True)
class Part:
    """Checks that belong together. limit_s: a part that takes longer is ended, and that is a failure.

    is_kept: whether its table goes into the document; of one that prepares the others only what failed does;
    is_alone: whether it needs the machine for itself, as whatever is timed does.
    """

    title: str
    check: Check
    limit_s: float
    is_kept: bool = True
    is_alone: bool = True

    def kept(self, rows: list[Row]) -> list[Row]:
        return rows if self.is_kept else [row for row in rows if row.state is State.FAILED]


PARTS = {
    "machine": Part("What is there", machine.check, 120),
    "models": Part("The models", zoo.check, 570, is_kept=False),
    "suite": Part("The tests marked gpu", suite.check, 300),
    "plans": Part("TensorRT's plans: seconds to build, several side by side", plans.check, 600, is_kept=False),
    "darknet": Part("YOLOv3-tiny beside Darknet's own detections", darknet.check, 300, is_alone=False),
    "answers": Part(
        "Answers beside those of the CPU in float32: found again, largest differences",
        answers.check,
        900,
        is_alone=False,
    ),
    "growth": Part("Engines that come and go", faults.growth, 600, is_alone=False),
    "speed": Part("The engine alone: images/s at batch 1 / 8 / 32 / 64", speed.check, 900),
    "feed": Part(
        "Files to results: images/s / of the engine alone / mean batch of the largest / cores in use", feed.check, 600
    ),
    "ultralytics": Part(
        "YOLOv8n 640 from files to results, beside Ultralytics: images/s / of the engine alone / mean batch / cores",
        feed.check_beside,
        300,
    ),
    "gpus": Part("Two GPUs: images/s with one / with two / what the second adds of the first", gpus.check, 560),
    "keras": Part("Keras on the same GPU: images/s at batch 1 / 8 / 32", rival.check, 500),
    "phases": Part("One image, ms: prepare / infer / result / draw / write", phases.check, 300),
    "levels": Part("TensorRT's optimization levels: build time and speed at batch 32", plan_choices.levels, 1200),
    "faults": Part("Faults", faults.check, 600),
    "host": Part(
        "What the host can feed: images/s, 640x480 annotated / not, 1920x1080 annotated / not", host.check, 900
    ),
    "jpeg": Part("JPEG decoding", jpeg.check, 900),
}
# Those of the host do not change with the engine, and few machines have two GPUs: they are run by name.
DEFAULT = tuple(name for name in PARTS if name not in ("host", "jpeg", "gpus"))


def groups(names: Sequence[str]) -> list[list[str]]:
    """Return parts in order, those together that may run at once."""
    found: list[list[str]] = []
    for name in names:
        if found and not PARTS[name].is_alone and not PARTS[found[-1][0]].is_alone:
            found[-1].append(name)
        else:
            found.append([name])
    return found


def run_part(
    name: str, options: CheckOptions, *, left_s: float = math.inf, on_rows: Callable[[list[Row]], None] = lambda _: None
) -> list[Row]:
    """Return what a part found, run in a child process; its own output goes to standard error.

    left_s: it is ended after so long at the latest; on_rows: called with the rows so far when there are new ones.
    """
    part = PARTS[name]
    if left_s <= 0:
        return [Row(part.title, State.NOT_RUN, note="no time was left")]
    limit_s = min(part.limit_s, left_s)
    with tempfile.TemporaryDirectory(prefix="trtjob-gpu-check-") as folder:
        found = Path(folder) / "rows"
        found.touch()
        command = [sys.executable, "-m", "scripts.gpu_check", *options.arguments(), "--child", name, str(found)]
        child = subprocess.Popen(command, stdout=sys.stderr, start_new_session=True)
        _children.add(child.pid)
        try:
            problem = _watch(child, limit_s, lambda: on_rows(from_lines(found.read_text())))
        finally:
            with suppress(ProcessLookupError):  # also what it has started, and left
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            _children.remove(child.pid)
        rows = from_lines(found.read_text())
    return [*rows, Row(part.title, State.FAILED, note=problem)] if problem else rows


def _watch(child: "subprocess.Popen[bytes]", limit_s: float, on_look: Callable[[], None]) -> str:
    """Look at a child until it ends. Returns what was wrong with that."""
    end = time.monotonic() + limit_s
    while (left_s := end - time.monotonic()) > 0:
        try:
            return _problem(child.wait(min(left_s, LOOK_S)))
        except subprocess.TimeoutExpired:
            on_look()
    return f"not done after {limit_s:.0f} s, and ended"


def end_children() -> None:
    """End every part that runs, with all that it has started."""
    for pid in list(_children):
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _problem(code: int) -> str:
    if code < 0:
        return f"the process was ended by {signal.Signals(-code).name}"
    return f"the process ended with exit code {code}" if code else ""


def run_here(name: str, options: CheckOptions, found: Path) -> None:
    """Run a part in this process, and write each row as soon as it is there."""
    part = PARTS[name]
    with found.open("a", buffering=1) as file:
        try:
            for row in part.check(options):
                file.write(to_line(row))
        except NotRun as err:
            file.write(to_line(Row(part.title, State.NOT_RUN, note=str(err))))
        except TrtjobError as err:
            file.write(to_line(Row(part.title, State.FAILED, note=str(err))))
        except Exception as err:  # noqa: BLE001 - whatever it is, it belongs into the table
            file.write(to_line(Row(part.title, State.FAILED, note=f"{type(err).__name__}: {err}")))
