"""The image processes: `python -m trtjob.worker.pipeline.image_process`, started by an engine process and by nobody
else, imports what they need, and each is a fork of it.

One knows neither Redis nor the engine. One thread reads, hashes, decodes and resizes an image into a slot of the ring;
when the engine's answer lies there, it suppresses, draws, encodes and writes, and hands back the record's line. Only
requests to a bucket wait beside each other. The end of its commands ends it, however the engine process dies.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2

from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.jobs.records import Record, to_line
from trtjob.logs import bind_process, configure_logging
from trtjob.worker.pipeline.child_config import ChildConfig
from trtjob.worker.pipeline.failures import as_image_error, failure_record, write_failure
from trtjob.worker.pipeline.fork_server import forked_processes
from trtjob.worker.pipeline.in_hand import Budget, Image, Job
from trtjob.worker.pipeline.open_jobs import JobLeftError, OpenJobs
from trtjob.worker.pipeline.reply_writer import ReplyWriter
from trtjob.worker.pipeline.ring import Ring
from trtjob.worker.pipeline.waiting_images import WaitingImages
from trtjob.worker.pipeline.wire import (
    READ_BYTES,
    Frame,
    FrameReader,
    Kind,
    failure_flag,
    frame,
    unpacked_bytes,
    unpacked_image,
    write_all,
)


class ImageProcess:
    """All that one image process does."""

    def __init__(self, config: ChildConfig, ring: Ring, commands: int, answers: int, reader: FrameReader) -> None:
        """commands, answers: the pipes from and to the engine process; reader: of commands."""
        self.config = config
        self.ring = ring
        self.board = ring.boards[config.number]
        self._commands = commands
        self._reader = reader
        self._news = asyncio.Event()
        self._is_over = False
        self._replies = ReplyWriter(answers)
        self._jobs = OpenJobs(config, self.board, self._replies)
        self._budget = Budget(config.memory_bytes, config.max_pixels)
        self._waiting = WaitingImages(self._budget, self._replies)
        self._fetching = 0

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
                elif self._waiting.to_fetch or self._fetching or self._jobs.are_waiting:
                    await asyncio.sleep(0)  # for those that wait for a bucket
        finally:
            loop.remove_reader(self._commands)

    def _turn(self) -> bool:
        """Do one step of one image, those first that are nearest to their end. Returns False where there is none."""
        self._hear()
        self._fetch_more()
        if self._waiting.answered:
            self._finish(*self._waiting.answered.popleft())
            return True
        image = self._waiting.next_to_prepare(self._needed_bytes)
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
            self._jobs.open(told.number, json.loads(told.payload))
        elif told.kind == Kind.LEAVE:
            self._leave(told.number)
        elif told.kind == Kind.IMAGE:
            number, entry = unpacked_image(told.payload)
            if (job := self._jobs.get(number)) is not None:
                self._waiting.take(Image(told.number, job, entry))
        elif told.kind == Kind.PING:
            self._replies.write(Kind.READY, self.config.number)
        elif (image := self._waiting.images.get(told.number)) is not None:  # else it was dropped with its job meanwhile
            if told.kind == Kind.GRANT:
                self._waiting.grant(image, unpacked_bytes(told.payload))
            elif told.kind == Kind.DECODE:
                self._prepare_here(image)
            else:
                why = told.payload.decode() if told.kind == Kind.FAILED else None
                failure = None if why is None else ImageError(FailureKind.INFER, why)
                self._waiting.answered.append((image, failure))

    def _leave(self, number: int) -> None:
        """Drop all of a job."""
        if (job := self._jobs.get(number)) is not None:
            self._waiting.leave(job)
        self._jobs.leave(number)

    # -- one image's way ------------------------------------------------------------------------------------------

    def _fetch_more(self) -> None:
        while self._fetching < self.config.requests and (image := self._waiting.next_to_fetch()) is not None:
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
            self._waiting.to_prepare.append(image)
        finally:
            self._fetching -= 1
            self._replies.write_trouble()
            self._news.set()

    def _needed_bytes(self, image: Image) -> int | None:
        """Read the first image that waits. Returns what it takes to decode it; None where it must wait, or cannot be
        read, which is its record.
        """
        stages = image.job.stages
        is_file = not stages.is_of_video(image.entry)
        if is_file and image.data is None and not self._waiting.may_go_on(image, image.entry.size_bytes):
            return None
        with self.board.working(image.slot):
            try:
                if not is_file:
                    return stages.frame_decoding_bytes(image.entry)
                if image.data is None:
                    image.data = stages.read(image.entry)
                    self._budget.hold(image, file_bytes=len(image.data))
            except Exception as err:  # noqa: BLE001 - as above
                self._waiting.to_prepare.popleft()
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
        item = image.item
        if item.file is not None:
            assert item.resampling is not None
            self.ring.tell_file(image.slot, len(item.file), item.resampling, are_pixels_wanted=item.pixels is not None)
        self._replies.write(Kind.PREPARED, image.slot, flag=item.file is not None)

    def _prepare_here(self, image: Image) -> None:
        """Prepare an image whose file lies in its slot, where the GPU has not decoded it."""
        item, image.item = image.item, None
        assert item is not None
        assert item.file is not None
        image.data, image.is_for_cpu = item.file.tobytes(), True
        self._budget.hold(image, file_bytes=len(image.data))
        self._waiting.to_prepare.append(image)

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
        if not item.to_store:
            self._record(image, record)
            return
        self._budget.hold(image, pixel_bytes=sum(len(data) for _, data in item.to_store))
        self._begin(image.job, self._store(image, record, item.to_store))

    async def _store(self, image: Image, record: Record, objects: list[tuple[str, bytes]]) -> None:
        try:
            with self.board.beside("store"):
                for key, data in objects:
                    await image.job.stages.output.aput(key, data)
        except OSError as err:
            self._fail(image, write_failure(err, key), record.sha256)
        except Exception as err:  # noqa: BLE001 - as above
            self._fail(image, err, record.sha256)
        else:
            self._record(image, record)
        finally:
            self._replies.write_trouble()
            self._news.set()

    def _fail(self, image: Image, err: Exception, sha256: str | None = None) -> None:
        """Say what an error means: for the whole job where it is its place's, else for this image alone."""
        if isinstance(err, StorageError):
            self._end(image.job, err)
        elif not isinstance(err, JobLeftError):
            self._record(image, failure_record(image.entry.key, as_image_error(err, sha256)))

    def _record(self, image: Image, record: Record) -> None:
        self._waiting.drop(image)
        flag = failure_flag(record.error.kind if record.error else None)
        self._replies.write(Kind.RECORD, image.slot, to_line(record), flag)

    def _end(self, job: Job, err: StorageError) -> None:
        """Say that a job cannot go on; it will be left."""
        if not job.has_ended:
            job.has_ended = True
            self._replies.write_ended(job.number, err)


def _die_first() -> None:
    """Be what the kernel ends when memory runs out, not the engine process: one image is done again, not a shard."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def main() -> int:
    """Be the fork server of an engine process, and each image process that it asks for; work until it is gone."""
    # Ctrl-C, and a service manager's SIGTERM for all processes, are for the engine process: it ends this one.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    files = forked_processes(socket.socket(fileno=os.dup(0)))
    if files is not None:
        commands, answers, ring = files
        _work(commands, answers, ring)
    return 0


def _work(commands: int, answers: int, ring: int) -> None:
    reader = FrameReader()
    told: list[Frame] = []
    while not told:
        if not (data := os.read(commands, READ_BYTES)):
            return
        told += reader.frames(data)
    config = ChildConfig.parse(told.pop(0).payload)
    configure_logging(config.log_level, config.log_format)
    bind_process(image_process=config.number)
    _die_first()
    cv2.setNumThreads(1)
    write_all(answers, frame(Kind.READY, config.number))
    process = ImageProcess(config, Ring(config.layout, ring), commands, answers, reader)
    with suppress(BrokenPipeError):  # the engine process is gone
        asyncio.run(process.run(told))


if __name__ == "__main__":
    sys.exit(main())
