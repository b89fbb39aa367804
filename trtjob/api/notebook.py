"""How a job that runs is shown in a notebook: a bar below the cell."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from trtjob.api.progress import Audience, Display, Nobody, Patience, StageDisplay, StandardError, numbers, tell
from trtjob.printable import printable

if TYPE_CHECKING:
    from trtjob.queue.progress import RateMeter
    from trtjob.queue.views import JobView, WorkerView


def audience(*, wants_progress: bool) -> Audience:
    """Return who is told by a program: the reader of its notebook, of its standard error, or nobody."""
    if not wants_progress:
        return Nobody()
    return Notebook() if is_notebook() else StandardError()


def is_notebook() -> bool:
    """Return whether this is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class Notebook:
    """A person who reads a notebook: the audience of `trtjob.api.progress`."""

    def tell(self, line: str) -> None:
        tell(line)

    @contextmanager
    def job(self, *, works_here: bool) -> Iterator[Display]:
        bar = _Bar()
        try:
            yield _JobBar(bar, works_here=works_here)
        finally:
            bar.close()

    @contextmanager
    def stages(self, title: str) -> Iterator[StageDisplay]:
        bar = _Bar()
        try:
            yield _StageBar(bar, title)
        finally:
            bar.close()


class _Bar:
    """A bar with a word before it and numbers behind it; it goes when all is done."""

    def __init__(self) -> None:
        from IPython import display

        shown: Any = display  # which has no types
        self._html = shown.HTML
        self._handle = shown.display(shown.HTML(""), display_id=True)
        self._shown = ""

    def show(self, title: str, done: int, total: int, rest: str) -> None:
        of = f' value="{done}" max="{total}"' if total else ""
        html = f"<div>{escape(printable(title))} <progress{of}></progress> {escape(printable(rest))}</div>"
        if html != self._shown:
            self._shown = html
            self._handle.update(self._html(html))

    def close(self) -> None:
        self._handle.update(self._html(""))


class _JobBar:
    def __init__(self, bar: _Bar, *, works_here: bool) -> None:
        self._bar = bar
        self._patience = Patience(works_here=works_here)

    def show(self, view: "JobView", workers: "list[WorkerView]", meter: "RateMeter") -> None:
        from trtjob.jobs.states import in_words

        rest = "  ".join(filter(None, (numbers(view, meter), self._patience.sentence(view, workers))))
        self._bar.show(in_words(view.state, view.failures), view.done, view.images if view.planned else 0, rest)


class _StageBar:
    def __init__(self, bar: _Bar, title: str) -> None:
        self._bar, self._title = bar, title

    def show(self, stage: str, done: int, total: int) -> None:
        self._bar.show(f"{self._title}: {stage}", done, total, f"{done}/{total}" if total else "")
