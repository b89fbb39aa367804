"""Memory for images that are larger than an image process's budget."""

import pytest

from trtjob.worker.pipeline.memory_grants import MemoryGrants


@pytest.fixture
def granted() -> dict[int, int]:
    """What was granted, by slot."""
    return {}


@pytest.fixture
def grants(granted: dict[int, int]) -> MemoryGrants:
    """A hundred bytes for all."""
    return MemoryGrants(100, granted.__setitem__)


def test_as_many_as_fit_go_at_once_and_the_others_in_turn(grants: MemoryGrants, granted: dict[int, int]) -> None:
    for slot in range(4):
        grants.ask(slot, 40)
    assert granted == {0: 40, 1: 40}
    grants.end(1)
    assert granted == {0: 40, 1: 40, 2: 40}
    assert grants.granted_bytes == 80


def test_one_that_is_larger_than_all_goes_without_others(grants: MemoryGrants, granted: dict[int, int]) -> None:
    grants.ask(0, 60)
    grants.ask(1, 500)
    grants.ask(2, 10)  # would fit, but does not overtake: else the large one might never go
    assert granted == {0: 60}
    grants.end(0)
    assert granted == {0: 60, 1: 500}
    grants.end(1)
    assert 2 in granted


def test_who_needs_more_gives_up_what_it_had_first(grants: MemoryGrants, granted: dict[int, int]) -> None:
    """Two that hold something and wait for more would else wait for each other."""
    grants.ask(0, 50)
    grants.ask(1, 50)
    grants.ask(0, 90)
    grants.ask(1, 80)
    assert granted == {0: 90, 1: 50}
    grants.end(0)
    assert granted[1] == 80


def test_one_that_goes_while_it_asks_is_forgotten(grants: MemoryGrants, granted: dict[int, int]) -> None:
    grants.ask(0, 100)
    grants.ask(1, 100)
    grants.ask(2, 100)
    grants.end(1)
    grants.end(0)
    assert granted == {0: 100, 2: 100}
