"""How fast, how long still, and what it waits for."""

import dataclasses

import pytest
from samples import job_spec

from trtjob.jobs.states import ACTIVE, TERMINAL, JobState
from trtjob.queue.progress import RateMeter, describe_limit, limiting_stage, remaining
from trtjob.queue.views import JobView, WorkerView

VIEW = JobView(
    spec=job_spec(),
    state=JobState.RUNNING,
    message="",
    epoch=0,
    reason="submit",
    planned=True,
    images=100,
    ok=40,
    failed=1,
    skipped=0,
    ignored={},
    shards=10,
    shards_done=4,
    live_done=9,
    live_failed=0,
    started_at=None,
    finished_at=None,
)


def worker(*jobs: str, **busy: float) -> WorkerView:
    """Return a worker with a shard of each of these jobs in hand, of VIEW's unless given."""
    units = tuple((job_id, f"shard-{number:05}") for number, job_id in enumerate(jobs or [VIEW.job_id]))
    return WorkerView("w", "node", 7, "cpu", "CPU", "busy", units, 0.5, 10.0, busy)


IDLE = dataclasses.replace(worker(), units=())


def in_state(state: JobState, **changed: object) -> JobView:
    return dataclasses.replace(VIEW, state=state, **changed)  # type: ignore[arg-type]


def test_the_busiest_stage_of_all_workers_together_limits() -> None:
    assert limiting_stage([worker(decode=0.9, infer=0.8), worker(decode=0.1, infer=0.7)]) == "infer"


def test_what_keeps_images_waiting_is_said_before_what_was_busy() -> None:
    building = dataclasses.replace(worker(infer=0.9), doing="TensorRT plan for this GPU, 34 s: building")
    assert describe_limit(in_state(JobState.RUNNING), [building]) == "TensorRT plan for this GPU, 34 s: building"


@pytest.mark.parametrize("workers", [[], [worker()], [worker(decode=0.0)]])
def test_nothing_busy_limits_nothing(workers: list[WorkerView]) -> None:
    assert limiting_stage(workers) is None


@pytest.mark.parametrize("state", sorted(ACTIVE))
def test_without_a_worker_the_sentence_says_how_to_start_one(state: JobState) -> None:
    assert "trtjob worker" in describe_limit(in_state(state), [])


@pytest.mark.parametrize("job", ["", "another"])
def test_the_workers_of_another_jobs_run_are_not_waited_for(job: str) -> None:
    assert "trtjob worker" in describe_limit(VIEW, [dataclasses.replace(IDLE, job=job)])


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_an_ended_job_says_why_it_ended(state: JobState) -> None:
    assert describe_limit(in_state(state, message="the disk is full"), []) == "the disk is full"


def test_busy_workers_of_other_jobs_are_waited_for() -> None:
    assert "all 2 are busy with other jobs" in describe_limit(VIEW, [worker("another"), worker("another")])


def test_a_job_between_two_units_says_nothing() -> None:
    assert describe_limit(VIEW, [IDLE, worker("another")]) == ""


def test_a_worker_that_drains_another_jobs_shard_counts_for_both() -> None:
    assert describe_limit(VIEW, [worker("another", VIEW.job_id, infer=0.9)]) == "bound by the engine (90% busy)"


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        pytest.param(0.97, "bound by the engine (97% busy)", id="bound"),
        pytest.param(0.5, "busiest with the engine (50% busy)", id="busiest"),
    ],
)
def test_the_sentence_names_the_stage_and_how_busy_it_is(share: float, expected: str) -> None:
    others = worker("another", decode=1.0)
    assert describe_limit(VIEW, [worker(infer=share, decode=0.1), others]) == expected


def test_the_rate_is_that_of_the_last_seconds() -> None:
    meter = RateMeter(span_s=10)
    for second in range(100):
        meter.add(second * 2 if second < 50 else 100 + (second - 50) * 6, now=float(second))
    assert meter.rate == pytest.approx(6.0)
    assert meter.eta_s(60) == pytest.approx(10.0)


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param([], id="none"),
        pytest.param([(0.0, 5)], id="one"),
        pytest.param([(1.0, 5), (1.0, 9)], id="at the same time"),
        pytest.param([(0.0, 5), (1.0, 5)], id="standing still"),
        pytest.param([(0.0, 9), (1.0, 5)], id="going back after a lost shard"),
    ],
)
def test_without_progress_there_is_no_rate_and_no_end(samples: list[tuple[float, int]]) -> None:
    meter = RateMeter()
    for now, done in samples:
        meter.add(done, now)
    assert (meter.rate, meter.eta_s(10)) == (0.0, None)


def test_what_remains_counts_shards_under_way() -> None:
    assert remaining(VIEW) == 100 - 50


def test_what_remains_is_unknown_while_images_are_listed() -> None:
    assert remaining(in_state(JobState.PLANNING, planned=False)) is None


def test_what_remains_is_never_negative() -> None:
    assert remaining(in_state(JobState.RUNNING, images=3)) == 0


def test_a_job_that_waits_for_what_is_outside_says_for_what() -> None:
    waiting = dataclasses.replace(VIEW, degraded="the folder /photos is not there")
    assert describe_limit(waiting, [IDLE]) == "Waiting: the folder /photos is not there"
    assert describe_limit(waiting, []).startswith("No worker")
