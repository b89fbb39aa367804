"""What an image process may have in hand is counted in bytes."""

import numpy as np
import pytest

from trtjob.imaging.encode import encode_image
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.in_hand import Budget, Image

HALF = 1000


@pytest.fixture
def budget() -> Budget:
    return Budget(2 * HALF, max_pixels=10_000)


def image(slot: int = 0) -> Image:
    return Image(slot, None, Entry("a.jpg", 1, ""))  # type: ignore[arg-type]


def test_the_first_file_and_the_first_pixels_always_have_room(budget: Budget) -> None:
    assert budget.has_room_for_file(10 * HALF)
    assert budget.has_room_for_pixels(10 * HALF)


def test_files_and_pixels_have_a_half_each_and_do_not_wait_for_each_other(budget: Budget) -> None:
    first, second = image(1), image(2)
    budget.hold(first, file_bytes=900)
    assert not budget.has_room_for_file(101)
    assert budget.has_room_for_pixels(HALF)
    budget.hold(second, pixel_bytes=900)
    assert budget.has_room_for_file(100)
    assert not budget.has_room_for_pixels(101)


def test_what_is_let_go_has_room_again(budget: Budget) -> None:
    held = image()
    budget.hold(held, file_bytes=900)
    budget.hold(held, pixel_bytes=900)
    assert budget.has_room_for_file(HALF)
    budget.hold(held)
    assert budget.has_room_for_pixels(HALF)
    assert (held.file_bytes, held.pixel_bytes) == (0, 0)


def test_large_is_what_needs_more_than_a_half(budget: Budget) -> None:
    assert not budget.is_large(HALF)
    assert budget.is_large(HALF + 1)


def test_decoding_takes_the_pixels_twice_and_nothing_where_it_will_be_refused(budget: Budget) -> None:
    assert budget.decoding_bytes(encode_image(np.zeros((50, 100, 3), np.uint8), ".png")) == 2 * 3 * 5000
    assert budget.decoding_bytes(encode_image(np.zeros((200, 100, 3), np.uint8), ".png")) == 0
    assert budget.decoding_bytes(b"no image") == 0
