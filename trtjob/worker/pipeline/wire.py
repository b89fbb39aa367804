"""What an engine process and its image processes say to each other: frames on pipes that have one writer each.

A frame is a head of fixed size and a payload. Whoever dies leaves at most one frame that is not whole, which nobody
reads, and holds no lock: there is none.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from typing import NamedTuple

from trtjob.errors import FailureKind
from trtjob.storage.listing import Entry
from trtjob.storage.listing import Frame as VideoFrame

_HEAD = struct.Struct("<BBxxiI")  # kind, flag, number, bytes of the payload
_IMAGE = struct.Struct("<iqqqqqqqH")  # job, size in bytes, the frame, bytes of the etag; then the etag and the key
_NO_FRAME = VideoFrame(-1, 0, 0, 0)
_BYTES = struct.Struct("<Q")
_FAILURES = tuple(FailureKind)
_PIPE_BYTES = 1 << 20  # what Linux allows everyone
READ_BYTES = 1 << 16  # for four times as many, the C library maps new memory at each call: 14 us in place of 1


class Kind(IntEnum):
    """What a frame means; `number` is a slot's unless said otherwise.

    To an image process:
    START: the first; payload: a ChildConfig, JSON.
    JOB: number of a job; payload: what it is, JSON.
    IMAGE: prepare this image; payload: `packed_image`.
    ANSWER: the engine's answer lies in the slot: finish the image.
    DECODE: the GPU cannot decode the file in the slot: prepare the image without it.
    FAILED: the engine could not run the image; payload: why.
    GRANT: the image, which is larger than the budget, may take so much memory; payload: `packed_bytes`.
    LEAVE: number of a job; drop what is in hand of it, and forget it.
    PING: say that you are READY.

    From an image process:
    READY: it has begun, or has heard a PING.
    PREPARED: the slot holds the network's input; flag: 1 where it holds a file instead, and the ring tells which.
    RECORD: the image is done; flag: `failure_flag`; payload: the record's line.
    LARGE: the image needs more memory than the budget, and waits for a GRANT; payload: `packed_bytes`.
    LEFT: number of a job; nothing of it is in hand any more.
    ENDED: number of a job, which cannot go on for any image; payload: why; flag: 1 where a place is away, which another
    node may reach.
    TROUBLE: payload: which place is failing, empty: none any more.
    """

    START = 0
    JOB = 1
    IMAGE = 2
    ANSWER = 3
    FAILED = 4
    GRANT = 5
    LEAVE = 6
    PING = 7
    DECODE = 8
    PREPARED = 16
    RECORD = 17
    LARGE = 18
    LEFT = 19
    ENDED = 20
    TROUBLE = 21
    READY = 22


class Frame(NamedTuple):
    """One message; what `flag`, `number` and the payload mean depends on its `Kind`."""

    kind: int
    flag: int
    number: int
    payload: bytes


def frame(kind: Kind, number: int, payload: bytes = b"", flag: int = 0) -> bytes:
    """Return a frame's bytes."""
    return _HEAD.pack(kind, flag, number, len(payload)) + payload


def packed_image(job: int, entry: Entry) -> bytes:
    """Return the payload of an IMAGE. A name that is no UTF-8 keeps its bytes."""
    etag, key = entry.etag.encode("utf-8", "surrogateescape"), entry.key.encode("utf-8", "surrogateescape")
    return _IMAGE.pack(job, entry.size_bytes, *(entry.frame or _NO_FRAME), len(etag)) + etag + key


def unpacked_image(payload: bytes) -> tuple[int, Entry]:
    """Return the job and the entry of an IMAGE."""
    job, size, *numbers, etag_bytes = _IMAGE.unpack_from(payload)
    of_video = VideoFrame(*numbers)
    at = _IMAGE.size
    etag, key = payload[at : at + etag_bytes], payload[at + etag_bytes :]
    key_text, etag_text = (text.decode("utf-8", "surrogateescape") for text in (key, etag))
    return job, Entry(key_text, size, etag_text, frame=None if of_video == _NO_FRAME else of_video)


def packed_bytes(count: int) -> bytes:
    """Return the payload that tells a number of bytes."""
    return _BYTES.pack(count)


def unpacked_bytes(payload: bytes) -> int:
    """Return what `packed_bytes` wrote."""
    return int(_BYTES.unpack(payload)[0])


def failure_flag(failure: FailureKind | None) -> int:
    """Return the flag of a RECORD: why its image has failed, None where it has not."""
    return 0 if failure is None else 1 + _FAILURES.index(failure)


def failure_of(flag: int) -> FailureKind | None:
    """Return what `failure_flag` told."""
    return _FAILURES[flag - 1] if flag else None


class FrameReader:
    """Frames out of whatever pieces a pipe gives."""

    def __init__(self) -> None:
        self._rest = b""

    def frames(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are whole with this piece."""
        data, at = self._rest + data, 0
        while at + _HEAD.size <= len(data):
            kind, flag, number, length = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            if end > len(data):
                break
            yield Frame(kind, flag, number, data[at + _HEAD.size : end])
            at = end
        self._rest = data[at:]


def widen(pipe: int) -> None:
    """Let a pipe hold as much as may be: then neither side waits for the other's next turn."""
    with suppress(OSError, AttributeError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def write_all(pipe: int, data: bytes) -> None:
    """Write everything, waiting where the pipe is full."""
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]
