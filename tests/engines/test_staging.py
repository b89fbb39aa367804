"""The way of a batch to the GPU: from the host, and from elsewhere on the GPU."""

from typing import SupportsInt

import numpy as np
import pytest

from trtjob.engines.cuda.staging import copy_in, deliver, to_fill, to_send
from trtjob.engines.protocol import AnyImage, DeviceImage, UInt8Array

SHAPE = (2, 2, 3)
NBYTES = 12


class Stream:
    """Notes what is copied: to where, from where, how much; host images by their first value."""

    def __init__(self) -> None:
        self.copies: list[tuple[int, str, int]] = []

    def copy_in(self, device: SupportsInt, host: UInt8Array) -> None:
        self.copies.append((int(device), f"host {host.flat[0]}", host.nbytes))

    def copy_within(self, device: SupportsInt, source: SupportsInt, size_bytes: int) -> None:
        self.copies.append((int(device), f"gpu {int(source)}", size_bytes))


def host(value: int) -> UInt8Array:
    return np.full(SHAPE, value, np.uint8)


def gpu(address: int) -> DeviceImage:
    return DeviceImage(address, SHAPE)


@pytest.mark.parametrize(
    ("images", "copies"),
    [
        ([host(1), host(2)], [(100, "host 1", 12), (112, "host 2", 12)]),
        ([gpu(500), gpu(512), gpu(524)], [(100, "gpu 500", 36)]),
        ([gpu(500), gpu(524)], [(100, "gpu 500", 12), (112, "gpu 524", 12)]),
        ([host(1), gpu(512), gpu(524), host(2)], [(100, "host 1", 12), (112, "gpu 512", 24), (136, "host 2", 12)]),
        ([gpu(512), host(1), gpu(536)], [(100, "gpu 512", 12), (112, "host 1", 12), (124, "gpu 536", 12)]),
    ],
    ids=["from the host", "in a row", "with a gap", "mixed", "in a row but for one"],
)
def test_what_lies_in_a_row_is_one_copy(images: list[AnyImage], copies: list[tuple[int, str, int]]) -> None:
    stream = Stream()
    copy_in(stream, 100, images)  # type: ignore[arg-type]
    assert stream.copies == copies


def test_images_of_the_host_that_cannot_be_reached_go_by_the_lanes_own_memory() -> None:
    own = np.zeros((4, *SHAPE), np.uint8)
    sent = to_send([host(7), gpu(500), host(9)], own, lambda _arrays: False)
    assert [int(image.flat[0]) for image in sent if not isinstance(image, DeviceImage)] == [7, 9]
    assert sent[1] == gpu(500)
    assert np.shares_memory(sent[2], own[2])


@pytest.mark.parametrize(("floats", "is_direct"), [(6_000, False), (60_000, True)])
def test_small_answers_come_in_one_copy_and_large_ones_to_where_they_belong(floats: int, is_direct: bool) -> None:
    own = np.arange(4 * floats, dtype=np.float32).reshape(4, floats)
    arrays = [np.zeros(floats, np.float32) for _ in range(3)]
    filled = to_fill(arrays, own, lambda _arrays: True)
    assert len(filled) == (3 if is_direct else 1)
    deliver(filled, arrays)
    assert is_direct or all(np.array_equal(array, row) for array, row in zip(arrays, own, strict=False))
