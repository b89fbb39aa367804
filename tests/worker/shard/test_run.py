"""One shard to its commit, and the ways in which it is left."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from poison import crashing_decoder, make_poison, put_into_every_process
from worker.local_worker import Desk
from worker.plain_engine import PlainEngine, write_image

from trtjob.engines.protocol import UInt8Array
from trtjob.errors import FailureKind, StorageError, TooManyFailures
from trtjob.jobs.folder import ShardManifest, manifest_key, results_key
from trtjob.jobs.plan import checkpoint_key, read_shard
from trtjob.jobs.records import Record, from_line, to_line
from trtjob.jobs.states import JobState
from trtjob.queue.job_store import Lease, lease_key
from trtjob.queue.units import FINISH, shard_unit
from trtjob.worker.context import Interrupted
from trtjob.worker.shard.run import REPORT_S


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


def interrupted(desk: Desk, lease: Lease) -> str:
    with pytest.raises(Interrupted) as caught:
        desk.run(lease)
    return caught.value.reason


def checkpoints(desk: Desk) -> list[Path]:
    return sorted((Path(desk.folder.uri) / "shards").glob("00000.part-*.jsonl"))


def checkpoint(desk: Desk) -> dict[str, Record]:
    (path,) = checkpoints(desk)
    lines = path.read_bytes().splitlines()
    return {record.image: record for record in map(from_line, lines)}


def poison_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have image processes die of some images."""
    site = put_into_every_process(tmp_path / "site", crashing_decoder("SIGSEGV"))
    monkeypatch.setenv("PYTHONPATH", site["PYTHONPATH"])


# -- to the commit -----------------------------------------------------------------------------------------------------


def test_a_shards_records_are_committed_in_the_order_of_its_plan(desk: Desk) -> None:
    keys = desk.plan(7, shard_size=7)
    write_image(desk.photos / keys[2]).write_bytes(b"rubbish")
    lease = desk.claim()
    desk.run(lease)
    records = desk.records()
    assert list(records) == keys
    assert [key for key in keys if records[key].error] == [keys[2]]
    manifest = desk.folder.manifest(0)
    assert manifest is not None
    assert (manifest.ok, manifest.failed, manifest.attempt, manifest.worker) == (6, 1, 1, "worker-1")
    assert manifest.results == results_key(0, f"{lease.token}-{lease.call}")
    assert set(manifest.busy_s) == {"read", "decode", "resize", "infer", "nms"}


def test_a_commit_is_counted_and_gives_the_unit_up(desk: Desk) -> None:
    desk.plan(8)
    desk.run(desk.claim())
    view = desk.store.view(desk.job_id)
    assert (view.ok, view.failed, view.shards_done, view.live_done) == (4, 0, 1, 0)
    assert desk.store.is_leased(desk.job_id, [shard_unit(0)]) == [False]


def test_only_the_last_commit_asks_for_the_jobs_end(desk: Desk) -> None:
    desk.plan(8)
    desk.run(desk.claim(shard_unit(1)))
    assert (desk.job_id, FINISH) not in desk.queue.pending()
    desk.run(desk.claim(shard_unit(0)))
    assert (desk.job_id, FINISH) in desk.queue.pending()
    assert desk.store.state(desk.job_id) is JobState.FINISHING


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


def test_a_shard_that_is_committed_in_the_folder_is_only_counted(desk: Desk) -> None:
    """The worker died between its commit and the count, or the server has lost the count."""
    desk.plan(4)
    counting = Counting()
    desk.use(PlainEngine(on_infer=counting))
    desk.folder.commit_shard(manifest_of(1, ok=3, failed=1))
    desk.run(desk.claim())
    assert counting.images == 0
    view = desk.store.view(desk.job_id)
    assert (view.ok, view.failed, view.state) == (3, 1, JobState.FINISHING)


def test_of_two_commits_the_first_is_in_force(desk: Desk) -> None:
    desk.plan(4)
    first = manifest_of(99, ok=4, failed=0)
    desk.use(PlainEngine(on_infer=Counting(4, lambda: desk.folder.commit_shard(first))))
    lease = desk.claim()
    desk.run(lease)
    assert desk.folder.manifest(0) == first
    assert [name for name in desk.folder.storage.list("shards") if f".{lease.token}" in name] == []
    assert desk.store.view(desk.job_id).ok == 4


def test_attempts_write_to_different_files_when_a_wiped_server_gives_their_token_out_again(desk: Desk) -> None:
    def run() -> tuple[int, str]:
        desk.store.redis.flushall()
        desk.plan(4)
        lease = desk.claim()
        desk.run(lease)
        manifest = desk.folder.manifest(0)
        assert manifest is not None
        return lease.token, manifest.results

    first_token, first = run()
    desk.folder.storage.delete(manifest_key(0))
    again_token, again = run()
    assert first_token == again_token
    assert first != again
    assert desk.folder.storage.exists(first)


def test_the_heart_sees_that_something_moves(desk: Desk) -> None:
    desk.plan(4)
    before = desk.context.steps
    desk.run(desk.claim())
    assert desk.context.steps - before >= 4
    assert desk.context.images == 4


def test_the_seconds_of_work_add_up_over_shards(desk: Desk) -> None:
    """The heart takes differences: a stopwatch that began anew with each shard would show an idle worker."""
    desk.plan(8)
    desk.run(desk.claim())
    first = desk.context.busy_s()
    desk.run(desk.claim(shard_unit(1)))
    second = desk.context.busy_s()
    assert set(first) == {"read", "decode", "resize", "infer", "nms"}
    assert all(second[stage] > first[stage] for stage in first)


# -- left in the middle ------------------------------------------------------------------------------------------------


def test_a_stop_takes_effect_within_the_images_in_flight(desk: Desk) -> None:
    desk.plan(60, shard_size=60)
    counting = Counting(10, desk.stop)
    desk.use(PlainEngine(on_infer=counting))
    assert interrupted(desk, desk.claim()) == "stop"
    assert counting.images <= 10 + 4
    assert desk.folder.manifest(0) is None


SLOW_S = 0.01


def slowly(counting: Counting) -> Callable[[UInt8Array], None]:
    """Have an engine take its time."""

    def infer(images: UInt8Array) -> None:
        counting(images)
        time.sleep(SLOW_S)

    return infer


def test_a_cancelled_job_stops_within_a_second(desk: Desk) -> None:
    desk.plan(400, shard_size=400)
    counting = Counting(10, lambda: desk.store.move(desk.job_id, JobState.CANCELLED))
    desk.use(PlainEngine(on_infer=slowly(counting)))
    assert interrupted(desk, desk.claim()) == JobState.CANCELLED
    assert counting.images < 10 + 2 * REPORT_S / SLOW_S
    assert desk.folder.manifest(0) is None


def test_a_shard_that_another_has_claimed_is_left(desk: Desk) -> None:
    desk.plan(400, shard_size=400)

    def lose() -> None:
        desk.store.redis.delete(lease_key(desk.job_id, shard_unit(0)))
        desk.claim(owner="worker-2")

    desk.use(PlainEngine(on_infer=slowly(Counting(10, lose))))
    assert interrupted(desk, desk.claim()) == "lost"
    assert desk.folder.manifest(0) is None
    assert checkpoints(desk) == [], "what it had is no concern of the other"
    assert desk.store.view(desk.job_id).ok == 0


@pytest.mark.parametrize("is_lost", [pytest.param(True, id="lost"), pytest.param(False, id="cancelled")])
def test_a_shard_that_is_complete_is_committed_whatever_happened_at_its_last_image(
    desk: Desk, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtjob.worker.shard.run.REPORT_S", 600.0)  # no look falls between the last image and the end
    desk.plan(4)

    def happen() -> None:
        if is_lost:
            desk.store.redis.delete(lease_key(desk.job_id, shard_unit(0)))
            desk.claim(owner="worker-2")
        else:
            desk.store.move(desk.job_id, JobState.CANCELLED)

    desk.use(PlainEngine(on_infer=Counting(4, happen)))
    desk.run(desk.claim())
    assert len(desk.records()) == 4
    assert desk.store.view(desk.job_id).ok == 4


def test_what_was_done_when_a_shard_was_left_is_not_done_again(desk: Desk) -> None:
    keys = desk.plan(40, shard_size=40)
    desk.use(PlainEngine(on_infer=Counting(20, desk.stop)))
    lease = desk.claim()
    interrupted(desk, lease)
    done = checkpoint(desk)
    assert 10 < len(done) < 40
    desk.store.release(lease, take_back=True)
    desk.context.interrupter.reset()
    counting = Counting()
    desk.use(PlainEngine(on_infer=counting))
    desk.run(desk.claim())
    assert counting.images == 40 - len(done)
    assert list(desk.records()) == keys
    assert checkpoints(desk) == []


def test_an_interrupted_shard_commits_the_same_bytes_as_one_in_peace(desk: Desk) -> None:
    desk.plan(24, shard_size=12)
    desk.use(PlainEngine(on_infer=Counting(5, desk.stop)))
    lease = desk.claim()
    interrupted(desk, lease)
    desk.store.release(lease, take_back=True)
    desk.context.interrupter.reset()
    desk.run(desk.claim())
    desk.run(desk.claim(shard_unit(1)))
    # All images of both shards are the same one, so only their names differ.
    first, second = (
        [to_line(record).replace(record.image.encode(), b"") for record in desk.records(shard).values()]
        for shard in (0, 1)
    )
    assert first == second


def test_a_checkpoint_of_images_that_are_not_in_the_plan_is_no_help(desk: Desk) -> None:
    keys = desk.plan(4)
    key = checkpoint_key(desk.folder.spec(), 0, read_shard(desk.folder, 0, 0))
    desk.folder.storage.write(key, to_line(Record("other.png", "ab", 1, 1, detections=())))
    desk.run(desk.claim())
    assert list(desk.records()) == keys


def test_a_checkpoint_of_an_earlier_life_of_the_job_is_no_help(desk: Desk) -> None:
    """Its folder was removed, and its images are others now; who slept meanwhile may still write what it had."""
    desk.plan(12, shard_size=12)
    desk.use(PlainEngine(on_infer=Counting(6, desk.stop)))
    interrupted(desk, desk.claim())
    (before,) = checkpoints(desk)
    old = before.read_bytes()
    shutil.rmtree(desk.output)
    desk.store.forget(desk.job_id)
    desk.queue.redis.delete(f"rq:queue:{desk.queue.name}")
    desk.context.interrupter.reset()
    desk.context.stopping = False
    desk.plan(12, shard_size=12)
    before.parent.mkdir(exist_ok=True)
    before.write_bytes(old)
    counting = Counting()
    desk.use(PlainEngine(on_infer=counting))
    desk.run(desk.claim())
    assert counting.images == 12


def block_shards(desk: Desk) -> None:
    """Put a file where the folder of the results should be."""
    (Path(desk.folder.uri) / "shards").write_bytes(b"")


def test_a_checkpoint_that_cannot_be_written_only_costs_its_work(desk: Desk) -> None:
    desk.plan(40, shard_size=40)

    def stop() -> None:
        block_shards(desk)
        desk.stop()

    desk.use(PlainEngine(on_infer=Counting(10, stop)))
    assert interrupted(desk, desk.claim()) == "stop"


def test_results_that_cannot_be_written_are_an_error_of_the_place(desk: Desk) -> None:
    desk.plan(4)
    desk.use(PlainEngine(on_infer=Counting(4, lambda: block_shards(desk))))
    with pytest.raises(StorageError, match="cannot write"):
        desk.run(desk.claim())


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_image_that_ends_its_image_process_is_set_aside_and_told(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_decoder(tmp_path, monkeypatch)
    keys = desk.plan(6, shard_size=6)
    make_poison(desk.photos / keys[1])
    desk.run(desk.claim())
    error = desk.records()[keys[1]].error
    assert error is not None
    assert (error.kind, error.attempts) == (FailureKind.CRASHED, 2)
    assert "SIGSEGV" in error.message
    assert [record.error is None for record in desk.records().values()] == [True, False, True, True, True, True]
    told = [event for event in desk.store.events(desk.job_id) if event.event == "set_aside"]
    assert [event.detail for event in told] == [keys[1]]
    assert desk.attempts() == 0  # the worker itself did not die


# -- too many failures -------------------------------------------------------------------------------------------------


def break_images(photos: Path, keys: list[str]) -> None:
    for key in keys:
        (photos / key).write_bytes(b"rubbish")


@pytest.mark.parametrize("limit", [pytest.param("3", id="number"), pytest.param("5%", id="share")])
def test_more_failures_than_allowed_end_the_job(desk: Desk, limit: str) -> None:
    keys = desk.plan(60, shard_size=60, max_failures=limit)
    break_images(desk.photos, keys[:30])
    with pytest.raises(TooManyFailures, match=rf"more than {limit} of the images failed \(--max-failures\)"):
        desk.run(desk.claim())
    assert desk.folder.manifest(0) is None


def test_as_many_failures_as_allowed_are_none_too_many(desk: Desk) -> None:
    keys = desk.plan(60, shard_size=60, max_failures="30")
    break_images(desk.photos, keys[:30])
    desk.run(desk.claim())
    assert desk.store.view(desk.job_id).failed == 30


@pytest.mark.parametrize("limit", [pytest.param("3", id="number"), pytest.param("50%", id="share")])
def test_the_last_images_of_a_shard_count_too(desk: Desk, limit: str) -> None:
    """All of them are through the gate before the first has failed."""
    keys = desk.plan(4, max_failures=limit)
    break_images(desk.photos, keys)
    with pytest.raises(TooManyFailures):
        desk.run(desk.claim())
    assert desk.folder.manifest(0) is None


def test_failures_of_other_shards_count_too(desk: Desk) -> None:
    keys = desk.plan(8, max_failures="3")
    break_images(desk.photos, [*keys[:2], *keys[4:6]])
    desk.run(desk.claim())
    with pytest.raises(TooManyFailures):
        desk.run(desk.claim(shard_unit(1)))


def test_failures_that_others_have_committed_meanwhile_count_too(desk: Desk) -> None:
    keys = desk.plan(8, max_failures="3")
    break_images(desk.photos, [*keys[:2], *keys[4:6]])
    other = desk.claim(shard_unit(1), "worker-2")
    desk.use(PlainEngine(on_infer=Counting(2, lambda: desk.store.commit(other, 1, ok=2, failed=2))))
    with pytest.raises(TooManyFailures):
        desk.run(desk.claim())


def test_failed_images_are_tried_again_when_the_job_is_continued(desk: Desk) -> None:
    keys = desk.plan(20, shard_size=20, max_failures="1")
    good = (desk.photos / keys[0]).read_bytes()
    break_images(desk.photos, keys[-2:])
    lease = desk.claim()
    with pytest.raises(TooManyFailures):
        desk.run(lease)
    desk.store.release(lease)
    kept = len(checkpoint(desk))
    (desk.photos / keys[-1]).write_bytes(good)
    counting = Counting()
    desk.use(PlainEngine(on_infer=counting))
    desk.run(desk.claim())
    assert [key for key, record in desk.records().items() if record.error] == [keys[-2]]
    assert kept >= 20 - desk.context.settings.window - 2
    assert counting.images == 19 - kept  # the others were good before


@pytest.mark.slow
def test_an_image_that_ends_its_image_process_is_not_tried_again(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison_decoder(tmp_path, monkeypatch)
    keys = desk.plan(4, max_failures="1")
    make_poison(desk.photos / keys[0])
    break_images(desk.photos, keys[1:2])
    with pytest.raises(TooManyFailures):
        desk.run(desk.claim())
    kept = checkpoint(desk)
    assert keys[0] in kept
    assert keys[1] not in kept


def test_seconds_of_work_never_go_down_while_engines_come_and_go(desk: Desk) -> None:
    desk.plan(8)
    desk.run(desk.claim())
    seen: list[float] = []
    has_ended = threading.Event()

    def read() -> None:
        while not has_ended.is_set():
            seen.append(sum(desk.context.busy_s().values()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(3):
            desk.use(PlainEngine())
        desk.run(desk.claim(shard_unit(1)))
        desk.context.close_engine()
    finally:
        has_ended.set()
        reader.join()
    assert seen[-1] > 0
    assert seen == sorted(seen)
