"""Frames: whatever pieces a pipe gives, what comes out is what went in."""

import os
import threading

from hypothesis import given
from hypothesis import strategies as st

from trtjob.storage.listing import Entry
from trtjob.storage.listing import Frame as VideoFrame
from trtjob.worker.pipeline.wire import Frame, FrameReader, Kind, frame, packed_image, unpacked_image, write_all

FRAMES = st.lists(
    st.builds(Frame, st.sampled_from(Kind), st.integers(0, 255), st.integers(-1, 1 << 30), st.binary(max_size=300))
)
# What a file's name can hold: any text, and bytes that are no UTF-8, which Python keeps as lone surrogates.
NAMES = st.text(st.characters(exclude_categories=["Cs"])) | st.binary().map(
    lambda name: name.decode("utf-8", "surrogateescape")
)


def packed(frames: list[Frame]) -> bytes:
    return b"".join(frame(Kind(f.kind), f.number, f.payload, f.flag) for f in frames)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_out_of_any_pieces_as_they_went_in(frames: list[Frame], sizes: list[int]) -> None:
    found: list[Frame] = []
    data, reader, at, turn = packed(frames), FrameReader(), 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        found += reader.frames(data[at : at + size])
        at, turn = at + size, turn + 1
    assert found == frames


@given(FRAMES, st.data())
def test_of_a_writer_that_died_only_whole_frames_are_read(frames: list[Frame], data: st.DataObject) -> None:
    written = packed(frames)
    cut = data.draw(st.integers(0, len(written)))
    found = list(FrameReader().frames(written[:cut]))
    assert found == frames[: len(found)]
    assert len(packed(frames[: len(found) + 1])) > cut or len(found) == len(frames)


@given(st.integers(0, 1 << 30), NAMES, st.integers(0, 1 << 40), NAMES)
def test_an_image_travels_with_its_name_whatever_it_is(job: int, key: str, size_bytes: int, etag: str) -> None:
    for of_video in (None, VideoFrame(3, -40, -(1 << 62), 1 << 62)):
        entry = Entry(key, size_bytes, etag, frame=of_video)
        assert unpacked_image(packed_image(job, entry)) == (job, entry)


def test_what_does_not_fit_into_a_pipe_at_once_is_written_all_the_same() -> None:
    reading, writing = os.pipe()
    data = os.urandom(1 << 20)
    writer = threading.Thread(target=write_all, args=(writing, data))
    writer.start()
    read = bytearray()
    while len(read) < len(data):
        read += os.read(reading, 1 << 16)
    writer.join()
    os.close(reading)
    os.close(writing)
    assert bytes(read) == data
