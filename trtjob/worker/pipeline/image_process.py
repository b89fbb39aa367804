"""One image process: `python -m trtjob.worker.pipeline.image_process`, started by an engine process and by nobody else.

It knows neither Redis nor the engine. One thread reads, hashes, decodes and resizes an image into a slot of the ring;
when the engine's answer lies there, it suppresses, draws, encodes and writes, and hands back the record's line. Only
requests to a bucket wait beside each other. The end of standard input ends it, however the engine process dies.
"""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from trtjob.errors import FailureKind, ImageError, PlaceError, StorageError, TrtjobError
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.records import Record, to_line
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec
from trtjob.logs import bind_process, configure_logging
from trtjob.storage import troubles
from trtjob.worker.pipeline.child_config import FAILURES, ChildConfig
from trtjob.worker.pipeline.in_hand import Budget, Image, Job
from trtjob.worker.pipeline.ring import Ring
from trtjob.worker.pipeline.stages import Prepared, Stages, as_image_error, failure_record, write_failure
from trtjob.worker.pipeline.wire import (
    READ_BYTES,
    Frame,
    FrameReader,
    Kind,
    frame,
    packed_bytes,
    packed_file,
    unpacked_bytes,
    unpacked_image,
    write_all,
)


class _Left(Exception):
    """The job was left while one of its images waited for a place."""


class ImageProcess:
    """All that one image process does."""

    def __init__(self, config: ChildConfig, ring: Ring, commands: int, answers: int, reader: FrameReader) -> None:
        """commands, answers: the pipes from and to the engine process; reader: of commands."""
        self.config = config
        self.ring = ring
        self.board = ring.boards[config.number]
        self._commands = commands
        self._answers = answers
        self._reader = reader
        self._news = asyncio.Event()
        self._is_over = False
        self._jobs: dict[int, Job] = {}
        self._images: dict[int, Image] = {}  # by slot: all that is in hand
        self._to_fetch: deque[Image] = deque()
        self._to_prepare: deque[Image] = deque()
        self._answered: deque[tuple[Image, ImageError | None]] = deque()
        self._fetching = 0
        self._budget = Budget(config.memory_bytes, config.max_pixels)
        self._trouble = ""

    async def run(self, told: Iterable[Frame]) -> None:
        """Work until the engine process is gone. told: what it has said already."""
        loop = asyncio.get_running_loop()
        for command in told:
            self._obey(command)
        os.set_blocking(self._commands, False)
        loop.add_reader(self._commands, self._news.set)
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
        self._is_over = not data
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
                self._take(Image(told.number, self._jobs[number], entry))
        elif told.kind == Kind.PING:
            self._say(Kind.READY, self.config.number)
        elif (image := self._images.get(told.number)) is not None:  # else it was dropped with its job meanwhile
            if told.kind == Kind.GRANT:
                image.granted_bytes = unpacked_bytes(told.payload)
                self._line_of(image).appendleft(image)
            elif told.kind == Kind.DECODE:
                self._prepare_here(image)
            else:
                why = told.payload.decode() if told.kind == Kind.FAILED else None
                failure = None if why is None else ImageError(FailureKind.INFER, why)
                self._answered.append((image, failure))

    def _open(self, number: int, document: dict[str, Any]) -> None:
        try:
            self._jobs[number] = self._opened(number, JobSpec.model_validate(document))
        except TrtjobError as err:
            self._say_ended(number, err)

    def _opened(self, number: int, spec: JobSpec) -> Job:
        def on_trouble(_trouble: str) -> None:  # by any thread
            self.board.step()
            loop.call_soon_threadsafe(self._tell_trouble)
            if job.is_left:
                raise _Left

        loop = asyncio.get_running_loop()
        job = Job(
            number,
            Stages(
                spec,
                self.config.model,
                JobFolder.of(spec, on_trouble).storage,
                max_pixels=self.config.max_pixels,
                jpeg_quality=self.config.jpeg_quality,
                source=open_source(spec.source, on_trouble=on_trouble, allow_local=self.config.allow_local),
                watch=self.board,
                on_step=self.board.step,
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
        job.stages.close()
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

    def _take(self, image: Image) -> None:
        self._images[image.slot] = image
        if image.job.has_ended:
            self._drop(image)
        else:
            self._line_of(image).append(image)

    def _line_of(self, image: Image) -> "deque[Image]":
        """Return where an image waits: to be fetched, or to be prepared."""
        stages = image.job.stages
        is_fetched = stages.source.is_remote and image.data is None and not stages.is_of_video(image.entry)
        return self._to_fetch if is_fetched else self._to_prepare

    def _drop(self, image: Image) -> None:
        self._budget.hold(image)
        self._images.pop(image.slot, None)

    def _may_go_on(self, image: Image, needed_bytes: int) -> bool:
        """Whether an image is small enough, or the engine process lets it be large, for which it is asked now."""
        if needed_bytes <= image.granted_bytes or not self._budget.is_large(needed_bytes):
            return True
        self._line_of(image).popleft()
        self._say(Kind.LARGE, image.slot, packed_bytes(needed_bytes))
        return False

    def _fetch_more(self) -> None:
        while self._to_fetch and self._fetching < self.config.requests:
            image = self._to_fetch[0]
            size_bytes = image.entry.size_bytes
            if not self._may_go_on(image, size_bytes):
                continue
            if not (image.granted_bytes or self._budget.has_room_for_file(size_bytes)):
                return
            self._to_fetch.popleft()
            self._budget.hold(image, file_bytes=size_bytes)
            self._fetching += 1
            self._begin(image.job, self._fetch(image))

    def _begin(self, job: Job, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        job.tasks.add(task)
        task.add_done_callback(job.tasks.discard)

    async def _fetch(self, image: Image) -> None:
        try:
            with self.board.beside("fetch"):
                image.data = await image.job.stages.afetch(image.entry)
        except Exception as err:  # noqa: BLE001 - it is the image's or the place's
            self._fail(image, err)
        else:
            self._to_prepare.append(image)
        finally:
            self._fetching -= 1
            self._tell_trouble()
            self._news.set()

    def _next_to_prepare(self) -> Image | None:
        """Return the first image, once the file is read and there is room for its pixels."""
        while self._to_prepare:
            image = self._to_prepare[0]
            needed_bytes = self._needed_bytes(image)
            if needed_bytes is None or not self._may_go_on(image, max(needed_bytes, image.file_bytes)):
                continue
            if not (image.granted_bytes or self._budget.has_room_for_pixels(needed_bytes)):
                return None
            return self._to_prepare.popleft()
        return None

    def _needed_bytes(self, image: Image) -> int | None:
        """Read the first image that waits. Returns what it takes to decode it; None where it must wait, or cannot be
        read, which is its record.
        """
        stages = image.job.stages
        is_file = not stages.is_of_video(image.entry)
        if is_file and image.data is None and not self._may_go_on(image, image.entry.size_bytes):
            return None
        with self.board.working(image.slot):
            try:
                if not is_file:
                    return stages.frame_decoding_bytes(image.entry)
                if image.data is None:
                    image.data = stages.read(image.entry)
                    self._budget.hold(image, file_bytes=len(image.data))
            except Exception as err:  # noqa: BLE001 - as above
                self._to_prepare.popleft()
                self._fail(image, err)
                return None
        return self._budget.decoding_bytes(image.data, stages.page_of(image.entry))

    def _prepare(self, image: Image) -> None:
        data, image.data = image.data, None
        stages, tensor = image.job.stages, self.ring.tensors[image.slot]
        with self.board.working(image.slot):
            try:
                if data is None:
                    image.item = stages.prepare_frame(image.entry, tensor)
                else:
                    file = None if image.is_for_cpu else self.ring.files[image.slot]
                    image.item = stages.prepare(image.entry, data, tensor, file)
            except Exception as err:  # noqa: BLE001 - as above
                self._fail(image, err)
                return
        self._budget.hold_pixels(image)
        self._say(Kind.PREPARED, image.slot, _file_of(image.item))

    def _prepare_here(self, image: Image) -> None:
        """Prepare an image whose file lies in its slot, where the GPU has not decoded it."""
        item, image.item = image.item, None
        assert item is not None
        assert item.file is not None
        image.data, image.is_for_cpu = item.file.tobytes(), True
        self._budget.hold(image, file_bytes=len(image.data))
        self._to_prepare.append(image)

    def _finish(self, image: Image, failure: ImageError | None) -> None:
        item = image.item
        assert item is not None
        if failure is not None:
            self._fail(image, failure, item.sha256)
            return
        with self.board.working(image.slot):
            try:
                record = image.job.stages.finish(item, self.ring.answers[image.slot])
            except Exception as err:  # noqa: BLE001 - as above
                self._fail(image, err, item.sha256)
                return
        if item.annotated is None:
            self._record(image, record)
            return
        self._budget.hold(image, pixel_bytes=len(item.annotated[1]))
        self._begin(image.job, self._store(image, record, *item.annotated))

    async def _store(self, image: Image, record: Record, key: str, data: bytes) -> None:
        try:
            with self.board.beside("store"):
                await image.job.stages.output.aput(key, data)
        except OSError as err:
            self._fail(image, write_failure(err), record.sha256)
        except Exception as err:  # noqa: BLE001 - as above
            self._fail(image, err, record.sha256)
        else:
            self._record(image, record)
        finally:
            self._tell_trouble()
            self._news.set()

    def _fail(self, image: Image, err: Exception, sha256: str | None = None) -> None:
        """Say what an error means: for the whole job where it is its place's, else for this image alone."""
        if isinstance(err, StorageError):
            self._end(image.job, err)
        elif not isinstance(err, _Left):
            self._record(image, failure_record(image.entry.key, as_image_error(err, sha256)))

    def _record(self, image: Image, record: Record) -> None:
        self._drop(image)
        flag = 0 if record.error is None else 1 + FAILURES.index(record.error.kind)
        self._say(Kind.RECORD, image.slot, to_line(record), flag)

    def _end(self, job: Job, err: StorageError) -> None:
        """Say that a job cannot go on; it will be left."""
        if not job.has_ended:
            job.has_ended = True
            self._say_ended(job.number, err)

    def _say_ended(self, number: int, err: TrtjobError) -> None:
        self._say(Kind.ENDED, number, str(err).encode(), flag=isinstance(err, PlaceError))


def _file_of(item: Prepared) -> bytes:
    """Return what to say of a file that the GPU is to decode, nothing where there is none."""
    return b"" if item.file is None or item.resampling is None else packed_file(len(item.file), item.resampling)


def _die_first() -> None:
    """Be what the kernel ends when memory runs out, not the engine process: one image is done again, not a shard."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main() -> int:
    """Work until the engine process closes the pipe."""
    # Ctrl-C, and a service manager's SIGTERM for all processes, are for the engine process: it ends this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answers = int(sys.argv[1])
    reader = FrameReader()
    told: list[Frame] = []
    while not told:
        if not (data := os.read(0, READ_BYTES)):
            return 0
        told += reader.frames(data)
    config = ChildConfig.parse(told.pop(0).payload)
    configure_logging(config.log_level, config.log_format)
    bind_process(image_process=config.number)
    _die_first()
    cv2.setNumThreads(1)
    write_all(answers, frame(Kind.READY, config.number))
    process = ImageProcess(config, Ring(config.layout, config.fd), 0, answers, reader)
    with suppress(BrokenPipeError):  # the engine process is gone
        asyncio.run(process.run(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
