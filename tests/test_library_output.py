"""What C libraries print is taken from standard error, and nothing else is."""

import os
import threading

import pytest

from trtjob.library_output import library_output


def test_what_is_written_in_the_block_is_told_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    os.write(2, b"before\n")
    with library_output() as lines:
        os.write(2, b"one\n  two \n\n")
    os.write(2, b"after\n")
    assert lines == ["one", "two"]
    assert capfd.readouterr().err == "before\nafter\n"


def test_it_is_shown_again_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"), library_output():
        os.write(-1, b"")
    os.write(2, b"shown\n")
    assert capfd.readouterr().err == "shown\n"
    with library_output() as lines:
        pass
    assert lines == []


def test_a_library_that_never_stops_talking_is_not_kept_waiting() -> None:
    with library_output() as lines:
        for _ in range(100):
            os.write(2, b"a line for each row\n" * 5_000)
        os.write(2, b"the last one\n")
    assert lines[-1] == "the last one"
    assert sum(map(len, lines)) < 100_000


def test_threads_take_turns() -> None:
    heard: dict[int, list[str]] = {}

    def talk(number: int) -> None:
        with library_output() as lines:
            for _ in range(100):
                os.write(2, f"{number}\n".encode())
        heard[number] = lines

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == {number: [str(number)] * 100 for number in range(8)}
