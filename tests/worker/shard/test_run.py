"""One shard to its commit, and the ways in which it is left."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import crashing_decoder, make_poison, put_into_every_process
from samples import MODEL, job_spec
from worker.local_worker import LocalWorker
from worker.plain_engine import PlainEngine, write_image, write_images

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, StorageError, TooManyFailures
from trtjob.imaging import scripts
from trtjob.jobs.folder import ShardManifest, manifest_key, results_key
from trtjob.jobs.plan import checkpoint_key, read_shard
from trtjob.jobs.records import Record, from_line, to_line
from trtjob.jobs.spec import Annotate
from trtjob.jobs.states import JobState
from trtjob.queue.keys import lease_key
from trtjob.queue.leases import Lease
from trtjob.queue.rq_internals import list_key
from trtjob.queue.submit import submit
from trtjob.queue.units import FINISH, PLAN, shard_unit
from trtjob.worker.interrupter import Interrupted
from trtjob.worker.shard.run import REPORT_S
from trtjob.worker.tasks import run_unit


class Counting:
    """Counts the images that the engine has seen, and does something at one of them."""

    def __init__(self, at: int = 0, action: object = None) -> None:
        self.lock = threading.Lock()
        self.images = 0
        self.at = at
        self.action = action

    def __call__(self, images: UInt8Array) -> None:
        with self.lock:
            self.images += len(images)
            is_it = self.images == self.at
        if is_it and callable(self.action):
            self.action()


def interrupted(local_worker: LocalWorker, lease: Lease) -> str:
    with pytest.raises(Interrupted) as caught:
        local_worker.run(lease)
    return caught.value.reason


def checkpoints(local_worker: LocalWorker) -> list[Path]:
    return sorted((Path(local_worker.folder.uri) / "shards").glob("00000.part-*.jsonl"))


def checkpoint(local_worker: LocalWorker) -> dict[str, Record]:
    (path,) = checkpoints(local_worker)
    lines = path.read_bytes().splitlines()
    return {record.image: record for record in map(from_line, lines)}


def poison_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have image processes die of some images."""
    site = put_into_every_process(tmp_path / "site", crashing_decoder("SIGSEGV"))
    monkeypatch.setenv("PYTHONPATH", site["PYTHONPATH"])


# -- to the commit -----------------------------------------------------------------------------------------------------


def test_a_shards_records_are_committed_in_the_order_of_its_plan(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(7, shard_size=7)
    write_image(local_worker.photos / keys[2]).write_bytes(b"rubbish")
    lease = local_worker.claim()
    local_worker.run(lease)
    records = local_worker.records()
    assert list(records) == keys
    assert [key for key in keys if records[key].error] == [keys[2]]
    manifest = local_worker.folder.manifest(0)
    assert manifest is not None
    assert (manifest.ok, manifest.failed, manifest.attempt, manifest.worker) == (6, 1, 1, "worker-1")
    assert manifest.results == results_key(0, f"{lease.token}-{lease.call}")
    assert set(manifest.busy_s) == {"read", "decode", "resize", "infer", "nms"}


def test_a_commit_is_counted_and_gives_the_unit_up(local_worker: LocalWorker) -> None:
    local_worker.plan(8)
    local_worker.run(local_worker.claim())
    view = local_worker.store.view(local_worker.job_id)
    assert (view.ok, view.failed, view.shards_done, view.live_done) == (4, 0, 1, 0)
    assert local_worker.store.is_leased(local_worker.job_id, [shard_unit(0)]) == [False]


def test_only_the_last_commit_asks_for_the_jobs_end(local_worker: LocalWorker) -> None:
    local_worker.plan(8)
    local_worker.run(local_worker.claim(shard_unit(1)))
    assert (local_worker.job_id, FINISH) not in local_worker.queue.pending()
    local_worker.run(local_worker.claim(shard_unit(0)))
    assert (local_worker.job_id, FINISH) in local_worker.queue.pending()
    assert local_worker.store.state(local_worker.job_id) is JobState.FINISHING


def manifest_of(token: int, *, ok: int, failed: int) -> ShardManifest:
    """Return what another worker would have committed of the first shard."""
    return ShardManifest(
        shard=0,
        results=results_key(0, str(token)),
        ok=ok,
        failed=failed,
        attempt=1,
        worker="w",
        device="CPU",
        elapsed_s=1.0,
        busy_s={},
    )


def test_a_shard_that_is_committed_in_the_folder_is_only_counted(local_worker: LocalWorker) -> None:
    """The worker died between its commit and the count, or the server has lost the count."""
    local_worker.plan(4)
    counting = Counting()
    local_worker.use(PlainEngine(on_infer=counting))
    local_worker.folder.commit_shard(manifest_of(1, ok=3, failed=1))
    local_worker.run(local_worker.claim())
    assert counting.images == 0
    view = local_worker.store.view(local_worker.job_id)
    assert (view.ok, view.failed, view.state) == (3, 1, JobState.FINISHING)


def test_of_two_commits_the_first_is_in_force(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    first = manifest_of(99, ok=4, failed=0)
    local_worker.use(PlainEngine(on_infer=Counting(4, lambda: local_worker.folder.commit_shard(first))))
    lease = local_worker.claim()
    local_worker.run(lease)
    assert local_worker.folder.manifest(0) == first
    assert [name for name in local_worker.folder.storage.list("shards") if f".{lease.token}" in name] == []
    assert local_worker.store.view(local_worker.job_id).ok == 4


def test_attempts_write_to_different_files_when_a_wiped_server_gives_their_token_out_again(
    local_worker: LocalWorker,
) -> None:
    def run() -> tuple[int, str]:
        local_worker.store.redis.flushall()
        local_worker.plan(4)
        lease = local_worker.claim()
        local_worker.run(lease)
        manifest = local_worker.folder.manifest(0)
        assert manifest is not None
        return lease.token, manifest.results

    first_token, first = run()
    local_worker.folder.storage.delete(manifest_key(0))
    again_token, again = run()
    assert first_token == again_token
    assert first != again
    assert local_worker.folder.storage.exists(first)


def test_the_heart_sees_that_something_moves(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    before = local_worker.context.steps
    local_worker.run(local_worker.claim())
    assert local_worker.context.steps - before >= 4
    assert local_worker.context.images == 4


def test_the_seconds_of_work_add_up_over_shards(local_worker: LocalWorker) -> None:
    """The heart takes differences: a stopwatch that began anew with each shard would show an idle worker."""
    local_worker.plan(8)
    local_worker.run(local_worker.claim())
    first = local_worker.context.busy_s()
    local_worker.run(local_worker.claim(shard_unit(1)))
    second = local_worker.context.busy_s()
    assert set(first) == {"read", "decode", "resize", "infer", "nms"}
    assert all(second[stage] > first[stage] for stage in first)


# -- left in the middle ------------------------------------------------------------------------------------------------


def test_a_stop_takes_effect_within_the_images_in_flight(local_worker: LocalWorker) -> None:
    local_worker.plan(60, shard_size=60)
    counting = Counting(10, local_worker.stop)
    local_worker.use(PlainEngine(on_infer=counting))
    assert interrupted(local_worker, local_worker.claim()) == "stop"
    assert counting.images <= 10 + 4
    assert local_worker.folder.manifest(0) is None


SLOW_S = 0.01


def slowly(counting: Counting) -> Callable[[UInt8Array], None]:
    """Have an engine take its time."""

    def infer(images: UInt8Array) -> None:
        counting(images)
        time.sleep(SLOW_S)

    return infer


def test_a_cancelled_job_stops_within_a_second(local_worker: LocalWorker) -> None:
    local_worker.plan(400, shard_size=400)
    counting = Counting(10, lambda: local_worker.store.move(local_worker.job_id, JobState.CANCELLED))
    local_worker.use(PlainEngine(on_infer=slowly(counting)))
    assert interrupted(local_worker, local_worker.claim()) == JobState.CANCELLED
    assert counting.images < 10 + 2 * REPORT_S / SLOW_S
    assert local_worker.folder.manifest(0) is None


def test_a_shard_that_another_has_claimed_is_left(local_worker: LocalWorker) -> None:
    local_worker.plan(400, shard_size=400)

    def lose() -> None:
        local_worker.store.redis.delete(lease_key(local_worker.job_id, shard_unit(0)))
        local_worker.claim(owner="worker-2")

    local_worker.use(PlainEngine(on_infer=slowly(Counting(10, lose))))
    assert interrupted(local_worker, local_worker.claim()) == "lost"
    assert local_worker.folder.manifest(0) is None
    assert checkpoints(local_worker) == [], "what it had is no concern of the other"
    assert local_worker.store.view(local_worker.job_id).ok == 0


@pytest.mark.parametrize("is_lost", [pytest.param(True, id="lost"), pytest.param(False, id="cancelled")])
def test_a_shard_that_is_complete_is_committed_whatever_happened_at_its_last_image(
    local_worker: LocalWorker, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtjob.worker.shard.run.REPORT_S", 600.0)  # no look falls between the last image and the end
    local_worker.plan(4)

    def happen() -> None:
        if is_lost:
            local_worker.store.redis.delete(lease_key(local_worker.job_id, shard_unit(0)))
            local_worker.claim(owner="worker-2")
        else:
            local_worker.store.move(local_worker.job_id, JobState.CANCELLED)

    local_worker.use(PlainEngine(on_infer=Counting(4, happen)))
    local_worker.run(local_worker.claim())
    assert len(local_worker.records()) == 4
    assert local_worker.store.view(local_worker.job_id).ok == 4


@pytest.mark.slow
def test_what_was_done_when_a_shard_was_left_is_not_done_again(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(40, shard_size=40)
    local_worker.use(PlainEngine(on_infer=Counting(20, local_worker.stop)))
    lease = local_worker.claim()
    interrupted(local_worker, lease)
    done = checkpoint(local_worker)
    assert 10 < len(done) < 40
    local_worker.store.release(lease, take_back=True)
    local_worker.context.interrupter.reset()
    counting = Counting()
    local_worker.use(PlainEngine(on_infer=counting))
    local_worker.run(local_worker.claim())
    assert counting.images == 40 - len(done)
    assert list(local_worker.records()) == keys
    assert checkpoints(local_worker) == []


def test_an_interrupted_shard_commits_the_same_bytes_as_one_in_peace(local_worker: LocalWorker) -> None:
    local_worker.plan(24, shard_size=12)
    local_worker.use(PlainEngine(on_infer=Counting(5, local_worker.stop)))
    lease = local_worker.claim()
    interrupted(local_worker, lease)
    local_worker.store.release(lease, take_back=True)
    local_worker.context.interrupter.reset()
    local_worker.run(local_worker.claim())
    local_worker.run(local_worker.claim(shard_unit(1)))
    # All images of both shards are the same one, so only their names differ.
    first, second = (
        [to_line(record).replace(record.image.encode(), b"") for record in local_worker.records(shard).values()]
        for shard in (0, 1)
    )
    assert first == second


def test_a_checkpoint_of_images_that_are_not_in_the_plan_is_no_help(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(4)
    key = checkpoint_key(local_worker.folder.spec(), 0, read_shard(local_worker.folder, 0, 0))
    local_worker.folder.storage.write(key, to_line(Record("other.png", "ab", 1, 1, detections=())))
    local_worker.run(local_worker.claim())
    assert list(local_worker.records()) == keys


@pytest.mark.slow
def test_a_checkpoint_of_an_earlier_life_of_the_job_is_no_help(local_worker: LocalWorker) -> None:
    """Its folder was removed, and its images are others now; who slept meanwhile may still write what it had."""
    local_worker.plan(12, shard_size=12)
    local_worker.use(PlainEngine(on_infer=Counting(6, local_worker.stop)))
    interrupted(local_worker, local_worker.claim())
    (before,) = checkpoints(local_worker)
    old = before.read_bytes()
    shutil.rmtree(local_worker.output)
    local_worker.store.forget(local_worker.job_id)
    local_worker.queue.redis.delete(list_key(local_worker.queue.name))
    local_worker.context.interrupter.reset()
    local_worker.context.stopping = False
    local_worker.plan(12, shard_size=12)
    before.parent.mkdir(exist_ok=True)
    before.write_bytes(old)
    counting = Counting()
    local_worker.use(PlainEngine(on_infer=counting))
    local_worker.run(local_worker.claim())
    assert counting.images == 12


def block_shards(local_worker: LocalWorker) -> None:
    """Put a file where the folder of the results should be."""
    (Path(local_worker.folder.uri) / "shards").write_bytes(b"")


def test_a_checkpoint_that_cannot_be_written_only_costs_its_work(local_worker: LocalWorker) -> None:
    local_worker.plan(40, shard_size=40)

    def stop() -> None:
        block_shards(local_worker)
        local_worker.stop()

    local_worker.use(PlainEngine(on_infer=Counting(10, stop)))
    assert interrupted(local_worker, local_worker.claim()) == "stop"


def test_results_that_cannot_be_written_are_an_error_of_the_place(local_worker: LocalWorker) -> None:
    local_worker.plan(4)
    local_worker.use(PlainEngine(on_infer=Counting(4, lambda: block_shards(local_worker))))
    with pytest.raises(StorageError, match="cannot write"):
        local_worker.run(local_worker.claim())


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_image_that_ends_its_image_process_is_set_aside_and_told(
    local_worker: LocalWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_decoder(tmp_path, monkeypatch)
    keys = local_worker.plan(6, shard_size=6)
    make_poison(local_worker.photos / keys[1])
    local_worker.run(local_worker.claim())
    error = local_worker.records()[keys[1]].error
    assert error is not None
    assert (error.kind, error.attempts) == (FailureKind.CRASHED, 2)
    assert "SIGSEGV" in error.message
    assert [record.error is None for record in local_worker.records().values()] == [True, False, True, True, True, True]
    told = [event for event in local_worker.store.events(local_worker.job_id) if event.event == "set_aside"]
    assert [event.detail for event in told] == [keys[1]]
    assert local_worker.attempts() == 0  # the worker itself did not die


# -- too many failures -------------------------------------------------------------------------------------------------


def break_images(photos: Path, keys: list[str]) -> None:
    for key in keys:
        (photos / key).write_bytes(b"rubbish")


@pytest.mark.parametrize("limit", [pytest.param("3", id="number"), pytest.param("5%", id="share")])
def test_more_failures_than_allowed_end_the_job(local_worker: LocalWorker, limit: str) -> None:
    keys = local_worker.plan(60, shard_size=60, max_failures=limit)
    break_images(local_worker.photos, keys[:30])
    with pytest.raises(TooManyFailures, match=rf"more than {limit} of the images failed \(--max-failures\)"):
        local_worker.run(local_worker.claim())
    assert local_worker.folder.manifest(0) is None


def test_as_many_failures_as_allowed_are_none_too_many(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(60, shard_size=60, max_failures="30")
    break_images(local_worker.photos, keys[:30])
    local_worker.run(local_worker.claim())
    assert local_worker.store.view(local_worker.job_id).failed == 30


@pytest.mark.parametrize("limit", [pytest.param("3", id="number"), pytest.param("50%", id="share")])
def test_the_last_images_of_a_shard_count_too(local_worker: LocalWorker, limit: str) -> None:
    """All of them are through the gate before the first has failed."""
    keys = local_worker.plan(4, max_failures=limit)
    break_images(local_worker.photos, keys)
    with pytest.raises(TooManyFailures):
        local_worker.run(local_worker.claim())
    assert local_worker.folder.manifest(0) is None


def test_failures_of_other_shards_count_too(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(8, max_failures="3")
    break_images(local_worker.photos, [*keys[:2], *keys[4:6]])
    local_worker.run(local_worker.claim())
    with pytest.raises(TooManyFailures):
        local_worker.run(local_worker.claim(shard_unit(1)))


def test_failures_that_others_have_committed_meanwhile_count_too(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(8, max_failures="3")
    break_images(local_worker.photos, [*keys[:2], *keys[4:6]])
    other = local_worker.claim(shard_unit(1), "worker-2")
    local_worker.use(PlainEngine(on_infer=Counting(2, lambda: local_worker.store.commit(other, 1, ok=2, failed=2))))
    with pytest.raises(TooManyFailures):
        local_worker.run(local_worker.claim())


@pytest.mark.slow
def test_failed_images_are_tried_again_when_the_job_is_continued(local_worker: LocalWorker) -> None:
    keys = local_worker.plan(20, shard_size=20, max_failures="1")
    good = (local_worker.photos / keys[0]).read_bytes()
    break_images(local_worker.photos, keys[-2:])
    lease = local_worker.claim()
    with pytest.raises(TooManyFailures):
        local_worker.run(lease)
    local_worker.store.release(lease)
    kept = len(checkpoint(local_worker))
    (local_worker.photos / keys[-1]).write_bytes(good)
    counting = Counting()
    local_worker.use(PlainEngine(on_infer=counting))
    local_worker.run(local_worker.claim())
    assert [key for key, record in local_worker.records().items() if record.error] == [keys[-2]]
    assert kept >= 20 - local_worker.context.settings.window - 2
    assert counting.images == 19 - kept  # the others were good before


@pytest.mark.slow
def test_an_image_that_ends_its_image_process_is_not_tried_again(
    local_worker: LocalWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_decoder(tmp_path, monkeypatch)
    keys = local_worker.plan(4, max_failures="1")
    make_poison(local_worker.photos / keys[0])
    break_images(local_worker.photos, keys[1:2])
    with pytest.raises(TooManyFailures):
        local_worker.run(local_worker.claim())
    kept = checkpoint(local_worker)
    assert keys[0] in kept
    assert keys[1] not in kept


@pytest.mark.slow
def test_seconds_of_work_never_go_down_while_engines_come_and_go(local_worker: LocalWorker) -> None:
    local_worker.plan(8)
    local_worker.run(local_worker.claim())
    seen: list[float] = []
    has_ended = threading.Event()

    def read() -> None:
        while not has_ended.is_set():
            seen.append(sum(local_worker.context.busy_s().values()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            local_worker.use(PlainEngine())
        local_worker.run(local_worker.claim(shard_unit(1)))
        local_worker.context.close_engine()
    finally:
        has_ended.set()
        reader.join()
    assert seen[-1] > 0
    assert seen == sorted(seen)


# -- what pictures cannot show -----------------------------------------------------------------------------------------


def test_the_log_says_once_of_a_job_which_labels_have_no_font(
    local_worker: LocalWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    scripts.system_fonts.cache_clear()
    scripts.font_runs.cache_clear()
    spec = job_spec(local_worker.photos, local_worker.output, shard_size=2)
    drawn = spec.options.model_copy(update={"annotate": Annotate.ALL})
    spec = spec.model_copy(update={"options": drawn, "model": MODEL.model_copy(update={"labels": ("แมว", "dog")})})
    write_images(local_worker.photos, 4)
    submit(local_worker.store, local_worker.queue, spec)
    run_unit(spec.job_id, PLAN)
    for shard in (0, 1):
        local_worker.run(local_worker.claim(shard_unit(shard)))
    said = [record.message for record in caplog.records if "no font here has" in record.message]
    assert len(said) == 1
    assert "แมว" in said[0]
    scripts.system_fonts.cache_clear()
    scripts.font_runs.cache_clear()
