"""The images that an image process has in hand, by what they wait for."""

from collections import deque
from collections.abc import Callable

from trtjob.errors import ImageError
from trtjob.worker.pipeline.in_hand import Budget, Image, Job
from trtjob.worker.pipeline.reply_writer import ReplyWriter
from trtjob.worker.pipeline.wire import Kind, packed_bytes


class WaitingImages:
    """The images in hand, in lines by what they wait for.

    images: all of them, by slot; to_fetch, to_prepare: those that wait for a bucket's answer, and to be decoded;
    answered: those that wait to be finished, with why the engine could not run them, None where it has.
    """

    def __init__(self, budget: Budget, replies: ReplyWriter) -> None:
        self.images: dict[int, Image] = {}
        self.to_fetch: deque[Image] = deque()
        self.to_prepare: deque[Image] = deque()
        self.answered: deque[tuple[Image, ImageError | None]] = deque()
        self._budget = budget
        self._replies = replies

    def take(self, image: Image) -> None:
        """Have a new image wait for what comes first."""
        self.images[image.slot] = image
        if image.job.has_ended:
            self.drop(image)
        else:
            self._line_of(image).append(image)

    def grant(self, image: Image, granted_bytes: int) -> None:
        """Let a large image go on, before all others."""
        image.granted_bytes = granted_bytes
        self._line_of(image).appendleft(image)

    def _line_of(self, image: Image) -> "deque[Image]":
        stages = image.job.stages
        is_fetched = stages.source.is_remote and image.data is None and not stages.is_of_video(image.entry)
        return self.to_fetch if is_fetched else self.to_prepare

    def drop(self, image: Image) -> None:
        """Give back what an image takes, which waits for nothing any more."""
        self._budget.hold(image)
        self.images.pop(image.slot, None)

    def leave(self, job: Job) -> None:
        """Drop all images of a job."""
        for line in (self.to_fetch, self.to_prepare):
            kept = [image for image in line if image.job is not job]
            line.clear()
            line.extend(kept)
        self.answered = deque(pair for pair in self.answered if pair[0].job is not job)
        for image in [image for image in self.images.values() if image.job is job]:
            self.drop(image)

    def may_go_on(self, image: Image, needed_bytes: int) -> bool:
        """Whether the first in its line is small enough, or may be large: else the engine process is asked for that."""
        if needed_bytes <= image.granted_bytes or not self._budget.is_large(needed_bytes):
            return True
        self._line_of(image).popleft()
        self._replies.write(Kind.LARGE, image.slot, packed_bytes(needed_bytes))
        return False

    def next_to_fetch(self) -> Image | None:
        """Return the first image that is to be fetched, once there is room for its file, which it has from now on."""
        while self.to_fetch:
            image = self.to_fetch[0]
            size_bytes = image.entry.size_bytes
            if not self.may_go_on(image, size_bytes):
                continue
            if not (image.granted_bytes or self._budget.has_room_for_file(size_bytes)):
                return None
            self._budget.hold(image, file_bytes=size_bytes)
            return self.to_fetch.popleft()
        return None

    def next_to_prepare(self, needed_bytes_of: Callable[[Image], int | None]) -> Image | None:
        """Return the first image that is to be prepared, once there is room for its pixels.

        needed_bytes_of: reads its file and returns what it takes to decode that; None where the image left its line.
        """
        while self.to_prepare:
            image = self.to_prepare[0]
            needed_bytes = needed_bytes_of(image)
            if needed_bytes is None or not self.may_go_on(image, max(needed_bytes, image.file_bytes)):
                continue
            if not (image.granted_bytes or self._budget.has_room_for_pixels(needed_bytes)):
                return None
            return self.to_prepare.popleft()
        return None
