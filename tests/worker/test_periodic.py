"""What a round raises ends that round alone; it is said once, reported, and tried again after growing pauses."""

import asyncio
import logging

import pytest
import redis

from trtjob.errors import ForeignJobError, QueueError
from trtjob.worker import periodic as rounds_module
from trtjob.worker.periodic import MAX_PAUSE_S, PeriodicTasks


def said(caplog: pytest.LogCaptureFixture, name: str) -> int:
    return sum(record.message == f"the {name} is not complete" for record in caplog.records)


def fail(err: Exception) -> None:
    raise err


@pytest.mark.parametrize(
    "err",
    [
        *(ValueError("x"), KeyError("x"), OSError(28, "full"), UnicodeError("x"), RecursionError(), MemoryError()),
        redis.ResponseError("WRONGTYPE x"),
    ],
    ids=lambda err: type(err).__name__,
)
def test_whatever_a_round_raises_is_said_once_and_reported(err: Exception, caplog: pytest.LogCaptureFixture) -> None:
    rounds = PeriodicTasks()
    for _ in range(3):
        rounds.failed("sweep", err)
    assert said(caplog, "sweep") == 1
    (trouble,) = rounds.troubles
    assert trouble.startswith(f"the sweep fails: {type(err).__name__}")
    assert 0 < rounds.pause_s("sweep") <= MAX_PAUSE_S
    rounds.went_well("sweep")
    assert rounds.troubles == []
    assert rounds.pause_s("sweep") == 0


def test_another_kind_of_failure_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    rounds = PeriodicTasks()
    for err in (ValueError("a"), ValueError("b"), KeyError("c")):
        rounds.failed("sweep", err)
    assert said(caplog, "sweep") == 2


def test_pauses_grow_up_to_half_a_minute() -> None:
    rounds, pauses = PeriodicTasks(), []
    for _ in range(2000):
        rounds.failed("sweep", ValueError())
        pauses.append(round(rounds.pause_s("sweep")))
    assert pauses[:6] == [2, 4, 8, 16, 30, 30]
    assert pauses[-1] == 30


@pytest.mark.parametrize(
    "err",
    [redis.ConnectionError("x"), redis.TimeoutError("x"), QueueError("x"), redis.exceptions.OutOfMemoryError("x")],
)
def test_a_server_that_is_away_is_no_rounds_fault_and_said_once(
    err: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = PeriodicTasks()
    with caplog.at_level(logging.INFO):
        for name in ("sweep", "report", "sweep"):
            assert not rounds.guarded(name, lambda: fail(err))
        assert rounds.is_away
        assert rounds.guarded("sweep", lambda: None)
    assert not rounds.is_away
    assert rounds.troubles == []
    assert [record.message for record in caplog.records] == [
        "the queue's server is away",
        "the queue's server is back",
    ]


def test_what_is_said_to_a_person_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    rounds = PeriodicTasks()
    for _ in range(3):
        assert not rounds.guarded("sweep", lambda: fail(ForeignJobError("photos-1234abcd")))
    assert rounds.pause_s("sweep") == 0
    assert said(caplog, "sweep") == 1
    assert "photos-1234abcd" in rounds.troubles[0]
    assert "Traceback" not in caplog.text


def test_a_failing_step_waits_and_the_others_go_on() -> None:
    rounds = PeriodicTasks()
    assert not rounds.guarded("report", lambda: fail(ValueError()))
    calls: list[str] = []
    assert not rounds.guarded("report", lambda: calls.append("report"))
    assert rounds.guarded("sweep", lambda: calls.append("sweep"))
    assert calls == ["sweep"]


def test_rounds_go_on_for_ever_and_a_cancel_ends_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds_module, "FIRST_PAUSE_S", 0.0)
    rounds, pauses = PeriodicTasks(), []

    async def run() -> None:
        has_had_five = asyncio.Event()

        async def rest(least_s: float) -> None:
            pauses.append(least_s)
            if len(pauses) == 5:
                has_had_five.set()
            await asyncio.sleep(0)

        task = asyncio.create_task(rounds.forever("sweep", lambda: fail(ValueError("each time")), rest))
        await has_had_five.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert len(pauses) >= 5
