"""One image process: `python -m trtjob.worker.pipeline.image_process`, started by an engine process and by nobody else.

It knows neither Redis nor the engine. One thread reads, hashes, decodes and resizes an image into a slot of the ring;
when the engine's answer lies there, it suppresses, draws, encodes and writes, and hands back the record's line. Only
requests to a bucket wait beside each other. The end of standard input ends it, however the engine process dies.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from trtjob.errors import FailureKind, ImageError, StorageError, TrtjobError
from trtjob.imaging.headers import probe_size
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.listing import Entry
from trtjob.jobs.models import JobSpec
from trtjob.jobs.records import Record, to_line
from trtjob.jobs.storage import open_storage, troubles
from trtjob.logs import bind_process, configure_logging
from trtjob.worker.pipeline.order import FAILURES, Order
from trtjob.worker.pipeline.ring import Ring
from trtjob.worker.pipeline.stages import Prepared, Stages, failure_record, write_failure
from trtjob.worker.pipeline.wire import READ_BYTES, Frame, FrameReader, Kind, frame, unpacked_image, write_all

log = logging.getLogger(__name__)

_CHANNELS = 3
# While it is decoded an image lies in memory twice: turned as its orientation says, or with more bits than are kept.
_DECODING = 2


class _Left(Exception):
    """The job was left while one of its images waited for a place."""


@dataclass(slots=True)
class _Job:
    number: int
    stages: Stages
    is_left: bool = False
    has_ended: bool = False  # the engine process knows: nothing more of it is to be done
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)


@dataclass(slots=True)
class _Image:
    """An image in hand. data: the file's bytes, once they are read; item: what is kept until the answer comes;
    held_bytes: what it takes of the budget; may_be_large: the engine process has said so."""

    slot: int
    job: _Job
    entry: Entry
    data: bytes | None = None
    item: Prepared | None = None
    held_bytes: int = 0
    may_be_large: bool = False


class ImageProcess:
    """All that one image process does."""

    def __init__(self, order: Order, ring: Ring, commands: int, answers: int, reader: FrameReader) -> None:
        """commands, answers: the pipes from and to the engine process; reader: of commands."""
        self.order = order
        self.ring = ring
        self.board = ring.boards[order.number]
        self._commands = commands
        self._answers = answers
        self._reader = reader
        self._news = asyncio.Event()
        self._is_over = False
        self._jobs: dict[int, _Job] = {}
        self._images: dict[int, _Image] = {}  # by slot: all that is in hand
        self._to_fetch: deque[_Image] = deque()
        self._to_prepare: deque[_Image] = deque()
        self._answered: deque[tuple[_Image, ImageError | None]] = deque()
        self._fetching = 0
        self._held_bytes = 0
        self._trouble = ""

    async def run(self, told: Iterable[Frame]) -> None:
        """Work until the engine process is gone. told: what it has said already."""
        loop = asyncio.get_running_loop()
        for command in told:
            self._obey(command)
        os.set_blocking(self._commands, False)
        loop.add_reader(self._commands, self._hear)
        try:
            while not self._is_over:
                if not self._turn():
                    self._news.clear()
                    await self._news.wait()
                elif self._to_fetch or self._fetching or any(job.tasks for job in self._jobs.values()):
                    await asyncio.sleep(0)  # for those that wait for a bucket
        finally:
            loop.remove_reader(self._commands)

    def _turn(self) -> bool:
        """Do one step of one image, those first that are nearest to their end. Returns False where there is none."""
        self._hear()
        self._fetch_more()
        if self._answered:
            self._finish(*self._answered.popleft())
            return True
        image = self._next_to_prepare()
        if image is not None:
            self._prepare(image)
        return image is not None

    # -- what the engine process says -----------------------------------------------------------------------------

    def _hear(self) -> None:
        try:
            data = os.read(self._commands, READ_BYTES)
        except BlockingIOError:
            return
        self._news.set()
        if not data:
            self._is_over = True
        for told in self._reader.frames(data):
            self._obey(told)

    def _obey(self, told: Frame) -> None:
        if told.kind == Kind.JOB:
            self._open(told.number, json.loads(told.payload))
        elif told.kind == Kind.LEAVE:
            self._leave(told.number)
        elif told.kind == Kind.IMAGE:
            number, entry = unpacked_image(told.payload)
            if number in self._jobs:
                self._take(_Image(told.number, self._jobs[number], entry))
        else:
            image = self._images[told.number]
            if told.kind == Kind.GRANT:
                image.may_be_large = True
                self._to_prepare.appendleft(image)
            else:
                why = told.payload.decode() if told.kind == Kind.FAILED else None
                failure = None if why is None else ImageError(FailureKind.INFER, why)
                self._answered.append((image, failure))

    def _open(self, number: int, document: dict[str, Any]) -> None:
        try:
            self._jobs[number] = self._opened(number, JobSpec.model_validate(document))
        except TrtjobError as err:
            self._say(Kind.ENDED, number, str(err).encode())

    def _opened(self, number: int, spec: JobSpec) -> _Job:
        def on_trouble(_trouble: str) -> None:  # by any thread
            self.board.step()
            loop.call_soon_threadsafe(self._tell_trouble)
            if job.is_left:
                raise _Left

        loop = asyncio.get_running_loop()
        job = _Job(
            number,
            Stages(
                spec,
                self.order.model,
                JobFolder.of(spec, on_trouble).storage,
                max_pixels=self.order.max_pixels,
                jpeg_quality=self.order.jpeg_quality,
                source=open_storage(spec.source.root, on_trouble=on_trouble),
                watch=self.board,
            ),
        )
        return job

    def _leave(self, number: int) -> None:
        """Drop all of a job."""
        job = self._jobs.pop(number, None)
        if job is None:
            self._say(Kind.LEFT, number)
            return
        job.is_left = True
        for task in job.tasks:
            task.cancel()
        for waiting in (self._to_fetch, self._to_prepare):
            kept = [image for image in waiting if image.job is not job]
            waiting.clear()
            waiting.extend(kept)
        self._answered = deque(pair for pair in self._answered if pair[0].job is not job)
        for image in [image for image in self._images.values() if image.job is job]:
            self._drop(image)
        if job.tasks:
            asyncio.gather(*job.tasks, return_exceptions=True).add_done_callback(
                lambda _done: self._say(Kind.LEFT, number)
            )
        else:
            self._say(Kind.LEFT, number)

    def _say(self, kind: Kind, number: int, payload: bytes = b"", flag: int = 0) -> None:
        write_all(self._answers, frame(kind, number, payload, flag))

    def _tell_trouble(self) -> None:
        if (trouble := troubles()) != self._trouble:
            self._trouble = trouble
            self._say(Kind.TROUBLE, 0, trouble.encode())

    # -- one image's way ------------------------------------------------------------------------------------------

    def _take(self, image: _Image) -> None:
        self._images[image.slot] = image
        if image.job.has_ended:
            self._drop(image)
        elif image.job.stages.source.is_remote:
            self._to_fetch.append(image)
        else:
            self._to_prepare.append(image)

    def _hold(self, image: _Image, held_bytes: int) -> None:
        self._held_bytes += held_bytes - image.held_bytes
        image.held_bytes = held_bytes

    def _drop(self, image: _Image) -> None:
        self._hold(image, 0)
        self._images.pop(image.slot, None)

    def _fits(self, more_bytes: int) -> bool:
        """Whether so much more may be held; of what is held the answers are on their way."""
        return not self._held_bytes or self._held_bytes + more_bytes <= self.order.memory_bytes

    def _fetch_more(self) -> None:
        while (
            self._to_fetch and self._fetching < self.order.requests and self._fits(self._to_fetch[0].entry.size_bytes)
        ):
            image = self._to_fetch.popleft()
            self._hold(image, image.entry.size_bytes)
            self._fetching += 1
            self._begin(image.job, self._fetch(image))

    def _begin(self, job: _Job, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    async def _fetch(self, image: _Image) -> None:
        try:
            with self.board.beside("fetch"):
                image.data = await image.job.stages.source.afetch(image.entry)
        except ImageError as err:
            self._record(image, failure_record(image.entry.key, err))
        except StorageError as err:
            self._end(image.job, err)
        except _Left:
            pass
        else:
            self._to_prepare.append(image)
        finally:
            self._fetching -= 1
            self._tell_trouble()
            self._news.set()

    def _next_to_prepare(self) -> _Image | None:
        """Return the first image, once the file is read and there is room for its pixels."""
        while self._to_prepare:
            image = self._to_prepare[0]
            if image.data is None and not self._has_read(image):
                continue
            assert image.data is not None
            width, height = probe_size(image.data) or (0, 0)
            pixels = width * height if width * height <= self.order.max_pixels else 0
            needed = len(image.data) + _DECODING * _CHANNELS * pixels
            if needed > self.order.memory_bytes and not image.may_be_large:
                self._to_prepare.popleft()
                self._say(Kind.LARGE, image.slot)
                continue
            if not image.may_be_large and not self._fits(needed - image.held_bytes):
                return None
            return self._to_prepare.popleft()
        return None

    def _has_read(self, image: _Image) -> bool:
        """Read a file. Where it cannot be had, that is its record."""
        with self.board.working(image.slot):
            try:
                image.data = image.job.stages.read(image.entry)
            except ImageError as err:
                self._to_prepare.popleft()
                self._record(image, failure_record(image.entry.key, err))
                return False
            except StorageError as err:
                self._to_prepare.popleft()
                self._end(image.job, err)
                return False
        self._hold(image, len(image.data))
        return True

    def _prepare(self, image: _Image) -> None:
        data, image.data = image.data, None
        assert data is not None
        with self.board.working(image.slot):
            try:
                image.item = image.job.stages.prepare(image.entry, data, self.ring.tensors[image.slot])
            except Exception as err:  # noqa: BLE001 - whatever it is, it is this image's
                self._record(image, failure_record(image.entry.key, _as_image_error(err)))
                return
        height, width = image.item.hw
        self._hold(image, _CHANNELS * height * width if image.item.image is not None else 0)
        self._say(Kind.PREPARED, image.slot)

    def _finish(self, image: _Image, failure: ImageError | None) -> None:
        item, key = image.item, image.entry.key
        assert item is not None
        if failure is not None:
            failure.sha256 = item.sha256
            self._record(image, failure_record(key, failure))
            return
        with self.board.working(image.slot):
            try:
                record = image.job.stages.finish(item, self.ring.answers[image.slot])
            except StorageError as err:
                self._end(image.job, err)
                return
            except Exception as err:  # noqa: BLE001 - as above
                record = failure_record(key, _as_image_error(err, item.sha256))
        if item.annotated is None:
            self._record(image, record)
            return
        self._hold(image, len(item.annotated[1]))
        self._begin(image.job, self._store(image, record, *item.annotated))

    async def _store(self, image: _Image, record: Record, key: str, data: bytes) -> None:
        try:
            with self.board.beside("store"):
                await image.job.stages.output.aput(key, data)
        except OSError as err:
            failure = write_failure(err)
            failure.sha256 = record.sha256
            self._record(image, failure_record(record.image, failure))
        except ImageError as err:
            err.sha256 = record.sha256
            self._record(image, failure_record(record.image, err))
        except StorageError as err:
            self._end(image.job, err)
        except _Left:
            pass
        else:
            self._record(image, record)
        finally:
            self._tell_trouble()
            self._news.set()

    def _record(self, image: _Image, record: Record) -> None:
        self._drop(image)
        flag = 0 if record.error is None else 1 + FAILURES.index(record.error.kind)
        self._say(Kind.RECORD, image.slot, to_line(record), flag)

    def _end(self, job: _Job, err: StorageError) -> None:
        """Say that a job cannot go on; it will be left."""
        if not job.has_ended:
            job.has_ended = True
            self._say(Kind.ENDED, job.number, str(err).encode())


def _as_image_error(err: Exception, sha256: str | None = None) -> ImageError:
    """Return what happened to one image: the others go on, whatever it is."""
    if isinstance(err, ImageError):
        err.sha256 = err.sha256 or sha256
        return err
    if isinstance(err, MemoryError):
        return ImageError(FailureKind.DECODE, "there was not enough memory for the image", sha256)
    log.error("unexpected error", exc_info=err)
    return ImageError(
        FailureKind.CRASHED,
        f"unexpected {type(err).__name__}: {err}. This is a mistake in trtjob; the worker's log says where",
        sha256,
    )


def _die_first() -> None:
    """Be what the kernel ends when memory runs out, not the engine process: one image is done again, not a shard."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main() -> int:
    """Work until the engine process closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started the engine process
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints
    reader = FrameReader()
    told: list[Frame] = []
    while not told:
        if not (data := os.read(0, READ_BYTES)):
            return 0
        told += reader.frames(data)
    order = Order.parse(told.pop(0).payload)
    configure_logging(order.log_level, order.log_format)
    bind_process(image_process=order.number)
    _die_first()
    cv2.setNumThreads(1)
    process = ImageProcess(order, Ring(order.layout, order.fd), 0, answers, reader)
    with suppress(BrokenPipeError):  # the engine process is gone
        asyncio.run(process.run(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
