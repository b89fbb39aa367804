"""Who is told how a job gets on, and how standard error shows it: a bar at a terminal, else a line now and then."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.progress import RateMeter
    from trtjob.queue.views import JobView, WorkerView

LINE_EVERY_S = 5.0
NO_WORKER_AFTER_S = 3.0  # a worker process takes a second or two to report for the first time


class Display(Protocol):
    """Shows a job as it stands; called several times a second."""

    def show(self, view: "JobView", workers: "list[WorkerView]", meter: "RateMeter") -> None: ...


class StageDisplay(Protocol):
    """Shows what a conversion does now. total: how many steps that has, 0 where it is not known."""

    def show(self, stage: str, done: int, total: int) -> None: ...


class Audience(Protocol):
    """Who is told how a job gets on."""

    def tell(self, line: str) -> None: ...

    def job(self, *, works_here: bool) -> AbstractContextManager[Display]:
        """Show a job for the length of the block. works_here: it has workers of its own, so that none is missing."""
        ...

    def stages(self, title: str) -> AbstractContextManager[StageDisplay]:
        """Show what comes before a job, such as an upload, for the length of the block."""
        ...


class StandardError:
    """A person who reads standard error, at a terminal or later."""

    def tell(self, line: str) -> None:
        tell(line)

    def job(self, *, works_here: bool) -> AbstractContextManager[Display]:
        return open_display(works_here=works_here)

    def stages(self, title: str) -> AbstractContextManager[StageDisplay]:
        return open_stages(title)


class Nobody:
    """No one."""

    def tell(self, line: str) -> None:
        pass

    def job(self, *, works_here: bool) -> AbstractContextManager[Display]:
        return nullcontext(_Blank())

    def stages(self, title: str) -> AbstractContextManager[StageDisplay]:
        return nullcontext(_Blank())


class _Blank:
    def show(self, *_shown: object) -> None:
        pass


def tell(line: str) -> None:
    """Print a line on standard error, where there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"{printable(line)}\n")
        sys.stderr.flush()


def _is_at_terminal() -> bool:
    return sys.stderr is not None and sys.stderr.isatty()


@contextmanager
def open_display(*, works_here: bool) -> Iterator[Display]:
    """Yield what shows a job: a live bar where standard error is a terminal, else lines."""
    if not _is_at_terminal():
        yield LineDisplay(works_here=works_here)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[numbers]}"),
        TextColumn("[dim]{task.fields[limit]}[/dim]"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield LiveDisplay(progress, works_here=works_here)


class LineDisplay:
    """One line when the state changes, and one every five seconds."""

    def __init__(self, *, works_here: bool = False) -> None:
        self._shown_at = time.monotonic()
        self._state: str = ""
        self._patience = Patience(works_here=works_here)

    def show(self, view: "JobView", workers: "list[WorkerView]", meter: "RateMeter") -> None:
        from trtjob.jobs.states import in_words

        now = time.monotonic()
        if view.state == self._state and now - self._shown_at < LINE_EVERY_S:
            return
        self._state, self._shown_at = view.state, now
        parts = [
            f"{view.job_id}: {in_words(view.state, view.failures)}",
            numbers(view, meter),
            self._patience.sentence(view, workers),
        ]
        tell("  ".join(filter(None, parts)))


class LiveDisplay:
    """A bar with the numbers and what limits the speed beside it."""

    def __init__(self, progress: Any, *, works_here: bool) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None, numbers="", limit="")
        self._patience = Patience(works_here=works_here)

    def show(self, view: "JobView", workers: "list[WorkerView]", meter: "RateMeter") -> None:
        from rich.markup import escape

        from trtjob.jobs.states import in_words

        self._progress.update(
            self._task,
            description=in_words(view.state, view.failures),
            total=view.images if view.planned else None,
            completed=view.done,
            numbers=numbers(view, meter),
            limit=escape(printable(self._patience.sentence(view, workers))),
        )


class Patience:
    """Keeps quiet about a missing worker while one may be starting."""

    def __init__(self, *, works_here: bool) -> None:
        self._works_here = works_here
        self._since = time.monotonic()

    def sentence(self, view: "JobView", workers: "list[WorkerView]") -> str:
        from trtjob.jobs.states import TERMINAL
        from trtjob.queue.progress import describe_limit

        is_anybody = any(worker.may_do(view.queue, view.job_id) for worker in workers)
        is_patient = self._works_here or time.monotonic() - self._since < NO_WORKER_AFTER_S
        if view.state in TERMINAL or (not is_anybody and is_patient):
            return ""
        return describe_limit(view, workers)


def numbers(view: "JobView", meter: "RateMeter") -> str:
    """Return `120/240 images  35.1 images/s  3 s left  2 failed`, as far as it is known."""
    from trtjob.queue.progress import remaining

    if not view.images:
        return ""
    parts = [f"{view.done}/{view.images}{'' if view.planned else '+'} image{'' if view.images == 1 else 's'}"]
    if meter.rate:
        parts.append(f"{meter.rate:.1f} images/s")
    left = remaining(view)
    if left and (eta_s := meter.eta_s(left)) is not None:
        parts.append(f"{duration(eta_s)} left")
    if view.failures:
        parts.append(f"{view.failures} failed")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return `0.8 s`, `12 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes_rest = divmod(minutes, 60)
    return f"{hours} h {minutes_rest:02} min" if hours else f"{minutes} min {rest:02} s"


@contextmanager
def open_stages(title: str) -> Iterator[StageDisplay]:
    """Yield what shows how far some work is: a live bar where standard error is a terminal, else lines."""
    if not _is_at_terminal():
        yield LineStages(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn())
    # By a descriptor of its own: what is written to number 2 while an image is decoded counts as its decoder's words.
    with (
        os.fdopen(os.dup(2), "w") as terminal,
        Progress(*columns, TimeElapsedColumn(), console=Console(file=terminal), transient=True) as progress,
    ):
        yield LiveStages(progress, title)


class LineStages:
    """One line when a stage begins, and one every five seconds."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._stage, self._shown_at = "", 0.0

    def show(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._shown_at < LINE_EVERY_S:
            return
        self._stage, self._shown_at = stage, now
        tell(f"{self._title}: {stage}{f' {done}/{total}' if total else ''}")


class LiveStages:
    """A bar."""

    def __init__(self, progress: Any, title: str) -> None:
        self._progress, self._title = progress, title
        self._task = progress.add_task("", total=None)

    def show(self, stage: str, done: int, total: int) -> None:
        from rich.markup import escape

        shown = escape(printable(f"{self._title}: {stage}"))
        self._progress.update(self._task, description=shown, completed=done, total=total or None)
