"""Many requests at a time, their answers in order."""

import threading
import time
from collections.abc import Iterator

import pytest

from trtjob.storage.prefetch import prefetch_map


def test_answers_come_in_the_order_of_the_items() -> None:
    def ask(number: int) -> int:
        time.sleep((number % 3) / 1000)
        return number * 2

    assert list(prefetch_map(ask, range(100))) == [number * 2 for number in range(100)]
    assert list(prefetch_map(ask, [])) == []


def test_several_requests_run_at_a_time_and_no_more_than_allowed() -> None:
    together = threading.Barrier(4, timeout=10)  # is broken where fewer than four come
    running, most, lock = 0, 0, threading.Lock()

    def ask(_number: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1

    list(prefetch_map(ask, range(16), requests=4))
    assert most == 4


def test_items_are_taken_only_a_little_ahead() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    answers = prefetch_map(lambda number: number, items(), requests=3)
    next(answers)
    assert len(taken) <= 7
    answers.close()  # type: ignore[attr-defined]


def test_an_error_comes_out_in_its_turn_and_ends_the_requests() -> None:
    asked = []

    def ask(number: int) -> int:
        asked.append(number)
        if number == 3:
            raise OSError("no")
        return number

    answers = prefetch_map(ask, range(1000), requests=2)
    assert [next(answers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no"):
        next(answers)
    assert len(asked) < 12
