"""From a listing to shards: always the same ones, whatever interrupts the planning."""

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from samples import job_spec, made, touch

from trtjob.errors import FailureKind, StorageError
from trtjob.jobs.folder import RESULTS, JobFolder, PlanEpoch, ShardManifest, manifest_key, plan_key, results_key
from trtjob.jobs.plan import (
    committed_counts,
    kept_counts,
    plan_epoch,
    planned_entries,
    read_shard,
    source_images,
    write_source_list,
)
from trtjob.jobs.records import ImageFailure, Record, to_line
from trtjob.jobs.spec import JobSpec
from trtjob.queue.job_store import JobStore
from trtjob.queue.leases import Lease
from trtjob.queue.rq_queue import WorkQueue
from trtjob.queue.units import PLAN, shard_unit
from trtjob.storage import open_storage
from trtjob.storage.selection import Selection

ODD_NAME = os.fsdecode(b"caf\xe9.jpg")
TEN = [f"{n}.jpg" for n in range(10)]


class Stopped(Exception):
    """The planner was interrupted."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return touch(tmp_path / "photos", *TEN)


@pytest.fixture
def spec(photos: Path, tmp_path: Path) -> JobSpec:
    return job_spec(photos, tmp_path / "out", shard_size=4)


@pytest.fixture
def folder(spec: JobSpec) -> JobFolder:
    return made(JobFolder.of(spec))


def plan(
    folder: JobFolder,
    spec: JobSpec,
    epoch: int = 0,
    reason: str = "submit",
    on_shards: Callable[[list[int], int], None] = lambda shards, images: None,
) -> PlanEpoch:
    return plan_epoch(folder, spec, open_storage(spec.source.root), epoch=epoch, reason=reason, on_shards=on_shards)


def keys(folder: JobFolder, shard: int, epoch: int = 0) -> list[str]:
    return [entry.key for entry in read_shard(folder, epoch, shard)]


def new_keys(folder: JobFolder, epoch: PlanEpoch) -> list[str]:
    return list(chain.from_iterable(keys(folder, shard, epoch.epoch) for shard in epoch.numbers))


def finish(folder: JobFolder, *failed: str, kind: FailureKind = FailureKind.DECODE) -> None:
    """Leave the results of everything planned, with errors for some."""
    error = ImageFailure(kind, "not an image")
    entries = planned_entries(folder, folder.epochs())
    records = [Record(e.key, error=error) if e.key in failed else Record(e.key, detections=()) for e in entries]
    folder.storage.write(RESULTS, b"".join(map(to_line, records)))


# -- shards ------------------------------------------------------------------------------------------------------------


def test_a_job_is_divided_in_the_order_of_the_keys(folder: JobFolder, spec: JobSpec) -> None:
    made = plan(folder, spec)
    assert (made.first_shard, made.shards, made.images) == (0, 3, 10)
    assert [keys(folder, shard) for shard in range(3)] == [TEN[:4], TEN[4:8], TEN[8:]]


def test_a_plan_is_the_same_bytes_every_time(folder: JobFolder, spec: JobSpec, tmp_path: Path) -> None:
    again = spec.model_copy(update={"output": str(tmp_path / "again")})
    plan(folder, spec)
    plan(made(JobFolder.of(again)), again)
    for shard in range(3):
        assert folder.storage.read(plan_key(0, shard)) == JobFolder.of(again).storage.read(plan_key(0, shard))


def test_each_shard_is_announced_when_it_is_written(folder: JobFolder, spec: JobSpec) -> None:
    announced = []

    def on_shards(shards: list[int], images: int) -> None:
        announced.append((shards, images, folder.storage.exists(plan_key(0, shards[0]))))

    plan(folder, spec, on_shards=on_shards)
    assert announced == [([0], 4, True), ([1], 4, True), ([2], 2, True)]


def test_a_plan_counts_what_it_passes_over(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    touch(photos, "notes.txt", "sub/Thumbs.db", "._0.jpg")
    assert plan(folder, spec).ignored == {".txt": 1, "AppleDouble": 1, "Thumbs.db": 1}


def test_an_image_whose_name_says_nothing_is_planned_once(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    touch(photos, "README", "IMG_1").joinpath("IMG_1").write_bytes(b"GIF89a")
    first = plan(folder, spec)
    assert "IMG_1" in new_keys(folder, first)
    assert first.ignored == {"no suffix": 1}
    (photos / "README").write_bytes(b"GIF89a")
    assert new_keys(folder, plan(folder, spec, epoch=1, reason="update")) == ["README"]
    assert new_keys(folder, plan(folder, spec, epoch=2, reason="update")) == []


def choosing(spec: JobSpec, **wanted: Any) -> JobSpec:
    source = spec.source.model_copy(update={"selection": Selection.model_validate(wanted)})
    return spec.model_copy(update={"source": source})


@pytest.mark.parametrize("wanted", [{"limit": 6}, {"sample": 6, "seed": 3}])
def test_some_of_all_images_stay_the_ones_that_were_chosen_first(
    folder: JobFolder, spec: JobSpec, photos: Path, wanted: dict[str, int]
) -> None:
    some = choosing(spec, **wanted)
    first = plan(folder, some)
    chosen = new_keys(folder, first)
    assert len(chosen) == 6
    touch(photos, *(f"0{number}.jpg" for number in range(50)))
    (photos / chosen[1]).write_bytes(b"another picture")
    assert new_keys(folder, plan(folder, some, 1, "update")) == [chosen[1]]


def test_a_limit_that_was_not_reached_leaves_room_for_new_images(
    folder: JobFolder, spec: JobSpec, photos: Path
) -> None:
    some = choosing(spec, limit=11)
    assert plan(folder, some).images == 10
    touch(photos, "00.jpg", "99.jpg")
    assert new_keys(folder, plan(folder, some, 1, "update")) == ["00.jpg"]


def test_a_list_is_chosen_from_too(photos: Path, tmp_path: Path) -> None:
    spec = choosing(job_spec(photos, tmp_path / "out", kind="list"), exclude=("2.jpg",), since_s=1000.0, limit=2)
    os.utime(photos / "1.jpg", (1, 1))
    folder = made(JobFolder.of(spec))
    write_source_list(folder, [*TEN, "gone.jpg"])
    first = plan(folder, spec)
    assert new_keys(folder, first) == ["0.jpg", "3.jpg"]
    assert first.ignored == {"excluded": 1, "older": 1}


def test_a_name_that_is_no_utf8_survives_the_plan(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    touch(photos, ODD_NAME)
    plan(folder, spec)
    assert os.fsencode(keys(folder, 2)[-1]) == b"caf\xe9.jpg"


def test_a_list_is_planned_with_the_files_that_are_not_there(photos: Path, tmp_path: Path) -> None:
    spec = job_spec(photos, tmp_path / "out", kind="list")
    folder = made(JobFolder.of(spec))
    write_source_list(folder, ["3.jpg", ODD_NAME, "gone.jpg"])
    assert plan(folder, spec).images == 3
    assert keys(folder, 0) == ["3.jpg", ODD_NAME, "gone.jpg"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(None, id="missing"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"key": "a.jp', id="cut off"),
        pytest.param(b'{"key": "a.jpg"}\n', id="fields missing"),
        pytest.param(b"[1]\n", id="something else"),
    ],
)
def test_a_damaged_shard_is_named(folder: JobFolder, spec: JobSpec, damage: bytes | None) -> None:
    plan(folder, spec)
    if damage is None:
        folder.storage.delete(plan_key(0, 1))
    else:
        folder.storage.write(plan_key(0, 1), damage)
    with pytest.raises(StorageError, match=r"00000-00001\.jsonl is missing or damaged"):
        read_shard(folder, 0, 1)


# -- interrupted -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, 2])
def test_planning_goes_on_behind_the_last_shard_that_was_written(
    folder: JobFolder, spec: JobSpec, tmp_path: Path, after: int
) -> None:
    def stop(shards: list[int], images: int) -> None:
        if shards == [after]:
            raise Stopped

    calm = spec.model_copy(update={"output": str(tmp_path / "calm")})
    expected = plan(made(JobFolder.of(calm)), calm)
    with pytest.raises(Stopped):
        plan(folder, spec, on_shards=stop)
    # A kill in the middle of a write leaves this.
    (Path(folder.uri) / "plan" / ".0123456789abcdef.part").write_bytes(b'{"key": "4.j')
    announced: list[tuple[list[int], int]] = []
    assert plan(folder, spec, on_shards=lambda shards, images: announced.append((shards, images))) == expected
    found, images = announced[0]
    assert found == list(range(max(after + 1, len(found))))
    assert images == min(10, 4 * len(found))
    assert [keys(folder, shard) for shard in range(3)] == [keys(JobFolder.of(calm), shard) for shard in range(3)]


def test_what_lies_behind_a_gap_is_part_of_the_plan(folder: JobFolder, spec: JobSpec) -> None:
    """There is none but where a file was lost: all are written one after another, and nothing is removed."""
    plan(folder, spec)
    folder.storage.delete(plan_key(0, 1))
    folder.storage.delete(plan_key(0, 3))
    made = plan(folder, spec)
    assert new_keys(folder, made) == TEN
    assert list(planned_entries(folder, [made])) == list(source_images(folder, spec, open_storage(spec.source.root)))


def test_images_that_appear_while_planning_is_interrupted_are_planned_once(
    folder: JobFolder, spec: JobSpec, photos: Path
) -> None:
    def stop(shards: list[int], images: int) -> None:
        if shards == [1]:
            raise Stopped

    with pytest.raises(Stopped):
        plan(folder, spec, on_shards=stop)
    touch(photos, "00.jpg", "99.jpg")
    first = plan(folder, spec)
    assert new_keys(folder, first) == [*TEN[:8], "00.jpg", *TEN[8:], "99.jpg"]
    assert (first.restarts, first.listed) == ((2,), 12)
    listing = list(source_images(folder, spec, open_storage(spec.source.root)))
    assert list(planned_entries(folder, [first])) == listing
    assert new_keys(folder, plan(folder, spec, 1, "update")) == []


def test_a_complete_plan_is_found_and_not_made_again(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    made = plan(folder, spec)
    touch(photos, "new.jpg")
    announced: list[tuple[list[int], int]] = []
    assert plan(folder, spec, on_shards=lambda shards, images: announced.append((shards, images))) == made
    assert announced == [([0, 1, 2], 10)]


def test_a_source_that_became_empty_is_a_plan_without_shards(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    for name in TEN:
        (photos / name).unlink()
    assert (plan(folder, spec).shards, folder.epochs()[0].images) == (0, 0)


@pytest.mark.parametrize("wakes_at", range(4))
@pytest.mark.parametrize("other_stops_after", range(5))
def test_planners_that_take_turns_write_one_plan(
    folder: JobFolder, spec: JobSpec, photos: Path, wakes_at: int, other_stops_after: int
) -> None:
    """The worst that can be: a sleeper wakes right before a write, does not look whose turn it is, and the source has
    changed since it was listed. What is written stays as it is, and no image is lost or planned twice at once."""
    source = open_storage(spec.source.root)
    told: list[int] = []
    written: dict[str, bytes] = {}

    def other(shards: list[int], images: int) -> None:
        if len(folder.slots(0)) > other_stops_after:
            raise Stopped

    def sleep() -> None:
        if len(told) == wakes_at and not written:
            touch(photos, "00.jpg", "44.jpg", "99.jpg")
            (photos / "5.jpg").unlink()
            with suppress(Stopped):
                plan(folder, spec, on_shards=other)
            written.update(contents(folder))

    def on_shards(shards: list[int], images: int) -> None:
        told.extend(shards)

    made = plan_epoch(folder, spec, source, epoch=0, reason="submit", on_shards=on_shards, before_write=sleep)
    assert written.items() <= contents(folder).items()
    assert told == list(made.numbers)
    assert made.images == len(new_keys(folder, made))
    listed = {entry.key for entry in source_images(folder, spec, source)}
    later = plan(folder, spec, 1, "update")
    planned = [entry.key for entry in planned_entries(folder, [made, later])]
    assert set(planned) == listed | {"5.jpg"} & set(planned)
    assert len(planned) == len(set(planned))
    assert len(new_keys(folder, made)) == len(set(new_keys(folder, made)))


def contents(folder: JobFolder) -> dict[str, bytes]:
    return {name: folder.storage.read(f"plan/{name}") for name in folder.storage.list("plan")}


# -- further rounds ----------------------------------------------------------------------------------------------------


def test_an_update_plans_what_is_new_or_changed(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    plan(folder, spec)
    touch(photos, "0.jpg.jpg", "a/new.jpg")
    (photos / "5.jpg").write_bytes(b"longer than it was")
    (photos / "7.jpg").unlink()
    update = plan(folder, spec, 1, "update")
    assert (update.first_shard, update.reason) == (3, "update")
    assert new_keys(folder, update) == ["0.jpg.jpg", "5.jpg", "a/new.jpg"]
    assert [keys(folder, shard) for shard in range(3)] == [TEN[:4], TEN[4:8], TEN[8:]]


def test_an_update_compares_with_the_last_round_that_has_an_image(
    folder: JobFolder, spec: JobSpec, photos: Path
) -> None:
    plan(folder, spec)
    (photos / "5.jpg").write_bytes(b"the second version")
    assert new_keys(folder, plan(folder, spec, 1, "update")) == ["5.jpg"]
    assert new_keys(folder, plan(folder, spec, 2, "update")) == []
    (photos / "5.jpg").write_bytes(b"the third version")
    assert new_keys(folder, plan(folder, spec, 3, "update")) == ["5.jpg"]


def test_an_update_of_a_list_takes_up_the_files_that_were_missing(photos: Path, tmp_path: Path) -> None:
    spec = job_spec(photos, tmp_path / "out", kind="list")
    folder = made(JobFolder.of(spec))
    write_source_list(folder, ["3.jpg", "late.jpg"])
    plan(folder, spec)
    touch(photos, "late.jpg")
    assert new_keys(folder, plan(folder, spec, 1, "update")) == ["late.jpg"]


def test_an_update_tries_again_what_could_not_be_reached(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    """Though they are as they were planned: the source was away, say, while they were to be read."""
    plan(folder, spec)
    finish(folder, "2.jpg", "5.jpg", kind=FailureKind.MISSING)
    (photos / "5.jpg").unlink()
    assert new_keys(folder, plan(folder, spec, 1, "update")) == ["2.jpg"]
    finish(folder, "3.jpg", kind=FailureKind.READ)
    assert new_keys(folder, plan(folder, spec, 2, "update")) == ["3.jpg"]
    finish(folder)
    assert new_keys(folder, plan(folder, spec, 3, "update")) == []


@pytest.mark.parametrize("kind", sorted(set(FailureKind) - {FailureKind.MISSING, FailureKind.READ}))
def test_an_update_leaves_images_that_failed_for_reasons_of_their_own(
    folder: JobFolder, spec: JobSpec, kind: FailureKind
) -> None:
    plan(folder, spec)
    finish(folder, "2.jpg", kind=kind)
    assert new_keys(folder, plan(folder, spec, 1, "update")) == []


def test_an_update_that_is_interrupted_tries_each_again_once(folder: JobFolder, spec: JobSpec) -> None:
    plan(folder, spec)
    finish(folder, *TEN[:6], kind=FailureKind.MISSING)

    def stop(shards: list[int], images: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        plan(folder, spec, 1, "update", on_shards=stop)
    assert new_keys(folder, plan(folder, spec, 1, "update")) == TEN[:6]


def test_an_update_of_a_list_leaves_what_is_still_missing(photos: Path, tmp_path: Path) -> None:
    spec = job_spec(photos, tmp_path / "out", kind="list")
    folder = made(JobFolder.of(spec))
    write_source_list(folder, ["3.jpg", "4.jpg", "gone.jpg"])
    plan(folder, spec)
    finish(folder, "4.jpg", "gone.jpg", kind=FailureKind.MISSING)
    assert new_keys(folder, plan(folder, spec, 1, "update")) == ["4.jpg"]


def test_a_retry_plans_the_images_that_failed(folder: JobFolder, spec: JobSpec) -> None:
    plan(folder, spec)
    finish(folder, "2.jpg", "9.jpg")
    retry = plan(folder, spec, 1, "retry")
    assert (retry.first_shard, new_keys(folder, retry)) == (3, ["2.jpg", "9.jpg"])


def test_a_retry_notes_the_files_as_they_are_now(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    plan(folder, spec)
    finish(folder, "2.jpg")
    (photos / "2.jpg").write_bytes(b"repaired by its owner")
    plan(folder, spec, 1, "retry")
    assert new_keys(folder, plan(folder, spec, 2, "update")) == []


def test_a_retry_can_be_interrupted_too(folder: JobFolder, spec: JobSpec) -> None:
    plan(folder, spec)
    finish(folder, *TEN[:6])

    def stop(shards: list[int], images: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        plan(folder, spec, 1, "retry", on_shards=stop)
    assert new_keys(folder, plan(folder, spec, 1, "retry")) == TEN[:6]


def test_every_image_is_planned_once_as_the_last_round_lists_it(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    plan(folder, spec)
    (photos / "5.jpg").write_bytes(b"longer than it was")
    touch(photos, "55.jpg")
    plan(folder, spec, 1, "update")
    listing = list(source_images(folder, spec, open_storage(spec.source.root)))
    assert list(planned_entries(folder, folder.epochs())) == listing


def test_what_a_retry_leaves_untouched_is_counted(folder: JobFolder, spec: JobSpec, photos: Path) -> None:
    plan(folder, spec)
    finish(folder, "2.jpg", "9.jpg")
    assert kept_counts(folder, plan(folder, spec, 1, "retry")) == (8, {})


def test_what_an_update_leaves_untouched_is_counted_with_its_failures(
    folder: JobFolder, spec: JobSpec, photos: Path
) -> None:
    plan(folder, spec)
    finish(folder, "2.jpg", "9.jpg")
    touch(photos, "00.jpg", "zz.jpg")
    (photos / "2.jpg").write_bytes(b"repaired by its owner")
    assert kept_counts(folder, plan(folder, spec, 1, "update")) == (8, {"decode": 1})


def test_committed_shards_are_counted_from_the_folder(folder: JobFolder, spec: JobSpec) -> None:
    plan(folder, spec)
    for shard, failed in ((0, 1), (2, 0)):
        manifest = ShardManifest(
            shard=shard,
            results=results_key(shard, "1"),
            ok=4 - failed,
            failed=failed,
            failures={"decode": 1} if failed else {},
            attempt=1,
            worker="w",
            device="CPU",
            elapsed_s=0.1,
            busy_s={},
        )
        folder.storage.create(manifest_key(shard), manifest.model_dump_json().encode())
    assert committed_counts(folder, 0) == {"ok": 7, "failed": 1, "kinds": {"decode": 1}, "committed": [0, 2]}
    assert committed_counts(folder, 1) == {"ok": 4, "failed": 0, "kinds": {}, "committed": [2]}


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_server_holds_as_much_for_five_thousand_images_as_for_ten(
    redis: Redis, photos: Path, tmp_path: Path
) -> None:
    """What a job costs the server, its queue included, depends on its shards (here two), not on its images."""
    store, queue = JobStore(redis), WorkQueue(redis, "test")

    def bytes_held(job_id: str, shard_size: int) -> int:
        spec = job_spec(photos, tmp_path / "out", job_id=job_id, shard_size=shard_size)
        store.create(spec)
        lease = store.claim(job_id, PLAN, "planner", 10)
        assert isinstance(lease, Lease)

        def on_shards(shards: list[int], images: int) -> None:
            assert store.add_shards(lease, shards=len(shards), images=images)
            queue.put(job_id, map(shard_unit, shards))

        assert plan(made(JobFolder.of(spec)), spec, on_shards=on_shards).shards == 2
        held = sum(store.redis.memory_usage(key, samples=0) for key in store.redis.keys("*"))
        redis.flushall()
        return int(held)

    ten = bytes_held("photos-small", shard_size=5)
    touch(photos, *(f"{n:05d}.jpg" for n in range(4990)))
    assert bytes_held("photos-large", shard_size=2500) < 1.05 * ten
