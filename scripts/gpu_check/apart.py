"""Work in processes of its own: what breaks there breaks nothing here, and several are done side by side."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from scripts.gpu_check.rows import NotRun, Row, State
from trtjob.errors import TrtjobError

T = TypeVar("T")
LIMIT_S = 560.0


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a piece of work gave, or why there is nothing."""

    value: T | None
    seconds: float
    problem: str = ""
    state: State = State.OK

    def row(self, name: str) -> Row:
        return Row(name, self.state, note=self.problem)


def apart(work: Callable[..., T], *arguments: object, limit_s: float = LIMIT_S) -> Answer[T]:
    """Run a function of a module, with arguments that can be pickled, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    started = time.perf_counter()
    process = context.Process(target=_run, args=(there, work, arguments))
    process.start()
    there.close()
    try:
        if not here.poll(limit_s):
            return Answer(None, limit_s, f"not done after {limit_s:.0f} s, and ended", State.FAILED)
        value, problem, state = here.recv()
        return Answer(value, time.perf_counter() - started, problem, state)
    except EOFError:
        process.join()
        problem = f"the process ended with exit code {process.exitcode}"
        return Answer(None, time.perf_counter() - started, problem, State.FAILED)
    finally:
        process.kill()
        process.join()
        here.close()


def side_by_side(
    work: Callable[..., T], cases: Sequence[tuple[object, ...]], workers: int
) -> Iterator[tuple[tuple[Any, ...], Answer[T]]]:
    """Run a function for each case, some at once, each in a fresh process; yield them in order."""
    with ThreadPoolExecutor(workers) as pool:
        answers = [pool.submit(apart, work, *case) for case in cases]
        for case, answer in zip(cases, answers, strict=True):
            yield case, answer.result()


def _run(parent: Connection, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        answer = (work(*arguments), "", State.OK)
    except NotRun as err:
        answer = (None, str(err), State.NOT_RUN)
    except TrtjobError as err:
        answer = (None, str(err), State.FAILED)
    except Exception as err:  # noqa: BLE001 - whatever it is, it belongs into the table
        answer = (None, f"{type(err).__name__}: {err}", State.FAILED)
    parent.send(answer)
    parent.close()
