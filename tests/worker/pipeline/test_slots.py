"""Memory for images that are larger than an image process's budget."""

from pathlib import Path

import pytest
from worker.pipeline.lines import job, pipeline_of, run
from worker.plain_engine import PlainEngine, write_images

from trtjob.worker.pipeline.slots import Slots
from trtjob.worker.pipeline.wire import FrameReader, Kind, unpacked_bytes


class Ear:
    """Hears what an image process would be told."""

    def __init__(self) -> None:
        self.granted: dict[int, int] = {}

    def send(self, data: bytes) -> None:
        for told in FrameReader().frames(data):
            assert told.kind == Kind.GRANT
            self.granted[told.number] = unpacked_bytes(told.payload)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ear: Ear) -> Slots:
    """Eight slots of a real pipeline, all in the hands of one who only hears."""
    (tmp_path / "photos").mkdir()
    with pipeline_of(PlainEngine()) as pipeline:
        keys = write_images(tmp_path / "photos", 1)
        run(pipeline, job(tmp_path / "photos", tmp_path / "out"), keys)
        found = Slots(8, pipeline.batches, large_bytes=100)
        for slot in range(8):
            found.hands[slot] = type("Hand", (), {"owner": ear})()
    return found


def test_as_many_as_fit_go_at_once_and_the_others_in_turn(slots: Slots, ear: Ear) -> None:
    for slot in range(4):
        slots.ask_for_memory(slot, 40)
    assert ear.granted == {0: 40, 1: 40}
    slots._end_large(1)
    assert ear.granted == {0: 40, 1: 40, 2: 40}


def test_one_that_is_larger_than_all_goes_without_others(slots: Slots, ear: Ear) -> None:
    slots.ask_for_memory(0, 60)
    slots.ask_for_memory(1, 500)
    slots.ask_for_memory(2, 10)  # would fit, but does not overtake: else the large one might never go
    assert ear.granted == {0: 60}
    slots._end_large(0)
    assert ear.granted == {0: 60, 1: 500}
    slots._end_large(1)
    assert 2 in ear.granted


def test_who_needs_more_gives_up_what_it_had_first(slots: Slots, ear: Ear) -> None:
    """Two that hold something and wait for more would else wait for each other."""
    slots.ask_for_memory(0, 50)
    slots.ask_for_memory(1, 50)
    slots.ask_for_memory(0, 90)
    slots.ask_for_memory(1, 80)
    assert ear.granted == {0: 90, 1: 50}
    slots._end_large(0)
    assert ear.granted[1] == 80


def test_one_that_goes_while_it_asks_is_forgotten(slots: Slots, ear: Ear) -> None:
    slots.ask_for_memory(0, 100)
    slots.ask_for_memory(1, 100)
    slots.ask_for_memory(2, 100)
    slots._end_large(1)
    slots._end_large(0)
    assert ear.granted == {0: 100, 2: 100}
