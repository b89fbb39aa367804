"""The jobs that an image process knows: each with its places and all that is done for its images."""

import asyncio
from typing import Any

from trtjob.errors import TrtjobError
from trtjob.jobs.folder import JobFolder
from trtjob.jobs.source_images import open_source
from trtjob.jobs.spec import JobSpec
from trtjob.worker.pipeline.child_config import ChildConfig
from trtjob.worker.pipeline.in_hand import Job
from trtjob.worker.pipeline.reply_writer import ReplyWriter
from trtjob.worker.pipeline.ring import Board
from trtjob.worker.pipeline.stages import Stages
from trtjob.worker.pipeline.wire import Kind


class JobLeftError(Exception):
    """The job was left while one of its images waited for a place."""


class OpenJobs:
    """Jobs by their numbers, from JOB to LEAVE. Each shard has one; those that overlap and are of one job share its
    stages, and so the video that is open."""

    def __init__(self, config: ChildConfig, board: Board, replies: ReplyWriter) -> None:
        self._config = config
        self._board = board
        self._replies = replies
        self._jobs: dict[int, Job] = {}

    @property
    def are_waiting(self) -> bool:
        """Whether some image of theirs waits for a bucket or a disk."""
        return any(job.tasks for job in self._jobs.values())

    def get(self, number: int) -> Job | None:
        return self._jobs.get(number)

    def open(self, number: int, document: dict[str, Any]) -> None:
        """Open the places of a job. Where that fails, it cannot go on, which is said."""
        twin = next((job for job in self._jobs.values() if job.document == document), None)
        if twin is not None:
            self._jobs[number] = Job(number, document, twin.stages)
            return
        try:
            self._jobs[number] = Job(number, document, self._opened(JobSpec.model_validate(document)))
        except TrtjobError as err:
            self._replies.write_ended(number, err)

    def _opened(self, spec: JobSpec) -> Stages:
        def on_trouble(_trouble: str) -> None:  # by any thread
            self._board.step()
            loop.call_soon_threadsafe(self._replies.write_trouble)
            if not self._are_used(stages):
                raise JobLeftError

        loop, config = asyncio.get_running_loop(), self._config
        stages = Stages(
            spec.options,
            config.model,
            open_source(spec.source, on_trouble=on_trouble, allow_local=config.allow_local),
            JobFolder.of(spec, on_trouble).storage,
            max_pixels=config.max_pixels,
            jpeg_quality=config.jpeg_quality,
            watch=self._board,
            on_step=self._board.step,
        )
        return stages

    def _are_used(self, stages: Stages) -> bool:
        return any(job.stages is stages for job in list(self._jobs.values()))

    def leave(self, number: int) -> None:
        """Forget a job, and say so once nothing of it is under way."""
        job = self._jobs.pop(number, None)
        if job is None:
            self._replies.write(Kind.LEFT, number)
            return
        for task in job.tasks:
            task.cancel()
        if not self._are_used(job.stages):
            job.stages.close()
        if job.tasks:
            asyncio.gather(*job.tasks, return_exceptions=True).add_done_callback(
                lambda _done: self._replies.write(Kind.LEFT, number)
            )
        else:
            self._replies.write(Kind.LEFT, number)
