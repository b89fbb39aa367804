"""The pipeline around an engine: every image ends in one record, and no stage runs away from the others."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from samples import job_spec
from worker.plain_engine import POISON, PlainEngine, write_image, write_images

from trtjob.engines.protocol import FloatArray, UInt8Array
from trtjob.errors import FailureKind, ImageError, StorageError
from trtjob.jobs.listing import Entry
from trtjob.jobs.models import Annotate
from trtjob.jobs.records import Record
from trtjob.jobs.storage import LocalStorage
from trtjob.worker.pipeline import Pipeline
from trtjob.worker.pools import Limits, Pools
from trtjob.worker.stages import Prepared, Stages

DEADLINE_S = 20.0


class Watched(Stages):
    """The real stages, which also note what has gone into them and what has come out."""

    def __init__(self, photos: Path, output: Path, annotate: Annotate = Annotate.NONE) -> None:
        spec = job_spec(photos, output)
        options = spec.options.model_copy(update={"annotate": annotate})
        spec = spec.model_copy(update={"options": options})
        super().__init__(spec, PlainEngine().spec, LocalStorage(output), max_pixels=10_000, jpeg_quality=90)
        self.lock = threading.Lock()
        self.started: list[str] = []
        self.records: list[Record] = []
        self.most_in_flight = 0
        self.before_finish: Callable[[Prepared], None] = lambda _item: None

    def prepare(self, entry: Entry, data: bytes | None = None) -> Prepared:
        with self.lock:
            self.started.append(entry.key)
            self.most_in_flight = max(self.most_in_flight, len(self.started) - len(self.records))
        return super().prepare(entry, data)

    def finish(self, item: Prepared, boxes: FloatArray | None, scores: FloatArray) -> Record:
        self.before_finish(item)
        return super().finish(item, boxes, scores)

    def on_record(self, record: Record) -> None:
        with self.lock:
            self.records.append(record)

    def failures(self) -> dict[str, FailureKind]:
        return {record.image: record.error.kind for record in self.records if record.error}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def stages(photos: Path, tmp_path: Path) -> Watched:
    return Watched(photos, tmp_path / "out")


@contextmanager
def pools_of(threads: int, batch: int, window: int, concurrency: int) -> Iterator[Pools]:
    pools = Pools(Limits(threads, batch, window), concurrency)
    try:
        yield pools
    finally:
        pools.close()


async def pass_all(_inflight: list[str]) -> None:
    """Let every group in."""


def run(
    stages: Watched,
    engine: PlainEngine,
    keys: list[str],
    *,
    threads: int = 2,
    window: int = 8,
    gate: Callable[[list[str]], object] | None = None,
) -> None:
    async def checked(inflight: list[str]) -> None:
        if gate is not None:
            gate(inflight)

    with pools_of(threads, engine.max_batch, window, engine.concurrency) as pools:
        entries = [Entry(key, 1, "etag") for key in keys]
        asyncio.run(Pipeline(stages, engine, pools).run(entries, checked, stages.on_record))


# -- every image -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "batch", "window", "concurrency"),
    [
        pytest.param(1, 1, 1, 1, id="one-of-everything"),
        pytest.param(2, 1, 8, 2, id="cpu"),
        pytest.param(4, 16, 64, 1, id="gpu"),
        pytest.param(1, 16, 3, 2, id="window-below-batch"),
        pytest.param(8, 3, 5, 4, id="odd"),
    ],
)
@pytest.mark.parametrize("count", [0, 1, 37])
def test_every_image_ends_in_exactly_one_record(
    stages: Watched, photos: Path, threads: int, batch: int, window: int, concurrency: int, count: int
) -> None:
    keys = write_images(photos, count) if count else []
    run(stages, PlainEngine(max_batch=batch, concurrency=concurrency), keys, threads=threads, window=window)
    assert sorted(record.image for record in stages.records) == keys
    assert all(record.detections for record in stages.records)


def test_each_image_gets_its_own_result_whatever_batch_it_is_in(stages: Watched, photos: Path) -> None:
    greys = {f"{grey:03}.png": grey for grey in range(20, 250, 10)}
    for key, grey in greys.items():
        write_image(photos / key, grey)
    run(stages, PlainEngine(max_batch=5, concurrency=2), list(greys))
    for record in stages.records:
        assert record.detections is not None
        bright = greys[record.image] / 255
        assert record.detections[0].score == round(max(bright, 1 - bright), 4)


def test_batches_are_full_where_the_engine_is_what_limits(stages: Watched, photos: Path) -> None:
    """A GPU takes as long for one image as for eight: who takes what is there would leave it nearly empty."""
    sizes: list[int] = []
    lock = threading.Lock()

    def slowly(images: UInt8Array) -> None:
        with lock:  # one call at a time computes, however many wait
            sizes.append(len(images))
            threading.Event().wait(0.02)

    keys = write_images(photos, 256)
    engine = PlainEngine(max_batch=8, concurrency=4, on_infer=slowly)
    run(stages, engine, keys, threads=2, window=32)
    assert len(stages.records) == 256
    assert sum(sizes) / len(sizes) >= 0.9 * 8


def test_an_engine_that_has_nothing_to_do_is_not_kept_waiting_for_a_full_batch(stages: Watched, photos: Path) -> None:
    keys = write_images(photos, 2)
    slow = threading.Event()
    begun = threading.Event()
    original = stages.prepare

    def prepare(entry: Entry, data: bytes | None = None) -> Prepared:
        if entry.key == keys[1]:
            assert slow.wait(DEADLINE_S)
        return original(entry, data)

    stages.prepare = prepare  # type: ignore[method-assign]

    def on_infer(_images: UInt8Array) -> None:
        begun.set()
        slow.set()  # the second image comes only once the first is with the engine

    run(stages, PlainEngine(max_batch=8, concurrency=4, on_infer=on_infer), keys)
    assert begun.is_set()
    assert len(stages.records) == 2


@pytest.mark.parametrize("batch", [1, 4])
def test_bad_images_have_their_records_and_the_others_their_results(stages: Watched, photos: Path, batch: int) -> None:
    keys = write_images(photos, 12)
    (photos / keys[3]).write_bytes(b"rubbish")
    (photos / keys[7]).unlink()
    run(stages, PlainEngine(max_batch=batch), keys)
    assert len(stages.records) == 12
    assert stages.failures() == {keys[3]: FailureKind.DECODE, keys[7]: FailureKind.MISSING}


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [1, 2, 7])
def test_no_more_than_the_window_is_in_flight(stages: Watched, photos: Path, window: int) -> None:
    run(stages, PlainEngine(max_batch=2), write_images(photos, 60), threads=8, window=window)
    assert stages.most_in_flight <= window
    assert len(stages.records) == 60


def test_behind_a_slow_engine_nothing_piles_up(stages: Watched, photos: Path) -> None:
    is_full = threading.Event()

    def wait_until_full(_images: UInt8Array) -> None:
        if len(stages.started) >= 6:
            is_full.set()
        # While the engine stands, whatever is not held back comes in.
        is_full.wait(0.5 if not is_full.is_set() else 0.02)

    run(stages, PlainEngine(on_infer=wait_until_full), write_images(photos, 40), threads=8, window=6)
    assert stages.most_in_flight == 6


def test_behind_a_slow_disk_nothing_piles_up(stages: Watched, photos: Path) -> None:
    def be_slow(_item: Prepared) -> None:
        threading.Event().wait(0.02)

    stages.before_finish = be_slow
    run(stages, PlainEngine(max_batch=2), write_images(photos, 40), threads=1, window=6)
    assert stages.most_in_flight == 6


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_no_batch_is_larger_than_the_limit(stages: Watched, photos: Path, batch: int) -> None:
    sizes: list[int] = []
    engine = PlainEngine(max_batch=batch, on_infer=lambda images: sizes.append(len(images)))
    run(stages, engine, write_images(photos, 30), window=20)
    assert sum(sizes) == 30
    assert 1 <= min(sizes) <= max(sizes) <= batch


def test_images_that_wait_for_the_engine_go_in_one_batch(stages: Watched, photos: Path) -> None:
    sizes: list[int] = []

    def wait_for_the_rest(images: UInt8Array) -> None:
        if not sizes:
            _wait(lambda: len(stages.started) == 9 and stages.watch.busy_s().get("resize", 0) > 0)
            threading.Event().wait(0.3)  # until the last of them are through the decoder
        sizes.append(len(images))

    run(stages, PlainEngine(max_batch=8, on_infer=wait_for_the_rest), write_images(photos, 9), window=20)
    assert max(sizes) > 1


def _wait(condition: Callable[[], bool]) -> None:
    deadline = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if condition():
            return
        deadline.wait(0.01)
    raise AssertionError("not in time")


class Overlap:
    """Counts the threads that are in the engine at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = self.most = 0

    def __call__(self, _images: UInt8Array) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        threading.Event().wait(0.02)
        with self.lock:
            self.inside -= 1


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_engine_is_called_from_as_many_threads_as_it_allows(
    stages: Watched, photos: Path, concurrency: int, batch: int
) -> None:
    overlap = Overlap()
    run(
        stages,
        PlainEngine(max_batch=batch, concurrency=concurrency, on_infer=overlap),
        write_images(photos, 24),
        window=16,
    )
    assert overlap.most == concurrency


@pytest.mark.parametrize("batch", [1, 4])
def test_two_shards_in_a_row_never_share_an_engine_of_one_thread(stages: Watched, photos: Path, batch: int) -> None:
    """What was in the engine when a shard was left is still there when the next one begins."""
    keys = write_images(photos, 12)
    overlap = Overlap()
    engine = PlainEngine(on_infer=overlap)

    async def leave(pipeline: Pipeline) -> None:
        task = asyncio.create_task(pipeline.run([Entry(key, 1, "") for key in keys], pass_all, stages.on_record))
        await asyncio.to_thread(_wait, lambda: overlap.inside > 0)
        task.cancel()
        await asyncio.wait([task])

    with pools_of(2, batch, 8, 1) as pools:
        pipeline = Pipeline(stages, engine, pools)
        for _ in range(3):
            asyncio.run(leave(pipeline))
        stages.records.clear()
        asyncio.run(pipeline.run([Entry(key, 1, "") for key in keys], pass_all, stages.on_record))
    assert overlap.most == 1
    assert sorted(record.image for record in stages.records) == keys


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "poisoned",
    [pytest.param([5], id="one"), pytest.param([0, 15], id="first-and-last"), pytest.param([4, 5, 6], id="three")],
)
def test_a_failing_batch_is_halved_until_the_culprit_stands_alone(
    stages: Watched, photos: Path, poisoned: list[int]
) -> None:
    keys = write_images(photos, 16)
    for index in poisoned:
        write_image(photos / keys[index], POISON)
    run(stages, PlainEngine(max_batch=16), keys, window=32)
    assert stages.failures() == dict.fromkeys((keys[index] for index in poisoned), FailureKind.INFER)
    assert Counter(record.image for record in stages.records) == Counter(keys)


def test_a_culprit_is_found_in_a_few_calls(stages: Watched, photos: Path) -> None:
    keys = write_images(photos, 33)
    write_image(photos / keys[20], POISON)
    sizes: list[int] = []
    are_ready = threading.Event()

    def note(images: UInt8Array) -> None:
        if not sizes:
            _wait(lambda: len(stages.started) == 33)
            are_ready.wait(0.3)
        sizes.append(len(images))

    run(stages, PlainEngine(max_batch=32, on_infer=note), keys, window=80, threads=4)
    assert len(stages.failures()) == 1
    assert len(sizes) <= 2 + 2 * 5 + 4  # a batch of 32 is halved five times


@pytest.mark.parametrize("batch", [1, 4])
def test_an_engines_failure_names_the_image_and_its_sha256(stages: Watched, photos: Path, batch: int) -> None:
    write_image(photos / "a.png", POISON)
    run(stages, PlainEngine(max_batch=batch), ["a.png"])
    (record,) = stages.records
    assert record.error is not None
    assert record.error.message == "poisoned"
    assert record.sha256 is not None


@pytest.mark.parametrize("batch", [1, 4])
def test_an_image_that_fails_after_the_engine_keeps_its_sha256(stages: Watched, photos: Path, batch: int) -> None:
    def fail(item: Prepared) -> None:
        if item.entry.key == "0002.png":
            raise ImageError(FailureKind.DRAW, "no")

    stages.before_finish = fail
    run(stages, PlainEngine(max_batch=batch), write_images(photos, 4))
    assert stages.failures() == {"0002.png": FailureKind.DRAW}
    assert len({record.sha256 for record in stages.records}) == 1


@pytest.mark.parametrize("batch", [1, 4])
def test_a_failing_place_ends_the_run_with_its_error(photos: Path, tmp_path: Path, batch: int) -> None:
    stages = Watched(photos, tmp_path / "out", Annotate.ALL)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "annotated").write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="cannot write"):
        run(stages, PlainEngine(max_batch=batch), write_images(photos, 20))


@pytest.mark.parametrize("batch", [1, 4])
def test_an_engine_that_breaks_altogether_ends_the_run_with_its_error(
    stages: Watched, photos: Path, batch: int
) -> None:
    def explode(_images: UInt8Array) -> None:
        raise ZeroDivisionError("a mistake in the engine")

    with pytest.raises(ZeroDivisionError, match="a mistake"):
        run(stages, PlainEngine(max_batch=batch, on_infer=explode), write_images(photos, 20))


# -- the gate ----------------------------------------------------------------------------------------------------------


def test_no_image_is_touched_before_the_gate_has_seen_it(stages: Watched, photos: Path) -> None:
    seen: set[str] = set()

    def gate(inflight: list[str]) -> None:
        assert not set(stages.started) - seen
        seen.update(inflight)

    keys = write_images(photos, 30)
    run(stages, PlainEngine(), keys, gate=gate)
    assert seen == set(keys)


def test_the_gate_sees_every_image_in_flight_and_none_that_is_done(stages: Watched, photos: Path) -> None:
    def gate(inflight: list[str]) -> None:
        done = {record.image for record in stages.records}
        assert set(stages.started) - done <= set(inflight)
        assert not done & set(inflight)
        assert len(inflight) <= 8 + 4  # the window, and the group before the door
        assert inflight == sorted(inflight)

    run(stages, PlainEngine(), write_images(photos, 40), gate=gate, window=8)
    assert len(stages.records) == 40


class Closed(Exception):
    """The gate lets nobody in any more."""


@pytest.mark.parametrize("batch", [1, 4])
def test_a_gate_that_raises_stops_the_run_and_drops_what_is_in_flight(
    stages: Watched, photos: Path, batch: int
) -> None:
    passed: list[str] = []

    def gate(inflight: list[str]) -> None:
        if len(passed) >= 3:
            raise Closed("enough")
        passed.append("a group")

    with pytest.raises(Closed, match="enough"):
        run(
            stages,
            PlainEngine(max_batch=batch),
            write_images(photos, 100),
            gate=gate,
            window=4,
        )
    assert len(stages.started) <= 3 * 2
    assert len(stages.records) <= len(stages.started)


def test_a_gate_that_raises_at_once_lets_nothing_in(stages: Watched, photos: Path) -> None:
    def gate(_inflight: list[str]) -> None:
        raise Closed("closed")

    with pytest.raises(Closed):
        run(stages, PlainEngine(), write_images(photos, 5), gate=gate)
    assert stages.started == []


def test_a_cancelled_run_leaves_the_pools_usable(stages: Watched, photos: Path) -> None:
    keys = write_images(photos, 30)
    entries = [Entry(key, 1, "") for key in keys]

    async def cancel_then_run(pipeline: Pipeline) -> None:
        task = asyncio.create_task(pipeline.run(entries, pass_all, stages.on_record))
        await asyncio.to_thread(_wait, lambda: bool(stages.records))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        count = len(stages.records)
        await pipeline.run(entries, pass_all, stages.on_record)
        assert len(stages.records) == count + 30

    with pools_of(2, 2, 6, 1) as pools:
        asyncio.run(cancel_then_run(Pipeline(stages, PlainEngine(max_batch=2), pools)))


# -- pools -------------------------------------------------------------------------------------------------------------


def test_shares_say_how_busy_each_pool_was() -> None:
    with pools_of(4, 1, 8, 2) as pools:
        shares = pools.shares({"read": 2.0, "decode": 8.0, "resize": 2.0, "infer": 10.0, "write": 1.0}, 10.0)
    assert shares == {"decode": 0.3, "infer": 0.5, "finish": 0.025}
