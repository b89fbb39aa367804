"""A node that lacks something for a job stands aside, and hurts nobody but itself."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from samples import job_spec
from worker.local_worker import Desk
from worker.plain_engine import PlainEngine, write_images

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import EngineError
from trtjob.jobs.folder import JOB, RESULTS
from trtjob.jobs.records import read_records
from trtjob.jobs.states import JobState
from trtjob.queue.exclusions import Lack, OwnExclusions
from trtjob.queue.job_store import job_key
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.worker.shard.run import MANY
from trtjob.worker.tasks import run_unit

SHARD = shard_unit(0)


def change(desk: Desk, **settings: Any) -> None:
    desk.context.settings = desk.context.settings.model_copy(update=settings)


def reasons(desk: Desk) -> dict[str, tuple[Lack, str]]:
    return {node: (exclusion.lack, exclusion.reason) for node, exclusion in desk.context.nodes.of(desk.job_id).items()}


def look_again(desk: Desk) -> None:
    """Let the pause be over."""
    desk.context.exclusions = OwnExclusions(desk.context.nodes, desk.context.name)


def add_node(desk: Desk, name: str = "other", trouble: str = "", unit: str = "") -> None:
    """Let this node and another report, each with one idle worker, the other's perhaps at a unit of the job."""
    fields: dict[str, Any] = {"host": name, "pid": 1, "state": "busy" if unit else "idle", "trouble": trouble}
    fields |= {"queue": desk.queue.name} | ({f"unit:{desk.job_id}:{unit}": 1} if unit else {})
    desk.store.report_worker(f"{name}-17-1", fields)
    desk.store.report_worker(desk.context.name, fields | {"host": "worker", "trouble": "", "state": "idle"})


def says(desk: Desk, node: str, lack: Lack = Lack.FAULT, reason: str = "no model") -> bool:
    """Let another node stand aside. Returns whether the job goes on."""
    return desk.context.nodes.stand_aside(desk.job_id, f"{node}-17-1", lack, reason, wait_s=0) == "goes on"


def view(desk: Desk) -> tuple[JobState, str]:
    view = desk.store.view(desk.job_id)
    return view.state, view.degraded


def is_free(desk: Desk, unit: str = SHARD) -> bool:
    """Whether a unit waits for whoever can do it, and no attempt was counted."""
    waits = (desk.job_id, unit) in desk.queue.pending()
    return waits and desk.store.is_leased(desk.job_id, [unit]) == [False] and desk.attempts(unit) == 0


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_empty", [pytest.param(True, id="empty"), pytest.param(False, id="gone")])
def test_a_node_without_the_source_records_nothing_and_goes_on_once_it_is_there(desk: Desk, is_empty: bool) -> None:
    keys = desk.plan(4)
    away = desk.photos.rename(desk.photos.with_name("away"))
    if is_empty:
        desk.photos.mkdir()
    run_unit(desk.job_id, SHARD)
    assert is_free(desk)
    ((lack, reason),) = reasons(desk).values()
    assert lack is Lack.PLACE
    assert f"the folder {desk.photos} is {'empty' if is_empty else 'not there'}" in reason
    assert view(desk) == (JobState.RUNNING, reason)
    if is_empty:
        desk.photos.rmdir()
    away.rename(desk.photos)
    look_again(desk)
    run_unit(desk.job_id, SHARD)
    assert reasons(desk) == {}
    assert view(desk) == (JobState.FINISHING, "")
    run_unit(desk.job_id, FINISH)
    assert view(desk) == (JobState.DONE, "")
    assert [record.image for record in read_records(desk.folder.storage, RESULTS)] == keys


def test_a_source_that_goes_away_in_the_middle_costs_no_image(desk: Desk) -> None:
    desk.plan(20, shard_size=20)
    away = desk.photos.with_name("away")

    def unmount(_images: UInt8Array) -> None:
        if desk.photos.exists():
            desk.photos.rename(away)

    desk.use(PlainEngine(on_infer=unmount))
    run_unit(desk.job_id, SHARD)
    assert is_free(desk)
    assert [lack for lack, _ in reasons(desk).values()] == [Lack.PLACE]
    away.rename(desk.photos)
    look_again(desk)
    desk.use(PlainEngine())
    run_unit(desk.job_id, SHARD)
    assert desk.store.view(desk.job_id).ok == 20


def test_a_place_that_no_node_has_ends_the_job_after_a_while(desk: Desk) -> None:
    desk.plan(4)
    shutil.rmtree(desk.photos)
    change(desk, place_wait_s=0)
    run_unit(desk.job_id, SHARD)
    state, _ = view(desk)
    assert state is JobState.FAILED
    assert f"the folder {desk.photos} is not there on this machine" in desk.store.view(desk.job_id).message
    assert reasons(desk) == {}, "whoever continues it is not held up by what was"


@pytest.mark.parametrize("job", [pytest.param("", id="none yet"), pytest.param("another-00000000", id="another")])
def test_a_worker_of_another_jobs_run_is_no_node_that_is_left(desk: Desk, job: str) -> None:
    desk.plan(4)
    add_node(desk)
    desk.store.report_worker("other-17-1", {"job": job})
    desk.store.report_daemon("other-17", {"job": job, "host": "other", "pid": 1, "engine": "cpu", "processes": 1})
    desk.store.report_daemon("other-17", {"restarts": "{}", "trouble": "", "queue": desk.queue.name})
    assert not desk.context.nodes.others_work([desk.job_id], "worker")
    assert desk.context.nodes.live_nodes(desk.job_id) == {"worker"}
    shutil.rmtree(desk.photos)
    change(desk, place_wait_s=0)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.FAILED


@pytest.mark.parametrize("unit", [PLAN, SHARD, FINISH])
def test_nothing_is_written_where_the_output_is_not_mounted(desk: Desk, unit: str) -> None:
    if unit == PLAN:
        write_images(desk.photos, 4)
        desk.submit()
    else:
        desk.plan(4)
    if unit == FINISH:
        run_unit(desk.job_id, SHARD)
    away = desk.output.rename(desk.output.with_name("away"))
    desk.output.mkdir()
    run_unit(desk.job_id, unit)
    assert list(desk.output.iterdir()) == []
    ((lack, reason),) = reasons(desk).values()
    assert (lack, desk.folder.uri in reason) == (Lack.PLACE, True)
    assert is_free(desk, unit)
    assert view(desk)[0] in (JobState.QUEUED, JobState.RUNNING, JobState.FINISHING)
    desk.output.rmdir()
    away.rename(desk.output)
    look_again(desk)
    run_unit(desk.job_id, unit)
    assert reasons(desk) == {}


def test_an_output_that_holds_another_job_is_not_this_ones(desk: Desk) -> None:
    desk.plan(4)
    other = job_spec(desk.photos, desk.output, job_id="photos-0000ffff")
    desk.folder.storage.write(JOB, other.model_dump_json().encode())
    run_unit(desk.job_id, SHARD)
    assert [lack for lack, _ in reasons(desk).values()] == [Lack.PLACE]


def test_an_output_that_goes_away_in_the_middle_is_not_written_elsewhere(desk: Desk) -> None:
    desk.plan(8, shard_size=8)
    away = desk.output.with_name("away")

    def unmount(_images: UInt8Array) -> None:
        if not away.exists():
            desk.output.rename(away)
            desk.output.mkdir()

    desk.use(PlainEngine(on_infer=unmount))
    run_unit(desk.job_id, SHARD)
    assert list(desk.output.iterdir()) == []
    assert [lack for lack, _ in reasons(desk).values()] == [Lack.PLACE]


# -- images that cannot be read ----------------------------------------------------------------------------------------


def test_few_missing_images_are_missing(desk: Desk) -> None:
    keys = desk.plan(20, shard_size=20)
    for key in keys[: MANY - 1]:
        (desk.photos / key).unlink()
    run_unit(desk.job_id, SHARD)
    assert desk.store.view(desk.job_id).failed == MANY - 1


def test_so_many_missing_images_are_the_places_fault(desk: Desk) -> None:
    keys = desk.plan(20, shard_size=20)
    for key in keys[:-2]:
        (desk.photos / key).unlink()
    add_node(desk)
    run_unit(desk.job_id, SHARD)
    assert is_free(desk)
    ((lack, reason),) = reasons(desk).values()
    assert lack is Lack.FAULT
    assert "of 20 images" in reason
    assert "TRTJOB_MAX_MISSING=1" in reason
    change(desk, max_missing=1.0)
    look_again(desk)
    run_unit(desk.job_id, SHARD)
    assert desk.store.view(desk.job_id).failed == 18


def test_images_that_were_gone_when_they_were_listed_are_missing(desk: Desk) -> None:
    from trtjob.queue.submit import retry

    keys = desk.plan(20, shard_size=20)
    change(desk, max_missing=1.0)
    for key in keys[:-2]:
        (desk.photos / key).unlink()
    run_unit(desk.job_id, SHARD)
    run_unit(desk.job_id, FINISH)
    change(desk, max_missing=0.5)
    assert retry(desk.store, desk.queue, desk.job_id) == 18
    for unit in (PLAN, shard_unit(1), FINISH):
        run_unit(desk.job_id, unit)
    assert view(desk)[0] is JobState.DONE_WITH_ERRORS
    assert desk.store.view(desk.job_id).failed == 18


# -- engines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [EngineError, MemoryError, RuntimeError])
def test_an_engine_that_fails_for_all_images_is_to_blame_itself(desk: Desk, error: type[Exception]) -> None:
    desk.plan(20, shard_size=20)
    add_node(desk)

    def fail(_images: UInt8Array) -> None:
        raise error("out of order")

    desk.use(PlainEngine(on_infer=fail))
    run_unit(desk.job_id, SHARD)
    assert is_free(desk)
    ((lack, reason),) = reasons(desk).values()
    assert lack is Lack.FAULT
    assert "the engine fails, for 10 images one after another" in reason
    assert "out of order" in reason
    look_again(desk)
    desk.use(PlainEngine())
    run_unit(desk.job_id, SHARD)
    view = desk.store.view(desk.job_id)
    assert (view.ok, view.failed) == (20, 0), "what the broken engine failed at is done again"


@pytest.mark.parametrize("error", [EngineError, MemoryError])
def test_what_fails_for_one_image_is_its_record(desk: Desk, error: type[Exception]) -> None:
    desk.plan(6, shard_size=6)
    calls: list[int] = []

    def fail(_images: UInt8Array) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise error("no room")

    desk.use(PlainEngine(on_infer=fail))
    run_unit(desk.job_id, SHARD)
    failed = [record for record in desk.records().values() if record.error is not None]
    assert len(failed) == 1
    assert failed[0].error is not None
    assert "no room" in failed[0].error.message
    assert view(desk)[0] is JobState.FINISHING


# -- who is left -------------------------------------------------------------------------------------------------------


def break_model(desk: Desk) -> None:
    """Let the model's file be missing on this node."""
    desk.context.close_engine()


def test_what_one_node_lacks_is_left_to_the_others(desk: Desk) -> None:
    desk.plan(4)
    add_node(desk)
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    assert is_free(desk)
    assert view(desk) == (JobState.RUNNING, "")
    ((lack, reason),) = reasons(desk).values()
    assert lack is Lack.FAULT
    assert "/models/tiny.onnx" in reason
    events = desk.store.events(desk.job_id)
    assert [(event.worker, event.detail) for event in events if event.event == "stood_aside"] == [("worker-1", reason)]


def test_a_node_that_stands_aside_leaves_the_jobs_messages_alone(desk: Desk) -> None:
    desk.plan(8)
    add_node(desk)
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    before = desk.store.events(desk.job_id)
    desk.queue.redis.lpop(f"rq:queue:{desk.queue.name}")
    run_unit(desk.job_id, SHARD)
    assert is_free(desk), "the message is back"
    assert desk.store.events(desk.job_id) == before, "it was not even claimed"
    assert not desk.queue.bring_forward(desk.context.exclusions.current())
    other = job_spec(desk.photos, desk.output, job_id="others-1234abcd")
    desk.queue.put(other.job_id, [PLAN])
    assert desk.queue.bring_forward(desk.context.exclusions.current())
    assert desk.queue.redis.lindex(f"rq:queue:{desk.queue.name}", 0).startswith(b"others-1234abcd--plan--")


def test_where_every_node_says_the_same_the_job_fails(desk: Desk) -> None:
    desk.plan(4)
    add_node(desk, "other")
    add_node(desk, "third")
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    assert says(desk, "other")
    assert view(desk)[0] is JobState.RUNNING
    assert not says(desk, "third")
    assert view(desk)[0] is JobState.FAILED
    message = desk.store.view(desk.job_id).message
    assert "other-17: no model; third-17: no model; worker: the model 'tiny' cannot be read" in message


def test_a_node_that_has_come_back_counts_as_one_that_works(desk: Desk) -> None:
    desk.plan(8)
    add_node(desk, "other")
    assert says(desk, "other")
    add_node(desk, "other", unit=shard_unit(1))
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk) == (JobState.RUNNING, "")


def test_a_node_that_is_gone_does_not_count(desk: Desk) -> None:
    desk.plan(4)
    add_node(desk, "other")
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.RUNNING
    desk.store.remove_worker("other-17-1")
    look_again(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.FAILED


@pytest.mark.parametrize("lack", [Lack.OUTAGE, Lack.VERSION])
def test_for_storage_and_for_a_version_a_job_waits_as_long_as_it_takes(desk: Desk, lack: Lack) -> None:
    desk.plan(4)
    assert says(desk, "worker", lack, "away")
    assert view(desk) == (JobState.RUNNING, "away" if lack is Lack.OUTAGE else "")


def test_a_job_of_another_version_is_left_as_it_is(desk: Desk) -> None:
    desk.plan(4)
    key = job_key(desk.job_id)
    spec = desk.store.redis.hget(key, "spec").replace(b'"schema_version":1', b'"schema_version":2')
    desk.store.redis.hset(key, "spec", spec)
    before = desk.store.redis.hgetall(key)
    for unit in (SHARD, PLAN, FINISH):
        run_unit(desk.job_id, unit)
    after = desk.store.redis.hgetall(key)
    assert after == before
    ((lack, reason),) = reasons(desk).values()
    assert lack is Lack.VERSION
    assert "submitted by another version of trtjob (0), and this one cannot read it" in reason
    assert desk.store.is_leased(desk.job_id, [SHARD]) == [False]


# -- crashes -----------------------------------------------------------------------------------------------------------


def crash_often(desk: Desk, owner: str) -> None:
    for _ in range(desk.context.settings.max_crashes):
        desk.crash(desk.claim(owner=owner))


def test_crashes_on_one_node_say_nothing_of_the_others(desk: Desk) -> None:
    desk.plan(4)
    add_node(desk)
    crash_often(desk, desk.context.name)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.RUNNING
    assert reasons(desk)["worker-1"][0] is Lack.CRASH
    lease = desk.store.claim(desk.job_id, SHARD, "other-17-1", 10.0)
    assert lease.crashed_on == frozenset({"worker"})  # type: ignore[union-attr]


def test_a_shard_that_crashed_elsewhere_is_done_here(desk: Desk) -> None:
    desk.plan(4)
    crash_often(desk, "other-17-1")
    run_unit(desk.job_id, SHARD)
    assert desk.store.view(desk.job_id).ok == 4


def test_a_shard_that_crashes_on_every_node_fails_the_job(desk: Desk) -> None:
    desk.plan(4)
    add_node(desk)
    crash_often(desk, "other-17-1")
    desk.crash(desk.claim())
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.FAILED
    assert desk.store.view(desk.job_id).message == "shard-00000 ended its worker 6 times. Last: SIGSEGV."


def test_folders_are_made_below_the_root_alone(tmp_path: Path) -> None:
    from trtjob.errors import PlaceError
    from trtjob.storage import LocalStorage

    storage = LocalStorage(tmp_path / "mnt" / "job")
    for write in (storage.write, storage.create, storage.put):
        with pytest.raises(PlaceError, match="is not there on this machine"):
            write("a/b/c.txt", b"")
    assert not (tmp_path / "mnt").exists()
    storage.make_root()
    storage.put("a/b/c.txt", b"x")
    assert (tmp_path / "mnt" / "job" / "a" / "b" / "c.txt").read_bytes() == b"x"


# -- what is not to be forgotten ---------------------------------------------------------------------------------------


def test_a_node_whose_worker_is_being_started_again_is_one_that_may_work(desk: Desk) -> None:
    """Its worker was killed, and its record with it: for a moment only its daemon tells that it is there."""
    desk.plan(4)
    daemon = {"host": "other", "pid": 17, "engine": "cpu", "processes": 1, "restarts": "{}", "trouble": ""}
    desk.store.report_daemon("other-17", daemon | {"queue": desk.queue.name})
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.RUNNING
    crash_often(desk, desk.context.name)
    look_again(desk)
    run_unit(desk.job_id, shard_unit(0))
    assert view(desk)[0] is JobState.RUNNING
    desk.store.remove_daemon("other-17")
    look_again(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.FAILED


def test_a_place_that_is_back_is_not_waited_for_any_more(desk: Desk) -> None:
    """A second short absence must not end the job for the first one, and nobody is told that it still waits."""
    keys = desk.plan(40, shard_size=40)
    away = desk.photos.rename(desk.photos.with_name("away"))
    run_unit(desk.job_id, SHARD)
    assert "is not there" in view(desk)[1]
    away.rename(desk.photos)
    look = desk.context.exclusions._until
    look.clear()
    seen: list[tuple[JobState, str]] = []

    def wait_and_look(images: UInt8Array) -> None:
        if not seen and len(desk.context.exclusions._lacks) == 0:
            seen.append(view(desk))
        time.sleep(0.05)

    desk.use(PlainEngine(on_infer=wait_and_look))
    run_unit(desk.job_id, SHARD)
    assert seen == [(JobState.RUNNING, "")]
    assert list(desk.records()) == keys


@pytest.mark.parametrize("is_list", [pytest.param(True, id="a list"), pytest.param(False, id="no JSON")])
def test_rubbish_where_it_is_noted_does_not_keep_a_job_from_its_end(desk: Desk, is_list: bool) -> None:
    desk.plan(4)
    shutil.rmtree(desk.photos)
    key = f"trtjob:job:{desk.job_id}:aside"
    if is_list:
        desk.queue.redis.rpush(key, b"\xff")
    else:
        desk.queue.redis.hset(key, b"\xff", b"{")
    desk.queue.redis.hset(job_key(desk.job_id), "aside_since", "yesterday")
    run_unit(desk.job_id, SHARD)
    assert is_free(desk)
    assert "is not there" in view(desk)[1]
    change(desk, place_wait_s=0)
    look_again(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.FAILED


def test_one_sick_worker_of_a_node_ends_nothing_while_another_works(desk: Desk) -> None:
    """As where one GPU of several is broken."""
    desk.plan(8)
    fields = {"host": "worker", "pid": 1, "state": "busy", "trouble": "", "queue": desk.queue.name}
    desk.store.report_worker("worker-2", fields | {f"unit:{desk.job_id}:{shard_unit(1)}": 1})
    break_model(desk)
    run_unit(desk.job_id, SHARD)
    assert view(desk)[0] is JobState.RUNNING
    desk.context.nodes.come_back(desk.job_id, "worker-2")  # it has committed
    assert desk.context.exclusions.current() == [desk.job_id], "the sick one does not try again at once"


def test_a_commit_of_anybody_ends_the_wait(desk: Desk) -> None:
    """Also of a worker that never stood aside itself, such as the same daemon's after a restart."""
    desk.plan(8)
    away = desk.photos.rename(desk.photos.with_name("away"))
    run_unit(desk.job_id, SHARD)
    key = job_key(desk.job_id)
    assert desk.queue.redis.hexists(key, "aside_since")
    away.rename(desk.photos)
    desk.store.commit(desk.claim(shard_unit(1), owner="other-17-1"), 1, ok=4, failed=0)
    assert not desk.queue.redis.hexists(key, "aside_since")
    assert view(desk) == (JobState.RUNNING, "")
