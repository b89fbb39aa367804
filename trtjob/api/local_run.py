"""A job from its beginning to its end, with workers inside the caller."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from trtjob.api.follow import follow
from trtjob.api.hand_in import Begun
from trtjob.api.progress import Audience
from trtjob.api.session import Session
from trtjob.api.stop import Stop

if TYPE_CHECKING:
    from trtjob.queue.submit import Outcome
    from trtjob.queue.views import JobView

Begin: TypeAlias = "Callable[[str, Stop], Begun]"

STOPPED = "Stopped. What is done is kept: run the same command again to continue"
DETACHED = "The job is not this command's alone, and goes on. To end it: trtjob cancel"


@dataclass(frozen=True, slots=True)
class Ended:
    """A job as it ended, and what was done to begin it."""

    view: "JobView"
    outcome: "Outcome"


async def work_here(session: Session, begin: Begin, stop: Stop, audience: Audience, processes: int) -> Ended | str:
    """Begin a job and work on it here until it ends. Returns how; what a person must know where the user stopped.

    begin: called in a thread, with what is the job's `runner` from then on, and whether the user asks to stop.
    """
    from trtjob.errors import TrtjobError
    from trtjob.worker.supervisor import Supervisor

    supervisor = Supervisor(session.settings, session.connection, processes=processes, job_id="")
    if supervisor.choice.engine != "cpu" or supervisor.choice.is_wanting:
        audience.tell(supervisor.choice.reason)
    own = _OwnJob(session, supervisor.name, stop)
    ending = asyncio.Event()  # of the workers: when the job has ended, or the user asks to stop
    try:
        async with asyncio.TaskGroup() as group:
            # First of all: the worker process warms up while the model is converted and the job handed in.
            working = group.create_task(supervisor.run(ending))
            try:
                ended = await begin_and_follow(session, lambda: own.begin(begin), stop, audience, supervisor.work_on)
                told = await asyncio.to_thread(own.leave) if ended is None else ""
            finally:
                ending.set()
                await asyncio.wait([working])
    except* TrtjobError as errors:
        raise errors.exceptions[0] from None
    return ended or told


@dataclass(slots=True)
class _OwnJob:
    """The job of a caller that works on it: it stops with that. job_id: empty until it is handed in."""

    session: Session
    runner: str
    stop: Stop
    job_id: str = ""

    def begin(self, begin: Begin) -> Begun:
        begun = begin(self.runner, self.stop)
        self.job_id, _ = begun  # before the look: whoever comes second, the user or this, stops the job
        if self.stop.signal is not None:
            self.leave()
        return begun

    def leave(self) -> str:
        """Stop the job. Returns what a person must know."""
        from redis import RedisError

        from trtjob.errors import QueueError
        from trtjob.jobs.states import ACTIVE, JobState
        from trtjob.queue.submit import stop

        if not self.job_id:
            return STOPPED
        try:
            self.session.connection.ensure()
            stop(self.session.store, self.job_id, self.runner)
            state = self.session.store.state(self.job_id)
        except (RedisError, QueueError) as err:
            return f"{STOPPED}. The queue's server does not know it, and its workers may go on: {err}"
        if state is JobState.STOPPED:
            return f"{STOPPED}, or: trtjob resume {self.job_id}"
        return f"{DETACHED} {self.job_id}" if state in ACTIVE else f"{self.job_id}: {state}"


async def begin_and_follow(
    session: Session,
    begin: "Callable[[], Begun]",
    stop: Stop,
    audience: Audience,
    on_begun: Callable[[str], Awaitable[None]] | None = None,
) -> Ended | None:
    """Begin a job in a thread, and show its progress until it ends.

    on_begun: gives the job's id to the workers of the caller, None where it has none. Returns None where the user
    stopped.
    """
    begun = await stop.unless_stopped(asyncio.to_thread(begin))
    if begun is None:
        return None
    job_id, outcome = begun
    if on_begun is not None:
        await on_begun(job_id)
    view = await follow(session, job_id, stop, audience, works_here=on_begun is not None)
    return None if view is None else Ended(view, outcome)
