"""How busy the cores are: from the clock, the process's own time and the kernel's idle time."""

import os
import time
from pathlib import Path

import pytest

from trtjob.bench import cores
from trtjob.bench.cores import Moment, Span, idle_seconds

CORES = len(os.sched_getaffinity(0))
TICKS = os.sysconf("SC_CLK_TCK")


def span(*, elapsed_s: float, process_s: float, idle_s: float | None) -> Span:
    start = Moment(10.0, 5.0, None if idle_s is None else 100.0)
    return Span.between(start, Moment(10 + elapsed_s, 5 + process_s, None if idle_s is None else 100 + idle_s))


def test_shares_are_of_all_cores_together() -> None:
    found = span(elapsed_s=2, process_s=0.5 * CORES, idle_s=0.5 * CORES)
    assert found.own == pytest.approx(0.25)
    assert found.busy == pytest.approx(0.75)


def test_without_the_kernels_word_only_our_own_share_is_known() -> None:
    assert span(elapsed_s=1, process_s=0.5 * CORES, idle_s=None).busy == pytest.approx(0.5)


def test_the_cores_are_never_less_busy_than_with_us_alone() -> None:
    assert span(elapsed_s=1, process_s=0.5 * CORES, idle_s=0.9 * CORES).busy == pytest.approx(0.5)


def test_idle_time_is_that_of_the_cores_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = tmp_path / "stat"
    rows = ["cpu 0 0 0 900 90 0", "cpu0 1 2 3 100 10 4", "cpu1 1 2 3 200 20 4", "cpu10 1 2 3 400 40 4", "", "intr 5"]
    stat.write_text("\n".join(rows))
    monkeypatch.setattr(cores, "STAT", stat)
    assert idle_seconds({0, 1}) == 330 / TICKS
    assert idle_seconds({10}) == 440 / TICKS


@pytest.mark.parametrize("text", [None, "cpu0 1 2", "cpu0 a b c d e", "cpu1 1 2 3 4 5"])
def test_idle_time_that_cannot_be_told_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text)
    monkeypatch.setattr(cores, "STAT", stat)
    assert idle_seconds({0}) is None


def test_a_process_that_computes_has_a_share() -> None:
    start = Moment.now()
    while time.process_time() < start.process_s + 0.05:
        pass
    found = Span.between(start, Moment.now())
    assert 0 < found.own <= found.busy <= 1
    assert found.process_s >= 0.05
