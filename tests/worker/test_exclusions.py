"""A node that lacks something for a job stands aside, and hurts nobody but itself."""

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from samples import job_spec
from web_server import web_server
from worker.local_worker import LocalWorker
from worker.plain_engine import PlainEngine, write_image, write_images

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import EngineError
from trtjob.jobs.folder import JOB, RESULTS
from trtjob.jobs.records import read_records
from trtjob.jobs.states import JobState
from trtjob.queue.exclusions import Lack
from trtjob.queue.keys import aside_key, job_key
from trtjob.queue.rq_internals import list_key
from trtjob.queue.submit import submit
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.worker.own_exclusions import LAST_PAUSE_S, OwnExclusions
from trtjob.worker.shard.run import MANY
from trtjob.worker.tasks import run_unit

SHARD = shard_unit(0)


def change(local_worker: LocalWorker, **settings: Any) -> None:
    local_worker.context.settings = local_worker.context.settings.model_copy(update=settings)


def reasons(local_worker: LocalWorker) -> dict[str, tuple[Lack, str]]:
    return {
        node: (exclusion.lack, exclusion.reason)
        for node, exclusion in local_worker.context.exclusions.of(local_worker.job_id).items()
    }


def look_again(local_worker: LocalWorker) -> None:
    """Let the pause be over."""
    local_worker.context.own_exclusions = OwnExclusions(local_worker.context.exclusions, local_worker.context.name)


def add_node(local_worker: LocalWorker, name: str = "other", trouble: str = "", unit: str = "") -> None:
    """Let this node and another report, each with one idle worker, the other's perhaps at a unit of the job."""
    fields: dict[str, Any] = {"host": name, "pid": 1, "state": "busy" if unit else "idle", "trouble": trouble}
    fields |= {"queue": local_worker.queue.name} | ({f"unit:{local_worker.job_id}:{unit}": 1} if unit else {})
    local_worker.store.report_worker(f"{name}-17-1", fields)
    local_worker.store.report_worker(
        local_worker.context.name, fields | {"host": "worker", "trouble": "", "state": "idle"}
    )


def says(local_worker: LocalWorker, node: str, lack: Lack = Lack.FAULT, reason: str = "no model") -> bool:
    """Let another node stand aside. Returns whether the job goes on."""
    return (
        local_worker.context.exclusions.stand_aside(local_worker.job_id, f"{node}-17-1", lack, reason, wait_s=0)
        == "goes on"
    )


def view(local_worker: LocalWorker) -> tuple[JobState, str]:
    view = local_worker.store.view(local_worker.job_id)
    return view.state, view.degraded


def is_free(local_worker: LocalWorker, unit: str = SHARD) -> bool:
    """Whether a unit waits for whoever can do it, and no attempt was counted."""
    waits = (local_worker.job_id, unit) in local_worker.queue.pending()
    return (
        waits
        and local_worker.store.is_leased(local_worker.job_id, [unit]) == [False]
        and local_worker.attempts(unit) == 0
    )


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_empty", [pytest.param(True, id="empty"), pytest.param(False, id="gone")])
def test_a_node_without_the_source_records_nothing_and_goes_on_once_it_is_there(
    local_worker: LocalWorker, is_empty: bool
) -> None:
    keys = local_worker.plan(4)
    away = local_worker.photos.rename(local_worker.photos.with_name("away"))
    if is_empty:
        local_worker.photos.mkdir()
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker)
    ((lack, reason),) = reasons(local_worker).values()
    assert lack is Lack.PLACE
    assert f"the folder {local_worker.photos} is {'empty' if is_empty else 'not there'}" in reason
    assert view(local_worker) == (JobState.RUNNING, reason)
    if is_empty:
        local_worker.photos.rmdir()
    away.rename(local_worker.photos)
    look_again(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert reasons(local_worker) == {}
    assert view(local_worker) == (JobState.FINISHING, "")
    run_unit(local_worker.job_id, FINISH)
    assert view(local_worker) == (JobState.DONE, "")
    assert [record.image for record in read_records(local_worker.folder.storage, RESULTS)] == keys


@pytest.mark.slow
def test_a_source_that_goes_away_in_the_middle_costs_no_image(local_worker: LocalWorker) -> None:
    local_worker.plan(20, shard_size=20)
    away = local_worker.photos.with_name("away")

    def unmount(_images: UInt8Array) -> None:
        if local_worker.photos.exists():
            local_worker.photos.rename(away)

    local_worker.use(PlainEngine(on_infer=unmount))
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker)
    assert [lack for lack, _ in reasons(local_worker).values()] == [Lack.PLACE]
    away.rename(local_worker.photos)
    look_again(local_worker)
    local_worker.use(PlainEngine())
    run_unit(local_worker.job_id, SHARD)
    assert local_worker.store.view(local_worker.job_id).ok == 20


def test_a_place_that_no_node_has_ends_the_job_after_a_while(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    shutil.rmtree(local_worker.photos)
    change(local_worker, place_wait_s=0)
    run_unit(local_worker.job_id, SHARD)
    state, _ = view(local_worker)
    assert state is JobState.FAILED
    assert (
        f"the folder {local_worker.photos} is not there on this machine"
        in local_worker.store.view(local_worker.job_id).message
    )
    assert reasons(local_worker) == {}, "whoever continues it is not held up by what was"


@pytest.mark.parametrize("job", [pytest.param("", id="none yet"), pytest.param("another-00000000", id="another")])
def test_a_worker_of_another_jobs_run_is_no_node_that_is_left(local_worker: LocalWorker, job: str) -> None:
    local_worker.plan(4)
    add_node(local_worker)
    local_worker.store.report_worker("other-17-1", {"job": job})
    local_worker.store.report_daemon(
        "other-17", {"job": job, "host": "other", "pid": 1, "engine": "cpu", "processes": 1}
    )
    local_worker.store.report_daemon("other-17", {"restarts": "{}", "trouble": "", "queue": local_worker.queue.name})
    assert not local_worker.context.exclusions.others_work([local_worker.job_id], "worker")
    assert local_worker.context.exclusions.live_nodes(local_worker.job_id) == {"worker"}
    shutil.rmtree(local_worker.photos)
    change(local_worker, place_wait_s=0)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.FAILED


@pytest.mark.parametrize("unit", [PLAN, SHARD, FINISH])
def test_nothing_is_written_where_the_output_is_not_mounted(local_worker: LocalWorker, unit: str) -> None:
    if unit == PLAN:
        write_images(local_worker.photos, 4)
        local_worker.submit()
    else:
        local_worker.plan(4)
    if unit == FINISH:
        run_unit(local_worker.job_id, SHARD)
    away = local_worker.output.rename(local_worker.output.with_name("away"))
    local_worker.output.mkdir()
    run_unit(local_worker.job_id, unit)
    assert list(local_worker.output.iterdir()) == []
    ((lack, reason),) = reasons(local_worker).values()
    assert (lack, local_worker.folder.uri in reason) == (Lack.PLACE, True)
    assert is_free(local_worker, unit)
    assert view(local_worker)[0] in (JobState.QUEUED, JobState.RUNNING, JobState.FINISHING)
    local_worker.output.rmdir()
    away.rename(local_worker.output)
    look_again(local_worker)
    run_unit(local_worker.job_id, unit)
    assert reasons(local_worker) == {}


def test_an_output_that_holds_another_job_is_not_this_ones(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    other = job_spec(local_worker.photos, local_worker.output, job_id="photos-0000ffff")
    local_worker.folder.storage.write(JOB, other.model_dump_json().encode())
    run_unit(local_worker.job_id, SHARD)
    assert [lack for lack, _ in reasons(local_worker).values()] == [Lack.PLACE]


def test_an_output_that_goes_away_in_the_middle_is_not_written_elsewhere(local_worker: LocalWorker) -> None:
    local_worker.plan(8, shard_size=8)
    away = local_worker.output.with_name("away")

    def unmount(_images: UInt8Array) -> None:
        if not away.exists():
            local_worker.output.rename(away)
            local_worker.output.mkdir()

    local_worker.use(PlainEngine(on_infer=unmount))
    run_unit(local_worker.job_id, SHARD)
    assert list(local_worker.output.iterdir()) == []
    assert [lack for lack, _ in reasons(local_worker).values()] == [Lack.PLACE]


# -- images that cannot be read ----------------------------------------------------------------------------------------


def test_few_missing_images_are_missing(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(20, shard_size=20)
    for key in keys[: MANY - 1]:
        (local_worker.photos / key).unlink()
    run_unit(local_worker.job_id, SHARD)
    assert local_worker.store.view(local_worker.job_id).failed == MANY - 1


def test_so_many_missing_images_are_the_places_fault(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(20, shard_size=20)
    for key in keys[:-2]:
        (local_worker.photos / key).unlink()
    add_node(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker)
    ((lack, reason),) = reasons(local_worker).values()
    assert lack is Lack.FAULT
    assert "of 20 images" in reason
    assert "TRTJOB_MAX_MISSING=1" in reason
    change(local_worker, max_missing=1.0)
    look_again(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert local_worker.store.view(local_worker.job_id).failed == 18


@pytest.mark.parametrize("status", [404, 403])
def test_what_a_web_server_lacks_is_missing_and_where_it_gives_nothing_the_node_stands_aside(
    local_worker: LocalWorker, status: int
) -> None:
    change(local_worker, fetch_allow_local=True)
    local_worker.use(PlainEngine())  # whose image processes hear of it
    with web_server() as server:
        keys = write_images(local_worker.photos, 20)
        picture = (local_worker.photos / keys[0]).read_bytes()
        for key in keys:
            server.put(f"/{key}", picture)
        spec = job_spec(server.url, local_worker.output, kind="list", shard_size=20)
        submit(local_worker.store, local_worker.queue, spec, keys)
        run_unit(local_worker.job_id, PLAN)
        for key in keys:
            server.files[f"/{key}"] = [(status, {}, b"")]
        add_node(local_worker)
        run_unit(local_worker.job_id, SHARD)
    if status == 404:
        assert local_worker.store.view(local_worker.job_id).kinds == {"missing": 20}
    else:
        assert is_free(local_worker)
        assert [lack for lack, _ in reasons(local_worker).values()] == [Lack.FAULT]


def test_images_that_were_gone_when_they_were_listed_are_missing(local_worker: LocalWorker) -> None:
    from trtjob.queue.submit import retry

    keys = local_worker.plan(20, shard_size=20)
    change(local_worker, max_missing=1.0)
    for key in keys[:-2]:
        (local_worker.photos / key).unlink()
    run_unit(local_worker.job_id, SHARD)
    run_unit(local_worker.job_id, FINISH)
    change(local_worker, max_missing=0.5)
    assert retry(local_worker.store, local_worker.queue, local_worker.job_id) == 18
    for unit in (PLAN, shard_unit(1), FINISH):
        run_unit(local_worker.job_id, unit)
    assert view(local_worker)[0] is JobState.DONE_WITH_ERRORS
    assert local_worker.store.view(local_worker.job_id).failed == 18


# -- engines -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("error", [EngineError, MemoryError, RuntimeError])
def test_an_engine_that_fails_for_all_images_is_to_blame_itself(
    local_worker: LocalWorker, error: type[Exception]
) -> None:
    local_worker.plan(20, shard_size=20)
    add_node(local_worker)

    def fail(_images: UInt8Array) -> None:
        raise error("out of order")

    local_worker.use(PlainEngine(on_infer=fail))
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker)
    ((lack, reason),) = reasons(local_worker).values()
    assert lack is Lack.FAULT
    assert "the engine fails, for 10 images one after another" in reason
    assert "out of order" in reason
    look_again(local_worker)
    local_worker.use(PlainEngine())
    run_unit(local_worker.job_id, SHARD)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.ok, view.failed) == (20, 0), "what the broken engine failed at is done again"


@pytest.mark.parametrize("error", [EngineError, MemoryError])
def test_what_fails_for_one_image_is_its_record(local_worker: LocalWorker, error: type[Exception]) -> None:
    keys = local_worker.plan(6, shard_size=6)
    write_image(local_worker.photos / keys[2], 50)

    def fail(images: UInt8Array) -> None:
        if images.max() < 100:
            raise error("no room")

    local_worker.use(PlainEngine(on_infer=fail))
    run_unit(local_worker.job_id, SHARD)
    failed = [record for record in local_worker.records().values() if record.error is not None]
    assert [record.image for record in failed] == [keys[2]]
    assert failed[0].error is not None
    assert "no room" in failed[0].error.message
    assert view(local_worker)[0] is JobState.FINISHING


# -- who is left -------------------------------------------------------------------------------------------------------


def break_model(local_worker: LocalWorker) -> None:
    """Let the model's file be missing on this node."""
    local_worker.context.close_engine()


def test_what_one_node_lacks_is_left_to_the_others(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    add_node(local_worker)
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker)
    assert view(local_worker) == (JobState.RUNNING, "")
    ((lack, reason),) = reasons(local_worker).values()
    assert lack is Lack.FAULT
    assert "/models/tiny.onnx" in reason
    events = local_worker.store.events(local_worker.job_id)
    assert [(event.worker, event.detail) for event in events if event.event == "stood_aside"] == [("worker-1", reason)]


def test_why_a_node_stands_aside_may_name_a_file_that_is_no_utf8(local_worker: LocalWorker) -> None:
    local_worker.plan(1)
    add_node(local_worker)
    assert says(local_worker, "other", Lack.PLACE, "cannot write caf\udce9.png")
    assert reasons(local_worker) == {"other-17-1": (Lack.PLACE, "cannot write caf\\udce9.png")}
    local_worker.store.degrade(local_worker.job_id, "cannot read caf\udce9.png")
    assert view(local_worker)[1] == "cannot read caf\\udce9.png"


def test_a_node_that_stands_aside_leaves_the_jobs_messages_alone(local_worker: LocalWorker) -> None:
    local_worker.plan(8)
    add_node(local_worker)
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    before = local_worker.store.events(local_worker.job_id)
    local_worker.queue.redis.lpop(list_key(local_worker.queue.name))
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker), "the message is back"
    assert local_worker.store.events(local_worker.job_id) == before, "it was not even claimed"
    assert not local_worker.queue.bring_forward(local_worker.context.own_exclusions.current())
    other = job_spec(local_worker.photos, local_worker.output, job_id="others-1234abcd")
    local_worker.queue.put(other.job_id, [PLAN])
    assert local_worker.queue.bring_forward(local_worker.context.own_exclusions.current())
    assert local_worker.queue.redis.lindex(list_key(local_worker.queue.name), 0).startswith(b"others-1234abcd--plan--")


def test_where_every_node_says_the_same_the_job_fails(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    add_node(local_worker, "other")
    add_node(local_worker, "third")
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert says(local_worker, "other")
    assert view(local_worker)[0] is JobState.RUNNING
    assert not says(local_worker, "third")
    assert view(local_worker)[0] is JobState.FAILED
    message = local_worker.store.view(local_worker.job_id).message
    assert "other-17: no model; third-17: no model; worker: the model 'tiny' cannot be read" in message


def test_a_node_that_has_come_back_counts_as_one_that_works(local_worker: LocalWorker) -> None:
    local_worker.plan(8)
    add_node(local_worker, "other")
    assert says(local_worker, "other")
    add_node(local_worker, "other", unit=shard_unit(1))
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker) == (JobState.RUNNING, "")


def test_a_node_that_is_gone_does_not_count(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    add_node(local_worker, "other")
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.RUNNING
    local_worker.store.remove_worker("other-17-1")
    look_again(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.FAILED


@pytest.mark.parametrize("lack", [Lack.OUTAGE, Lack.VERSION])
def test_for_storage_and_for_a_version_a_job_waits_as_long_as_it_takes(local_worker: LocalWorker, lack: Lack) -> None:
    local_worker.plan(4)
    assert says(local_worker, "worker", lack, "away")
    assert view(local_worker) == (JobState.RUNNING, "away" if lack is Lack.OUTAGE else "")


def test_a_job_of_another_version_is_left_as_it_is(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    key = job_key(local_worker.job_id)
    spec = local_worker.store.redis.hget(key, "spec").replace(b'"schema_version":1', b'"schema_version":2')
    local_worker.store.redis.hset(key, "spec", spec)
    before = local_worker.store.redis.hgetall(key)
    for unit in (SHARD, PLAN, FINISH):
        run_unit(local_worker.job_id, unit)
    after = local_worker.store.redis.hgetall(key)
    assert after == before
    ((lack, reason),) = reasons(local_worker).values()
    assert lack is Lack.VERSION
    assert "submitted by another version of trtjob (0), and this one cannot read it" in reason
    assert local_worker.store.is_leased(local_worker.job_id, [SHARD]) == [False]


# -- crashes -----------------------------------------------------------------------------------------------------------


def crash_often(local_worker: LocalWorker, owner: str) -> None:
    for _ in range(local_worker.context.settings.max_crashes):
        local_worker.crash(local_worker.claim(owner=owner))


def test_crashes_on_one_node_say_nothing_of_the_others(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    add_node(local_worker)
    crash_often(local_worker, local_worker.context.name)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.RUNNING
    assert reasons(local_worker)["worker-1"][0] is Lack.CRASH
    lease = local_worker.store.claim(local_worker.job_id, SHARD, "other-17-1", 10.0)
    assert lease.crashed_on == frozenset({"worker"})  # type: ignore[union-attr]


def test_a_shard_that_crashed_elsewhere_is_done_here(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    crash_often(local_worker, "other-17-1")
    run_unit(local_worker.job_id, SHARD)
    assert local_worker.store.view(local_worker.job_id).ok == 4


def test_a_shard_that_crashes_on_every_node_fails_the_job(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    add_node(local_worker)
    crash_often(local_worker, "other-17-1")
    local_worker.crash(local_worker.claim())
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.FAILED
    assert (
        local_worker.store.view(local_worker.job_id).message == "shard-00000 ended its worker 6 times. Last: SIGSEGV."
    )


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


def test_a_node_whose_worker_is_being_started_again_is_one_that_may_work(local_worker: LocalWorker) -> None:
    """Its worker was killed, and its record with it: for a moment only its daemon tells that it is there."""
    local_worker.plan(4)
    daemon = {"host": "other", "pid": 17, "engine": "cpu", "processes": 1, "restarts": "{}", "trouble": ""}
    local_worker.store.report_daemon("other-17", daemon | {"queue": local_worker.queue.name})
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.RUNNING
    crash_often(local_worker, local_worker.context.name)
    look_again(local_worker)
    run_unit(local_worker.job_id, shard_unit(0))
    assert view(local_worker)[0] is JobState.RUNNING
    local_worker.store.remove_daemon("other-17")
    look_again(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.FAILED


@pytest.mark.slow
def test_a_place_that_is_back_is_not_waited_for_any_more(local_worker: LocalWorker) -> None:
    """A second short absence must not end the job for the first one, and nobody is told that it still waits."""
    now_s = 0.0
    local_worker.context.own_exclusions = OwnExclusions(
        local_worker.context.exclusions, local_worker.context.name, clock=lambda: now_s
    )
    keys = local_worker.plan(40, shard_size=40)
    away = local_worker.photos.rename(local_worker.photos.with_name("away"))
    run_unit(local_worker.job_id, SHARD)
    assert "is not there" in view(local_worker)[1]
    away.rename(local_worker.photos)
    now_s = LAST_PAUSE_S
    seen: list[tuple[JobState, str]] = []

    def wait_and_look(images: UInt8Array) -> None:
        if not seen and not reasons(local_worker):
            seen.append(view(local_worker))
        time.sleep(0.05)

    local_worker.use(PlainEngine(on_infer=wait_and_look))
    run_unit(local_worker.job_id, SHARD)
    assert seen == [(JobState.RUNNING, "")]
    assert list(local_worker.records()) == keys


@pytest.mark.parametrize("is_list", [pytest.param(True, id="a list"), pytest.param(False, id="no JSON")])
def test_rubbish_where_it_is_noted_does_not_keep_a_job_from_its_end(local_worker: LocalWorker, is_list: bool) -> None:
    local_worker.plan(4)
    shutil.rmtree(local_worker.photos)
    key = aside_key(local_worker.job_id)
    if is_list:
        local_worker.queue.redis.rpush(key, b"\xff")
    else:
        local_worker.queue.redis.hset(key, b"\xff", b"{")
    local_worker.queue.redis.hset(job_key(local_worker.job_id), "aside_since", "yesterday")
    run_unit(local_worker.job_id, SHARD)
    assert is_free(local_worker)
    assert "is not there" in view(local_worker)[1]
    change(local_worker, place_wait_s=0)
    look_again(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.FAILED


def test_one_sick_worker_of_a_node_ends_nothing_while_another_works(local_worker: LocalWorker) -> None:
    """As where one GPU of several is broken."""
    local_worker.plan(8)
    fields = {"host": "worker", "pid": 1, "state": "busy", "trouble": "", "queue": local_worker.queue.name}
    local_worker.store.report_worker("worker-2", fields | {f"unit:{local_worker.job_id}:{shard_unit(1)}": 1})
    break_model(local_worker)
    run_unit(local_worker.job_id, SHARD)
    assert view(local_worker)[0] is JobState.RUNNING
    local_worker.context.exclusions.come_back(local_worker.job_id, "worker-2")  # it has committed
    assert local_worker.context.own_exclusions.current() == [local_worker.job_id], (
        "the sick one does not try again at once"
    )


def test_a_commit_of_anybody_ends_the_wait(local_worker: LocalWorker) -> None:
    """Also of a worker that never stood aside itself, such as the same daemon's after a restart."""
    local_worker.plan(8)
    away = local_worker.photos.rename(local_worker.photos.with_name("away"))
    run_unit(local_worker.job_id, SHARD)
    key = job_key(local_worker.job_id)
    assert local_worker.queue.redis.hexists(key, "aside_since")
    away.rename(local_worker.photos)
    local_worker.store.commit(local_worker.claim(shard_unit(1), owner="other-17-1"), 1, ok=4, failed=0)
    assert not local_worker.queue.redis.hexists(key, "aside_since")
    assert view(local_worker) == (JobState.RUNNING, "")
