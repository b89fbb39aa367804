"""The states of jobs and shards, and their priorities."""

from enum import StrEnum


class JobState(StrEnum):
    """How a job stands; `_NEXT` says what may follow what."""

    QUEUED = "queued"
    PLANNING = "planning"
    RUNNING = "running"
    FINISHING = "finishing"
    STOPPED = "stopped"  # by the user of `trtjob run`; it goes on when somebody asks for it
    DONE = "done"
    DONE_WITH_ERRORS = "done_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = frozenset({JobState.QUEUED, JobState.PLANNING, JobState.RUNNING, JobState.FINISHING})
FINISHED = frozenset({JobState.DONE, JobState.DONE_WITH_ERRORS})
TERMINAL = frozenset(JobState) - ACTIVE

_LEFT = frozenset({JobState.FAILED, JobState.CANCELLED, JobState.STOPPED})
_NEXT: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.PLANNING, JobState.RUNNING}) | _LEFT,
    JobState.PLANNING: frozenset({JobState.RUNNING}) | _LEFT,
    JobState.RUNNING: frozenset({JobState.FINISHING}) | _LEFT,
    JobState.FINISHING: frozenset({JobState.DONE, JobState.DONE_WITH_ERRORS, JobState.FAILED, JobState.STOPPED}),
    JobState.STOPPED: frozenset({JobState.QUEUED, JobState.CANCELLED}),
    # Submitting again, or `retry`, continues an ended job: with what is missing, new, or failed.
    JobState.DONE: frozenset({JobState.QUEUED}),
    JobState.DONE_WITH_ERRORS: frozenset({JobState.QUEUED}),
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset({JobState.QUEUED}),
}


def in_words(state: JobState, failed: int) -> str:
    """Return a state for people.

    >>> in_words(JobState.DONE_WITH_ERRORS, 12)
    'done, 12 failed'
    """
    return f"done, {failed:,} failed" if state is JobState.DONE_WITH_ERRORS else state.value


def origins(target: JobState) -> frozenset[JobState]:
    """Return the states from which a job may move to `target`.

    >>> sorted(origins(JobState.FINISHING))
    [<JobState.RUNNING: 'running'>]
    """
    return frozenset(state for state, targets in _NEXT.items() if target in targets)


class Priority(StrEnum):
    """Which jobs workers take up first; jobs of one priority share the workers."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
