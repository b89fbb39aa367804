"""What an image process has in hand, and how much memory that may take."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from trtjob.imaging.decode import decoding_bytes
from trtjob.imaging.headers import probe_size
from trtjob.storage.listing import Entry
from trtjob.worker.pipeline.copies import Prepared
from trtjob.worker.pipeline.stages import Stages


@dataclass(slots=True)
class Job:
    """A job whose images are in hand.

    document: its specification; has_ended: it cannot go on, and the engine process knows; tasks: what waits for a
    bucket, for its images.
    """

    number: int
    document: dict[str, Any]
    stages: Stages
    has_ended: bool = False
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


@dataclass(slots=True)
class Image:
    """An image in hand. data: the file's bytes, from when they are read until they are decoded; item: what is kept
    until the answer comes; granted_bytes: what it may take though it is large; is_for_cpu: the GPU cannot decode it."""

    slot: int
    job: Job
    entry: Entry
    data: bytes | None = None
    item: Prepared | None = None
    granted_bytes: int = 0
    is_for_cpu: bool = False
    file_bytes: int = 0
    pixel_bytes: int = 0


class Budget:
    """A process's memory: one half for files that are not decoded yet, one for pixels, and for copies on their way out.

    An image that needs more than a half is large: the engine process says when it may have that.
    """

    def __init__(self, memory_bytes: int, max_pixels: int) -> None:
        self._half = memory_bytes // 2
        self._max_pixels = max_pixels
        self._files = self._pixels = 0

    def is_large(self, needed_bytes: int) -> bool:
        """Whether an image needs more than a half."""
        return needed_bytes > self._half

    def decoding_bytes(self, data: bytes, page: int | None = None) -> int:
        """Return what it takes to decode a file, or a page of it, by its header."""
        width, height = probe_size(data, page) or (0, 0)
        return decoding_bytes(data, page) * width * height if width * height <= self._max_pixels else 0

    def has_room_for_file(self, size_bytes: int) -> bool:
        """Whether a file of this size may be held now: one may always."""
        return not self._files or self._files + size_bytes <= self._half

    def has_room_for_pixels(self, size_bytes: int) -> bool:
        """Whether so much may be decoded now. What holds the pixels waits for its answer, so there will be room."""
        return not self._pixels or self._pixels + size_bytes <= self._half

    def hold(self, image: Image, *, file_bytes: int = 0, pixel_bytes: int = 0) -> None:
        """Note what an image takes from now on."""
        self._files += file_bytes - image.file_bytes
        self._pixels += pixel_bytes - image.pixel_bytes
        image.file_bytes, image.pixel_bytes = file_bytes, pixel_bytes

    def hold_pixels(self, image: Image) -> None:
        """Note that an image is decoded, and kept where it is to be drawn on."""
        assert image.item is not None
        kept = image.item.image
        self.hold(image, pixel_bytes=0 if kept is None else kept.nbytes)
