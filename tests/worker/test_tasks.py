"""Units of work as a message asks for them: done, refused, given back, failed; and conversions."""

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from loop_model import write_endless
from terminal import DIGITS, wait_for
from worker.local_worker import LocalWorker
from worker.plain_engine import PlainEngine, write_image

from trtjob.engines.protocol import UInt8Array
from trtjob.jobs.finish import Summary
from trtjob.jobs.folder import RECEIPT, RESULTS, SUMMARY
from trtjob.jobs.records import read_records
from trtjob.jobs.states import JobState
from trtjob.queue.conversions import Conversion
from trtjob.queue.keys import conversion_key, job_key
from trtjob.queue.rq_internals import list_key
from trtjob.queue.submit import resume, retry, stop
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.worker.heartbeat import HeartbeatThread
from trtjob.worker.tasks import convert, run_unit


def run_all(local_worker: LocalWorker) -> None:
    """Do what the queue holds until it is empty, as a lone worker does."""
    key = list_key(local_worker.queue.name)
    while message := local_worker.queue.redis.lpop(key):
        job_id, unit, _ = message.decode().rsplit("--", 2)
        run_unit(job_id, unit)


def state(local_worker: LocalWorker) -> JobState:
    return local_worker.store.state(local_worker.job_id)


def message(local_worker: LocalWorker) -> str:
    return local_worker.store.view(local_worker.job_id).message


def refuse(_images: UInt8Array) -> None:
    raise AssertionError("the engine must not be asked")


# -- planning ----------------------------------------------------------------------------------------------------------


def test_planning_asks_for_every_shard(local_worker: LocalWorker) -> None:
    local_worker.plan(10)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.state, view.images, view.shards, view.planned) == (JobState.RUNNING, 10, 3, True)
    assert {(local_worker.job_id, shard_unit(n)) for n in range(3)} <= local_worker.queue.pending()


def test_planning_leaves_its_unit_free_and_counts_no_attempt(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    assert local_worker.store.is_leased(local_worker.job_id, [PLAN]) == [False]
    assert local_worker.attempts(PLAN) == 0


def test_planning_again_after_a_crash_counts_nothing_twice(local_worker: LocalWorker) -> None:
    local_worker.plan(10)
    local_worker.store.update(local_worker.job_id, state=JobState.PLANNING.value)  # as it was when the planner died
    run_unit(local_worker.job_id, PLAN)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.state, view.images, view.shards) == (JobState.RUNNING, 10, 3)


def test_planning_a_job_that_is_done_already_asks_for_its_end(local_worker: LocalWorker) -> None:
    """The server has forgotten the job; its folder has not."""
    local_worker.plan(8)
    run_unit(local_worker.job_id, shard_unit(0))
    run_unit(local_worker.job_id, shard_unit(1))
    local_worker.store.forget(local_worker.job_id)
    local_worker.queue.redis.delete(list_key(local_worker.queue.name))
    local_worker.submit()
    run_unit(local_worker.job_id, PLAN)
    assert state(local_worker) is JobState.FINISHING
    assert (local_worker.job_id, FINISH) in local_worker.queue.pending()
    assert local_worker.store.view(local_worker.job_id).ok == 8


# -- the whole way -----------------------------------------------------------------------------------------------------


def test_a_job_goes_from_the_queue_to_its_receipt(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(10)
    run_all(local_worker)
    assert state(local_worker) is JobState.DONE
    assert [record.image for record in read_records(local_worker.folder.storage, RESULTS)] == keys
    assert (Path(local_worker.folder.uri) / RECEIPT).exists()
    summary = Summary.model_validate_json((Path(local_worker.folder.uri) / SUMMARY).read_bytes())
    assert (summary.images, summary.ok, summary.failed) == (10, 10, 0)


def test_a_job_with_a_failed_image_ends_with_errors(local_worker: LocalWorker) -> None:
    local_worker.plan(6)
    (local_worker.photos / "0003.png").write_bytes(b"rubbish")
    run_all(local_worker)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.state, view.ok, view.failed) == (JobState.DONE_WITH_ERRORS, 5, 1)


@pytest.mark.slow
def test_a_retry_does_the_failed_images_and_counts_them_anew(local_worker: LocalWorker) -> None:
    local_worker.plan(6)
    (local_worker.photos / "0003.png").write_bytes(b"rubbish")
    run_all(local_worker)
    write_image(local_worker.photos / "0003.png")
    assert retry(local_worker.store, local_worker.queue, local_worker.job_id) == 1
    seen: list[int] = []
    local_worker.use(PlainEngine(on_infer=lambda images: seen.append(len(images))))
    run_all(local_worker)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.state, view.images, view.ok, view.failed) == (JobState.DONE, 6, 6, 0)
    assert sum(seen) == 1


def test_an_update_takes_in_what_is_new(local_worker: LocalWorker) -> None:
    local_worker.plan(6)
    run_all(local_worker)
    write_image(local_worker.photos / "new.png")
    local_worker.submit()
    run_all(local_worker)
    view = local_worker.store.view(local_worker.job_id)
    assert (view.state, view.images, view.ok) == (JobState.DONE, 7, 7)
    assert len(list(read_records(local_worker.folder.storage, RESULTS))) == 7


# -- refused -----------------------------------------------------------------------------------------------------------


def test_a_unit_that_another_holds_is_left_to_it(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    local_worker.claim(owner="worker-2")
    local_worker.use(PlainEngine(on_infer=refuse))
    run_unit(local_worker.job_id, shard_unit(0))
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [True]


def test_a_doubled_message_does_nothing_twice(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    run_unit(local_worker.job_id, shard_unit(0))
    local_worker.use(PlainEngine(on_infer=refuse))
    run_unit(local_worker.job_id, shard_unit(0))
    assert local_worker.store.view(local_worker.job_id).ok == 4


@pytest.mark.parametrize("unit", [PLAN, shard_unit(0), FINISH])
def test_nothing_is_done_for_a_job_that_was_cancelled(local_worker: LocalWorker, unit: str) -> None:
    local_worker.plan(4)
    local_worker.store.move(local_worker.job_id, JobState.CANCELLED)
    local_worker.use(PlainEngine(on_infer=refuse))
    run_unit(local_worker.job_id, unit)
    assert state(local_worker) is JobState.CANCELLED
    assert local_worker.attempts(unit) == 0


def test_a_message_about_a_job_that_nobody_knows_is_ignored(local_worker: LocalWorker) -> None:
    run_unit("gone-1234abcd", shard_unit(0))
    assert local_worker.store.job_ids() == []


# -- given back --------------------------------------------------------------------------------------------------------


def stop_at_first(local_worker: LocalWorker) -> None:
    local_worker.use(PlainEngine(on_infer=lambda _images: local_worker.context.request_stop()))


def test_a_stop_gives_the_unit_back_to_the_front_of_the_queue(local_worker: LocalWorker) -> None:
    local_worker.plan(40, shard_size=20)
    stop_at_first(local_worker)
    key = list_key(local_worker.queue.name)
    local_worker.queue.redis.lpop(key)  # the message that is worked on
    run_unit(local_worker.job_id, shard_unit(0))
    assert local_worker.queue.redis.lindex(key, 0).decode().startswith(f"{local_worker.job_id}--{shard_unit(0)}--")
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]
    assert state(local_worker) is JobState.RUNNING


def test_a_stop_costs_no_attempt(local_worker: LocalWorker) -> None:
    local_worker.plan(20, shard_size=20)
    stop_at_first(local_worker)
    run_unit(local_worker.job_id, shard_unit(0))
    assert local_worker.attempts() == 0


def test_a_unit_that_arrives_after_the_stop_is_given_back_at_once(local_worker: LocalWorker) -> None:
    local_worker.plan(20, shard_size=20)
    local_worker.context.request_stop()
    counted: list[int] = []
    local_worker.use(PlainEngine(on_infer=lambda images: counted.append(len(images))))
    run_unit(local_worker.job_id, shard_unit(0))
    assert sum(counted) <= 4
    assert (local_worker.job_id, shard_unit(0)) in local_worker.queue.pending()


def test_an_old_interruption_does_not_touch_the_next_unit(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    local_worker.context.interrupter.interrupt("lost")
    run_unit(local_worker.job_id, shard_unit(0))
    assert len(local_worker.records()) == 4


def test_a_unit_of_a_cancelled_job_is_not_asked_for_again(local_worker: LocalWorker) -> None:
    local_worker.plan(40, shard_size=40)
    local_worker.queue.redis.delete(list_key(local_worker.queue.name))

    def cancel(_images: UInt8Array) -> None:
        local_worker.store.move(local_worker.job_id, JobState.CANCELLED)

    local_worker.use(PlainEngine(on_infer=cancel))
    run_unit(local_worker.job_id, shard_unit(0))
    assert local_worker.queue.pending() == set()
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]


@pytest.mark.slow
def test_a_stopped_jobs_count_is_what_its_checkpoints_keep(
    local_worker: LocalWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtjob.worker.shard.run.REPORT_S", 0.05)
    local_worker.plan(80, shard_size=80)
    local_worker.store.update(local_worker.job_id, runner="node-7")
    seen: list[int] = []

    def stop_job(images: UInt8Array) -> None:
        seen.append(len(images))
        if sum(seen) > 10:
            stop(local_worker.store, local_worker.job_id, "node-7")
            time.sleep(0.05)

    local_worker.use(PlainEngine(on_infer=stop_job))
    run_unit(local_worker.job_id, shard_unit(0))
    (path,) = (Path(local_worker.folder.uri) / "shards").glob("00000.part-*.jsonl")
    kept = len(path.read_bytes().splitlines())
    assert 0 < kept < 80
    assert (state(local_worker), local_worker.store.view(local_worker.job_id).done) == (JobState.STOPPED, kept)
    resume(local_worker.store, local_worker.queue, local_worker.folder)
    assert local_worker.store.view(local_worker.job_id).done == kept
    run_unit(local_worker.job_id, PLAN)
    assert local_worker.store.view(local_worker.job_id).done == kept
    seen.clear()
    local_worker.use(PlainEngine(on_infer=lambda images: seen.append(len(images))))
    run_unit(local_worker.job_id, shard_unit(0))
    assert (local_worker.store.view(local_worker.job_id).ok, sum(seen)) == (80, 80 - kept)


def test_the_context_holds_a_claim_only_while_it_is_worked_on(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    held: list[list[str]] = []
    local_worker.use(
        PlainEngine(on_infer=lambda _images: held.append([lease.unit for lease in local_worker.context.leases]))
    )
    run_unit(local_worker.job_id, shard_unit(0))
    assert held == [[shard_unit(0)]] * len(held)
    assert held
    assert local_worker.context.leases == {}


# -- failed ------------------------------------------------------------------------------------------------------------


def lose_the_model(local_worker: LocalWorker) -> None:
    local_worker.context.close_engine()  # that of the local worker has no file


def test_an_error_that_no_image_is_to_blame_for_fails_the_job(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    lose_the_model(local_worker)
    run_unit(local_worker.job_id, shard_unit(0))
    assert state(local_worker) is JobState.FAILED
    assert "the model 'tiny' cannot be read" in message(local_worker)
    assert local_worker.store.view(local_worker.job_id).finished_at is not None
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]


def test_an_error_is_no_crash_however_often_the_job_is_tried(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    lose_the_model(local_worker)
    for _ in range(local_worker.context.settings.max_crashes + 2):
        run_unit(local_worker.job_id, shard_unit(0))
        assert "the model 'tiny' cannot be read" in message(local_worker)
        local_worker.submit()
        run_unit(local_worker.job_id, PLAN)


def test_a_mistake_of_our_own_fails_the_job_at_once_and_says_what_it_is(
    local_worker: LocalWorker, caplog: pytest.LogCaptureFixture
) -> None:
    """Left to run out, the lease would count as a crash: five times ten seconds until the job fails for no reason."""
    local_worker.plan(12, shard_size=12)

    def divide(_images: UInt8Array) -> None:
        raise ZeroDivisionError("a mistake")

    local_worker.use(PlainEngine(on_infer=divide))
    run_unit(local_worker.job_id, shard_unit(0))
    assert state(local_worker) is JobState.FAILED
    assert "ZeroDivisionError: a mistake" in message(local_worker)
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]
    assert any(record.exc_info for record in caplog.records)


def crash_often(local_worker: LocalWorker) -> None:
    for _ in range(local_worker.context.settings.max_crashes):
        local_worker.crash(local_worker.claim(), "SIGSEGV")


def test_a_shard_that_kills_its_workers_for_no_image_fails_the_job(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    crash_often(local_worker)
    local_worker.use(PlainEngine(on_infer=refuse))
    run_unit(local_worker.job_id, shard_unit(0))
    assert state(local_worker) is JobState.FAILED
    assert message(local_worker) == "shard-00000 ended its worker 5 times. Last: SIGSEGV."
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]


def test_a_job_that_failed_by_crashes_can_be_tried_again(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    crash_often(local_worker)
    run_unit(local_worker.job_id, shard_unit(0))
    local_worker.submit()
    run_all(local_worker)
    assert state(local_worker) is JobState.DONE


def test_one_crash_less_than_allowed_is_tried_again(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    for _ in range(local_worker.context.settings.max_crashes - 1):
        local_worker.crash(local_worker.claim(), "SIGSEGV")
    run_unit(local_worker.job_id, shard_unit(0))
    assert len(local_worker.records()) == 4


# -- conversions -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def conversion(local_worker: LocalWorker) -> Conversion:
    """The one that `outcome` asks for, and somebody waits for."""
    conversion = Conversion(local_worker.store.redis, "request-1")
    conversion.want()
    return conversion


def outcome(local_worker: LocalWorker, request: dict[str, Any]) -> dict[str, str]:
    convert("request-1", request)
    fields = local_worker.store.redis.hgetall(conversion_key("request-1"))
    assert 0 < local_worker.store.redis.ttl(conversion_key("request-1")) <= 86_400
    return {key.decode(): value.decode() for key, value in fields.items()}


def test_a_model_is_converted_and_its_name_and_identity_reported(local_worker: LocalWorker, tmp_path: Path) -> None:
    out = tmp_path / "digits.onnx"
    found = outcome(local_worker, {"model": str(DIGITS / "digits.weights"), "out": str(out), "name": "numbers"})
    model = json.loads(found["model"])
    assert (found["state"], model["name"]) == ("done", "numbers")
    assert model["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_conversion_whose_message_comes_twice_is_done_once(local_worker: LocalWorker, tmp_path: Path) -> None:
    request = {"model": str(DIGITS / "digits.weights"), "out": str(tmp_path / "digits.onnx"), "name": "numbers"}
    first = outcome(local_worker, request)
    (tmp_path / "digits.onnx").unlink()
    assert outcome(local_worker, request) == first
    assert not (tmp_path / "digits.onnx").exists()


def test_a_conversion_that_fails_says_why(local_worker: LocalWorker) -> None:
    found = outcome(local_worker, {"model": "/nowhere/a.weights"})
    assert (found["state"], found["message"]) == ("failed", "no model file '/nowhere/a.weights'")


@pytest.mark.slow
def test_a_conversion_that_is_stopped_goes_back_to_the_queue_and_is_given_up_after_two_tries(
    local_worker: LocalWorker,
) -> None:
    local_worker.context.request_stop()
    request = {"model": str(DIGITS / "digits.weights")}
    for _ in range(2):
        assert outcome(local_worker, request)["state"] == "queued"
    found = outcome(local_worker, request)
    assert found["state"] == "failed"
    assert found["message"] == "it was begun 2 times, and its worker was stopped each time"
    assert local_worker.queue.pending() == {("convert", "request-1")}


@pytest.mark.slow
def test_a_conversion_that_goes_back_to_the_queue_is_behind_the_others(local_worker: LocalWorker) -> None:
    local_worker.context.request_stop()
    local_worker.queue.put_convert("another", {})
    outcome(local_worker, {"model": str(DIGITS / "digits.weights")})
    waiting = [
        name.split(b"--")[1] for name in local_worker.store.redis.lrange(list_key(local_worker.queue.name), 0, -1)
    ]
    assert waiting == [b"another", b"request-1"]


def test_a_conversion_that_nobody_waits_for_is_not_begun(
    local_worker: LocalWorker, conversion: Conversion, tmp_path: Path
) -> None:
    conversion.cancel()
    found = outcome(local_worker, {"model": str(DIGITS / "digits.weights"), "out": str(tmp_path / "digits.onnx")})
    assert found == {"state": "cancelled"}
    assert not (tmp_path / "digits.onnx").exists()


@pytest.mark.slow
def test_a_conversion_ends_with_who_waits_for_it_and_shows_while_it_runs(
    local_worker: LocalWorker, conversion: Conversion, tmp_path: Path
) -> None:
    heart = HeartbeatThread(local_worker.context, local_worker.store.redis)
    seen: list[tuple[str, str]] = []

    def look_and_leave() -> None:
        wait_for(lambda: local_worker.context.doing.endswith("converting"), "the conversion")
        heart.report()
        (worker,) = local_worker.store.workers()
        seen.append((worker.state, worker.doing))
        conversion.cancel()

    leaving = threading.Thread(target=look_and_leave)
    leaving.start()
    found = outcome(local_worker, {"model": str(write_endless(tmp_path / "endless.onnx")), "preprocess": "unit"})
    leaving.join()
    assert found["state"] == "cancelled"
    assert seen == [("busy", "convert-request-1: endless.onnx, converting")]
    assert (local_worker.context.conversion, local_worker.context.doing) == ("", "")


@pytest.mark.slow
def test_a_model_that_never_comes_to_an_end_is_given_up(local_worker: LocalWorker, tmp_path: Path) -> None:
    local_worker.context.settings = local_worker.context.settings.model_copy(update={"convert_limit_s": 3.0})
    found = outcome(local_worker, {"model": str(write_endless(tmp_path / "endless.onnx")), "preprocess": "unit"})
    assert found["state"] == "failed"
    assert found["message"].startswith("the conversion was ended after 3 s, while converting. A model whose graph")


# -- places ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [PLAN, shard_unit(0), FINISH])
def test_a_job_outside_of_the_allowed_places_fails_and_nothing_is_read_or_written(
    local_worker: LocalWorker, tmp_path: Path, unit: str
) -> None:
    local_worker.use(PlainEngine(on_infer=refuse))
    local_worker.plan(4)
    if unit == FINISH:
        local_worker.store.update(local_worker.job_id, state="finishing")
    elif unit == PLAN:
        local_worker.store.update(local_worker.job_id, state="queued")
    before = sorted(path for path in local_worker.output.rglob("*"))
    local_worker.context.settings = local_worker.context.settings.model_copy(
        update={"roots": (str(tmp_path / "allowed"),)}
    )
    run_unit(local_worker.job_id, unit)
    assert state(local_worker) is JobState.FAILED
    assert f"the source '{local_worker.photos}' is in none of the places allowed here (TRTJOB_ROOTS)" in message(
        local_worker
    )
    assert sorted(path for path in local_worker.output.rglob("*")) == before


def test_a_job_with_a_way_up_in_its_output_is_refused(local_worker: LocalWorker, tmp_path: Path) -> None:
    local_worker.use(PlainEngine(on_infer=refuse))
    spec = local_worker.submit()
    forged = spec.model_dump(mode="json") | {"output": f"{tmp_path}/out/../elsewhere"}
    local_worker.store.redis.hset(job_key(local_worker.job_id), "spec", json.dumps(forged))
    run_unit(local_worker.job_id, PLAN)
    (exclusion,) = local_worker.context.exclusions.of(local_worker.job_id).values()
    assert "cannot read it" in exclusion.reason
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("option", ["model", "cfg", "labels", "calibrate", "out"])
def test_a_conversion_outside_of_the_allowed_places_is_refused(
    local_worker: LocalWorker, tmp_path: Path, option: str
) -> None:
    local_worker.context.settings = local_worker.context.settings.model_copy(update={"roots": (str(DIGITS),)})
    convert("request-1", {"model": str(DIGITS / "digits.weights"), option: str(tmp_path / "file")})
    outcome = local_worker.store.redis.hgetall(conversion_key("request-1"))
    assert outcome[b"state"] == b"failed"
    assert f"the {option} '{tmp_path / 'file'}' is in none of the places".encode() in outcome[b"message"]


@pytest.mark.parametrize("option", ["model", "cfg", "labels"])
def test_no_file_is_looked_for_beside_a_link_into_an_allowed_place(
    local_worker: LocalWorker, tmp_path: Path, option: str
) -> None:
    local_worker.context.settings = local_worker.context.settings.model_copy(update={"roots": (str(DIGITS),)})
    link = tmp_path / "digits"
    link.symlink_to(DIGITS / f"digits.{dict(model='weights', cfg='cfg', labels='names')[option]}")
    found = outcome(local_worker, {"model": str(DIGITS / "digits.weights"), option: str(link)})
    assert found["state"] == "failed"
    assert f"the folder of the {option} '{tmp_path}' is in none of the places" in found["message"]


@pytest.mark.parametrize("folder", ["cfg", "data"])
def test_no_file_of_a_project_is_read_outside_of_the_allowed_places(
    local_worker: LocalWorker, tmp_path: Path, folder: str
) -> None:
    (tmp_path / "cfg").mkdir()
    roots = tuple(str(tmp_path / name) for name in ("backup", "cfg", "data") if name != folder)
    local_worker.context.settings = local_worker.context.settings.model_copy(update={"roots": roots})
    found = outcome(local_worker, {"model": str(tmp_path / "backup/net.weights")})
    assert found["state"] == "failed"
    assert f"the {folder} of the model '{tmp_path / folder}' is in none of the places" in found["message"]


def test_a_message_cannot_have_the_code_of_a_model_file_run(local_worker: LocalWorker) -> None:
    convert("request-1", {"model": str(DIGITS / "digits.weights"), "allow_unsafe": True})
    outcome = local_worker.store.redis.hgetall(conversion_key("request-1"))
    assert outcome[b"state"] == b"failed"
    assert b"a worker runs no code" in outcome[b"message"]
