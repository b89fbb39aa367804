"""Shared memory: slots that do not touch one another, and boards that tell what becomes of a process."""

import errno
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from trtjob.engines.spec import ModelSpec, ResizeMode, Task
from trtjob.imaging.resampling import resampling
from trtjob.memory import usable_bytes
from trtjob.worker.pipeline.ring import IDLE, STAGES, Board, Layout, Ring, room_for_pixels

SMALL = Layout(processes=2, slots=3, tensor=(4, 5, 3), answer=(7, 6))


@given(
    st.builds(
        Layout,
        processes=st.integers(1, 40),
        slots=st.integers(1, 20),
        tensor=st.tuples(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3])),
        answer=st.tuples(st.integers(1, 300), st.just(6)) | st.tuples(st.integers(1, 1000)),
    )
)
def test_nothing_in_a_ring_lies_upon_anything_else(layout: Layout) -> None:
    ring = Ring.create(layout)
    spans = []
    arrays: list[NDArray[Any]] = [*ring.tensors, *ring.answers]
    for array in arrays:
        at = array.ctypes.data - np.frombuffer(ring.memory, np.uint8).ctypes.data
        assert at % 64 == 0
        spans.append((at, at + array.nbytes))
    spans += [(number * 256, number * 256 + 256) for number in range(layout.processes)]
    spans.sort()
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    assert spans[-1][1] <= layout.size_bytes
    assert ring.tensors[0].shape == layout.tensor
    assert ring.answers[-1].shape == layout.answer
    ring.close()


def test_what_is_said_of_a_file_never_reaches_out_of_its_slot() -> None:
    ring = Ring.create(Layout(processes=1, slots=3, tensor=(4, 5, 3), answer=(7, 6), file_bytes=1000))
    found = resampling((6, 7), ModelSpec(task=Task.DETECT, labels=("a",), input_hw=(4, 5)), ResizeMode.STRETCH)
    assert found is not None
    ring.tell_file(1, 100, found[0], are_pixels_wanted=True)
    ring.tell_file(2, 100_000, found[0], are_pixels_wanted=True)
    ring.tell_file(0, -5, found[0]._replace(height=1000), are_pixels_wanted=True)
    encoded = ring.encoded([1, 2, 0])
    room = room_for_pixels(ring.files[1], 100, (6, 7))
    assert room is not None
    for array in (ring.files[1][:100], room, ring.files[2]):
        array[:] = 9
    assert [(encoded.file(number) == 9).sum() for number in range(3)] == [100, 1000, 0]
    pixels = [encoded.pixels(number) for number in range(3)]
    assert pixels[0] is not None
    assert pixels[0].shape == (6, 7, 3)
    assert (pixels[0] == 9).all()
    assert pixels[1:] == [None, None]
    del encoded, room, array, pixels
    ring.close()


def test_another_process_sees_what_is_written_and_the_other_way_round() -> None:
    ring = Ring.create(SMALL)
    ring.tensors[2][:] = 7
    code = (
        "from trtjob.worker.pipeline.ring import Layout, Ring\n"
        f"ring = Ring({SMALL!r}, {ring.fd})\n"
        "assert (ring.tensors[2] == 7).all()\n"
        "ring.answers[1][:] = 3.5\n"
    )
    subprocess.run([sys.executable, "-c", code], pass_fds=(ring.fd,), check=True)
    assert (ring.answers[1] == 3.5).all()
    assert (ring.answers[0] == 0).all()
    ring.close()


def test_a_board_still_tells_what_a_process_was_at_when_it_died() -> None:
    ring = Ring.create(SMALL)
    ring.boards[1].clear()
    code = (
        "import os, signal\n"
        "from trtjob.worker.pipeline.ring import Layout, Ring\n"
        f"board = Ring({SMALL!r}, {ring.fd}).boards[1]\n"
        "with board.working(2), board.stage('decode'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], pass_fds=(ring.fd,), check=False)
    board = ring.boards[1]
    assert (board.slot, board.stage_now, board.steps) == (2, "decode", 1)
    assert ring.boards[0].steps == 0
    ring.close()


def fail(board: Board) -> None:
    with board.working(1), board.stage("draw"):
        time.sleep(0.01)
        raise ZeroDivisionError


def test_a_board_counts_seconds_and_steps_and_is_idle_between_images() -> None:
    ring = Ring.create(SMALL)
    board = ring.boards[0]
    board.clear()
    assert board.slot == IDLE
    with pytest.raises(ZeroDivisionError):
        fail(board)
    with board.beside("fetch"):
        pass
    assert board.slot == IDLE
    assert board.steps == 1
    assert set(board.busy_s()) == {"draw", "fetch"}
    assert 0.01 <= board.busy_s()["draw"] < 1
    board.clear()
    assert (board.steps, board.busy_s()) == (0, {})
    ring.close()


def test_all_stages_have_a_place_on_a_board() -> None:
    ring = Ring.create(SMALL)
    board = ring.boards[1]
    board.clear()
    for stage in STAGES:
        with board.beside(stage):
            time.sleep(0.0001)
    assert set(board.busy_s()) == set(STAGES)
    assert not ring.tensors[0].any()
    ring.close()


def test_a_ring_larger_than_half_of_the_memory_is_refused_and_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        Ring.create(Layout(1, usable_bytes() // 2000 + 2, (1000, 1, 1), (1,)))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_a_ring_gives_its_memory_back() -> None:
    def shared_kib() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("RssShmem")).split()[1])

    before = shared_kib()
    ring = Ring.create(Layout(1, 64, (256, 256, 3), (6,)))
    for tensor in ring.tensors:
        tensor[:] = 1
    assert shared_kib() > before + 10_000
    ring.close()
    del ring, tensor
    assert shared_kib() < before + 2_000
