"""The pipeline around an engine: every image ends in one record, whoever dies, and nothing runs away from the rest."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from poison import crashing_decoder, hanging_file, make_poison, put_into_every_process
from worker.pipeline.lines import Results, entries, job, pipeline_of, run, wait
from worker.plain_engine import DETECTOR, POISON, PlainEngine, write_image, write_images

from trtjob.engines.protocol import Outputs, UInt8Array
from trtjob.errors import EngineError, FailureKind, PlaceError, StorageError
from trtjob.jobs.records import to_line
from trtjob.jobs.spec import Annotate
from trtjob.worker.pipeline import hanging_place
from trtjob.worker.pipeline.engine_side import Pipeline
from trtjob.worker.pipeline.flow import Outcome
from trtjob.worker.pipeline.limits import PipelineLimits


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return tmp_path / "photos"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out"


# -- every image -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "batch", "slots", "concurrency"),
    [
        pytest.param(1, 1, 1, 1, id="one-of-everything"),
        pytest.param(2, 1, 8, 2, id="cpu"),
        pytest.param(2, 16, 64, 4, id="gpu"),
        pytest.param(1, 16, 3, 2, id="fewer-slots-than-a-batch"),
        pytest.param(3, 3, 5, 4, id="odd"),
    ],
)
def test_every_image_ends_in_exactly_one_record(
    photos: Path, output: Path, processes: int, batch: int, slots: int, concurrency: int
) -> None:
    keys = write_images(photos, 37)
    engine = PlainEngine(max_batch=batch, concurrency=concurrency)
    with pipeline_of(engine, processes=processes, slots=slots) as pipeline:
        for count in (0, 1, 37):
            results = run(pipeline, job(photos, output), keys[:count])
            assert results.keys == keys[:count]
            assert all(record.detections for record in results.records)


@pytest.mark.slow
def test_each_image_gets_its_own_result_whatever_batch_it_is_in(photos: Path, output: Path) -> None:
    greys = {f"{grey:03}.png": grey for grey in range(20, 250, 10)}
    for key, grey in greys.items():
        write_image(photos / key, grey)
    with pipeline_of(PlainEngine(max_batch=5, concurrency=2), processes=2) as pipeline:
        results = run(pipeline, job(photos, output), list(greys))
    for record in results.records:
        assert record.detections is not None
        bright = greys[record.image] / 255
        assert record.detections[0].score == round(max(bright, 1 - bright), 4)


class Segmenter(PlainEngine):
    """Gives each object a mask, of two prototypes that come from the image."""

    def __init__(self, *, max_batch: int, concurrency: int) -> None:
        spec = DETECTOR.model_copy(update={"prototypes": (2, 4, 4)})
        super().__init__(spec, max_batch=max_batch, concurrency=concurrency)
        self.answer_shape = (8 + 32,)

    def infer(self, images: UInt8Array) -> Outputs:
        outputs = super().infer(images)
        grain = images[:, ::2, ::2, :2].astype(np.float32).transpose(0, 3, 1, 2) - 128
        return replace(outputs, extras=outputs.scores.copy(), prototypes=grain)


@pytest.mark.slow
def test_records_with_masks_have_the_same_bytes_in_any_batch_and_process(photos: Path, output: Path) -> None:
    keys, random = [f"{number:02}.png" for number in range(12)], np.random.default_rng(1)
    photos.mkdir()
    for key in keys:
        cv2.imwrite(str(photos / key), random.integers(0, 256, (50, 70, 3), np.uint8))
    lines = []
    for processes, batch, concurrency in ((1, 1, 1), (2, 5, 2)):
        with pipeline_of(Segmenter(max_batch=batch, concurrency=concurrency), processes=processes) as pipeline:
            records = run(pipeline, job(photos, output), keys).records
        assert all(record.detections and record.detections[0].mask for record in records)
        lines.append(sorted(map(to_line, records)))
    assert lines[0] == lines[1]


def test_bad_images_have_their_records_and_the_others_their_results(photos: Path, output: Path) -> None:
    keys = write_images(photos, 12)
    (photos / keys[3]).write_bytes(b"rubbish")
    (photos / keys[7]).unlink()
    with pipeline_of(PlainEngine(max_batch=4)) as pipeline:
        results = run(pipeline, job(photos, output), keys)
    assert results.keys == keys
    assert results.failures == {keys[3]: FailureKind.DECODE, keys[7]: FailureKind.MISSING}


def test_names_that_are_no_utf8_come_back_as_they_were(photos: Path, output: Path) -> None:
    keys = ["caf\udce9.png", "new\nline.png", "日本.png"]
    for key in keys:
        write_image(photos / key)
    with pipeline_of(PlainEngine()) as pipeline:
        results = run(pipeline, job(photos, output, Annotate.ALL), keys)
    assert results.keys == sorted(keys)
    assert not results.failures
    assert all((output / "photos-1234abcd" / "annotated" / key).exists() for key in keys)


@pytest.mark.slow
def test_two_jobs_at_once_keep_their_options_apart(photos: Path, output: Path) -> None:
    keys = write_images(photos, 20)
    plain, annotated = Results(), Results()

    async def both(pipeline: Pipeline) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(pipeline.run(job(photos, output / "a"), entries(keys), plain))
            group.create_task(pipeline.run(job(photos, output / "b", Annotate.ALL), entries(keys), annotated))

    with pipeline_of(PlainEngine(max_batch=4, concurrency=2), processes=2) as pipeline:
        asyncio.run(both(pipeline))
    assert plain.keys == annotated.keys == keys
    assert not (output / "a" / "photos-1234abcd" / "annotated").exists()
    assert len(list((output / "b" / "photos-1234abcd" / "annotated").iterdir())) == 20


def test_a_shard_may_begin_at_any_moment_of_the_end_of_the_one_before(photos: Path, output: Path) -> None:
    keys = write_images(photos, 2)
    spec = job(photos, output)

    async def follow(pipeline: Pipeline, turns: int) -> Results:
        """Begin a second shard so many turns of the event loop after the first one's last image."""
        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        first, second = Results(), Results()

        def begin(turns_left: int) -> None:
            if turns_left:
                loop.call_soon(begin, turns_left - 1)
            else:
                begun.set()

        def note(outcome: Outcome) -> None:
            first(outcome)
            if len(first.outcomes) == len(keys):
                begin(turns)

        async def run_second() -> None:
            await begun.wait()
            await pipeline.run(spec, entries(keys), second)

        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            group.create_task(run_second())
            group.create_task(pipeline.run(spec, entries(keys), note))
        return second

    with pipeline_of(PlainEngine(), slots=4) as pipeline:
        for turns in range(12):
            assert asyncio.run(follow(pipeline, turns)).keys == keys


def test_the_last_image_that_comes_in_is_told_before_the_end(photos: Path, output: Path) -> None:
    keys = write_images(photos, 9)
    results = Results()
    done_when_fed: list[int] = []
    with pipeline_of(PlainEngine(), slots=4) as pipeline:
        work = pipeline.run(
            job(photos, output), entries(keys), results, lambda: done_when_fed.append(len(results.outcomes))
        )
        asyncio.run(work)
    assert len(done_when_fed) == 1
    assert done_when_fed[0] < 9


# -- batches -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_batches_are_full_where_the_engine_is_what_limits(photos: Path, output: Path) -> None:
    """A GPU takes as long for one image as for eight: who takes what is there would leave it nearly empty."""
    sizes: list[int] = []
    lock = threading.Lock()

    def slowly(images: UInt8Array) -> None:
        with lock:  # one call at a time computes, however many wait
            sizes.append(len(images))
            threading.Event().wait(0.05)  # the images are ready sooner, even on a busy machine

    keys = write_images(photos, 256)
    engine = PlainEngine(max_batch=8, concurrency=4, on_infer=slowly)
    with pipeline_of(engine, processes=2, slots=44) as pipeline:
        assert run(pipeline, job(photos, output), keys).keys == keys
    assert sum(sizes) / len(sizes) >= 0.9 * 8


def test_an_engine_that_has_nothing_to_do_is_not_kept_waiting_for_a_full_batch(photos: Path, output: Path) -> None:
    """The second image's file is a pipe that nobody fills before the first image is with the engine."""
    keys = write_images(photos, 3)
    sizes: list[int] = []
    with pipeline_of(PlainEngine(max_batch=8, on_infer=lambda images: sizes.append(len(images)))) as pipeline:
        run(pipeline, job(photos, output), keys)
    assert sum(sizes) == 3
    assert len(sizes) <= 3


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_no_batch_is_larger_than_the_limit(photos: Path, output: Path, batch: int) -> None:
    sizes: list[int] = []
    engine = PlainEngine(max_batch=batch, on_infer=lambda images: sizes.append(len(images)))
    with pipeline_of(engine, slots=20) as pipeline:
        run(pipeline, job(photos, output), write_images(photos, 30))
    assert sum(sizes) == 30
    assert 1 <= min(sizes) <= max(sizes) <= batch


class Overlap:
    """Counts the threads that are in the engine at once."""

    def __init__(self, wanted: int = 0) -> None:
        """wanted: so many are waited for, once, if they come."""
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.met = threading.Event()
        self.wanted = wanted

    def __call__(self, _images: UInt8Array) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        if self.most == self.wanted:
            self.met.set()
        self.met.wait(1.0 if self.wanted > 1 else 0.02)
        with self.lock:
            self.inside -= 1


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("batch", [1, 4])
def test_the_engine_is_called_from_as_many_threads_as_it_allows(
    photos: Path, output: Path, concurrency: int, batch: int
) -> None:
    overlap = Overlap(concurrency)
    engine = PlainEngine(max_batch=batch, concurrency=concurrency, on_infer=overlap)
    with pipeline_of(engine, slots=24) as pipeline:
        run(pipeline, job(photos, output), write_images(photos, 48))
    assert overlap.most == concurrency


def test_a_failing_batch_is_halved_until_the_culprit_stands_alone(photos: Path, output: Path) -> None:
    sizes: list[int] = []
    engine = PlainEngine(max_batch=16, on_infer=lambda images: sizes.append(len(images)))
    with pipeline_of(engine, slots=32) as pipeline:
        for poisoned in ([5], [0, 15], [4, 5, 6]):
            keys = write_images(photos, 16)
            for index in poisoned:
                write_image(photos / keys[index], POISON)
            sizes.clear()
            results = run(pipeline, job(photos, output), keys)
            assert results.failures == dict.fromkeys((keys[index] for index in poisoned), FailureKind.INFER)
            assert Counter(results.keys) == Counter(keys)
            assert len(sizes) <= 16 + 2 * 4 * len(poisoned)
            failed = [record for record in results.records if record.error]
            assert all(record.sha256 and record.error and record.error.message == "poisoned" for record in failed)


# -- what ends a shard -------------------------------------------------------------------------------------------------


def test_a_failing_place_ends_the_run_also_where_the_name_is_no_utf8(photos: Path, output: Path) -> None:
    folder = output / "photos-1234abcd"
    folder.mkdir(parents=True)
    (folder / "annotated").write_bytes(b"a file where the folder should be")
    write_image(photos / "caf\udce9.png")
    with pipeline_of(PlainEngine()) as pipeline, pytest.raises(StorageError, match=r"cannot write .*caf\\udce9\.png: "):
        run(pipeline, job(photos, output, Annotate.ALL), ["caf\udce9.png"])


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 4])
def test_a_failing_place_ends_the_run_with_its_error(photos: Path, output: Path, batch: int) -> None:
    folder = output / "photos-1234abcd"
    folder.mkdir(parents=True)
    (folder / "annotated").write_bytes(b"a file where the folder should be")
    keys = write_images(photos, 20)
    with pipeline_of(PlainEngine(max_batch=batch), processes=2) as pipeline:
        with pytest.raises(StorageError, match="cannot write"):
            run(pipeline, job(photos, output, Annotate.ALL), keys)
        assert run(pipeline, job(photos, output / "else", Annotate.ALL), keys).keys == keys


def test_an_engine_that_breaks_altogether_ends_the_run_with_its_error(photos: Path, output: Path) -> None:
    def explode(_images: UInt8Array) -> None:
        raise ZeroDivisionError("a mistake in the engine")

    words = "the engine fails, for 10 images one after another: unexpected ZeroDivisionError: a mistake in the engine"
    with pipeline_of(PlainEngine(on_infer=explode)) as pipeline, pytest.raises(EngineError, match=words):
        run(pipeline, job(photos, output), write_images(photos, 20))


class Enough(Exception):
    """Who takes the outcomes wants no more."""


def test_who_takes_the_outcomes_can_end_the_run(photos: Path, output: Path) -> None:
    keys = write_images(photos, 100)
    seen: list[str] = []

    def take(outcome: Outcome) -> None:
        seen.append(outcome.key)
        if len(seen) == 3:
            raise Enough

    with pipeline_of(PlainEngine(), slots=4) as pipeline:
        with pytest.raises(Enough):
            asyncio.run(pipeline.run(job(photos, output), entries(keys), take))
        assert len(seen) < 10
        assert run(pipeline, job(photos, output), keys).keys == keys


@pytest.mark.parametrize("batch", [1, 4])
def test_two_shards_in_a_row_never_share_an_engine_of_one_thread(photos: Path, output: Path, batch: int) -> None:
    """What was in the engine when a shard was left is still there when the next one begins."""
    keys = write_images(photos, 12)
    overlap = Overlap()

    async def leave(pipeline: Pipeline) -> None:
        task = asyncio.create_task(pipeline.run(job(photos, output), entries(keys), Results()))
        await asyncio.to_thread(wait, lambda: overlap.inside > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with pipeline_of(PlainEngine(max_batch=batch, on_infer=overlap)) as pipeline:
        asyncio.run(leave(pipeline))
        pids = [handle.process.pid for handle in pipeline.process_pool.handles]
        for _ in range(3):
            asyncio.run(leave(pipeline))
        assert run(pipeline, job(photos, output), keys).keys == keys
        assert [handle.process.pid for handle in pipeline.process_pool.handles] == pids
    assert overlap.most == 1


@pytest.mark.slow
def test_an_event_loop_that_ends_in_the_middle_does_not_wait_for_ever(photos: Path, output: Path) -> None:
    """It cancels the pipeline's own tasks together with the shard, so that nobody is left to tell what has ended."""
    keys = write_images(photos, 60)
    overlap = Overlap()

    async def end_in_the_middle(pipeline: Pipeline) -> None:
        shard = asyncio.create_task(pipeline.run(job(photos, output), entries(keys), Results()))
        await asyncio.to_thread(wait, lambda: overlap.inside > 0)
        assert not shard.done()

    with pipeline_of(PlainEngine(on_infer=overlap)) as pipeline:
        asyncio.run(end_in_the_middle(pipeline))


@pytest.mark.slow
def test_a_shard_that_is_left_gives_every_slot_back(photos: Path, output: Path) -> None:
    keys = write_images(photos, 60)

    async def leave_and_run(pipeline: Pipeline, after: int) -> Results:
        left, results = Results(), Results()
        task = asyncio.create_task(pipeline.run(job(photos, output / "a", Annotate.ALL), entries(keys), left))
        await asyncio.to_thread(wait, lambda: len(left.outcomes) >= after)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not any(handle.in_hand for handle in pipeline.process_pool.handles)
        await pipeline.run(job(photos, output / "b"), entries(keys), results)
        return results

    with pipeline_of(PlainEngine(max_batch=4, concurrency=2), processes=2, slots=12) as pipeline:
        pids = set()
        for after in (0, 1, 20):
            assert asyncio.run(leave_and_run(pipeline, after)).keys == keys
            pids |= {handle.process.pid for handle in pipeline.process_pool.handles}
            assert sorted(pipeline.slots.free) == list(range(12))
        assert len(pids) == 2, "none had to be ended"


# -- image processes that die ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_image_process_that_is_killed_costs_no_image(photos: Path, output: Path) -> None:
    keys = write_images(photos, 300)
    results = Results()

    async def kill_some(pipeline: Pipeline) -> None:
        work = asyncio.create_task(pipeline.run(job(photos, output, Annotate.ALL), entries(keys), results))
        for done in (20, 90, 200):
            await asyncio.to_thread(wait, lambda done=done: len(results.outcomes) >= done)  # type: ignore[misc]
            # Not one that has an image for itself, to see whether that ends it.
            handle = next(handle for handle in pipeline.process_pool.handles if not (handle.alone or handle.is_gone))
            os.kill(handle.process.pid, signal.SIGKILL)
        await work

    with pipeline_of(PlainEngine(max_batch=4, concurrency=2), processes=2, slots=16) as pipeline:
        asyncio.run(kill_some(pipeline))
    assert Counter(results.keys) == Counter(keys)
    assert not results.failures


def take_5_ms(_images: UInt8Array) -> None:
    threading.Event().wait(0.005)


@pytest.mark.slow
def test_one_that_is_killed_again_and_again_leaves_the_work_to_its_sibling(photos: Path, output: Path) -> None:
    keys = write_images(photos, 400)
    results = Results()
    kills = 0

    async def kill_often(pipeline: Pipeline) -> None:
        nonlocal kills
        work = asyncio.create_task(pipeline.run(job(photos, output, Annotate.ALL), entries(keys), results))
        killed = 0
        while not work.done():
            handle = pipeline.process_pool.handles[0] if pipeline.process_pool.handles else None
            if handle is not None and not (handle.is_gone or handle.alone) and handle.process.pid != killed:
                killed = handle.process.pid
                os.kill(killed, signal.SIGKILL)
                kills += 1
            await asyncio.sleep(0.005)
        await work

    with pipeline_of(PlainEngine(on_infer=take_5_ms), processes=2, slots=8) as pipeline:
        asyncio.run(kill_often(pipeline))
    assert Counter(results.keys) == Counter(keys)
    assert not results.failures
    assert kills >= 4


@pytest.mark.slow
def test_one_that_is_frozen_while_it_does_nothing_is_replaced_and_no_image_blamed(photos: Path, output: Path) -> None:
    keys = write_images(photos, 200)
    results = Results()

    async def freeze(pipeline: Pipeline) -> None:
        work = asyncio.create_task(pipeline.run(job(photos, output), entries(keys), results))
        await asyncio.to_thread(wait, lambda: len(results.outcomes) > 20)
        frozen = pipeline.process_pool.handles[0]
        await asyncio.to_thread(wait, lambda: frozen.board.slot < 0)
        os.kill(frozen.process.pid, signal.SIGSTOP)
        await work
        assert pipeline.process_pool.handles[0] is not frozen

    with pipeline_of(PlainEngine(on_infer=take_5_ms), processes=2, stall_s=1.5) as pipeline:
        asyncio.run(freeze(pipeline))
    assert Counter(results.keys) == Counter(keys)
    assert not results.failures


def test_what_is_printed_in_an_image_process_disturbs_nothing(
    photos: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = put_into_every_process(tmp_path / "site", "print('hello from somebody')\n")
    monkeypatch.setenv("PYTHONPATH", site["PYTHONPATH"])
    keys = write_images(photos, 5)
    with pipeline_of(PlainEngine()) as pipeline:
        assert run(pipeline, job(photos, output), keys).keys == keys


@pytest.mark.slow
def test_one_that_cannot_be_replaced_now_is_replaced_later(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = write_images(photos, 600)
    results = Results()

    async def kill_without_python(pipeline: Pipeline) -> None:
        work = asyncio.create_task(pipeline.run(job(photos, output), entries(keys), results))
        await asyncio.to_thread(wait, lambda: len(results.outcomes) > 20)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            # The other one may have begun later.
            gone, sibling = sorted(
                pipeline.process_pool.handles, key=lambda handle: "decode" not in handle.board.busy_s()
            )
            os.kill(gone.process.pid, signal.SIGKILL)
            await asyncio.to_thread(wait, lambda: gone.is_gone)
            done = len(results.outcomes)
            await asyncio.to_thread(wait, lambda: len(results.outcomes) > done + 50)
            once = pipeline.process_pool.busy_s()["decode"] - sibling.board.busy_s()["decode"]
            assert once == pytest.approx(gone.board.busy_s()["decode"], abs=1e-3)
        await work
        assert not any(handle.is_gone for handle in pipeline.process_pool.handles)

    with pipeline_of(PlainEngine(on_infer=take_5_ms), processes=2) as pipeline:
        asyncio.run(kill_without_python(pipeline))
    assert Counter(results.keys) == Counter(keys)
    assert not results.failures


@pytest.mark.slow
def test_image_processes_that_cannot_be_started_are_an_error_that_says_what_to_do(
    photos: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = write_images(photos, 10)
    with pipeline_of(PlainEngine(), processes=4) as pipeline:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            with pytest.raises(EngineError, match=r"4 image processes cannot be started: No such file.*ulimit -n"):
                run(pipeline, job(photos, output), keys)
        assert run(pipeline, job(photos, output), keys).keys == keys


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["SIGSEGV", "SIGKILL"])
def test_an_image_that_ends_its_process_is_set_aside_and_the_others_are_done(
    photos: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    environment = put_into_every_process(tmp_path / "site", crashing_decoder(fault))
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    keys = write_images(photos, 60)
    poison = [keys[7], keys[8], keys[40]]
    for key in poison:
        make_poison(photos / key)
    with pipeline_of(PlainEngine(max_batch=4, concurrency=2), processes=2, slots=16) as pipeline:
        results = run(pipeline, job(photos, output, Annotate.ALL), keys)
    assert Counter(results.keys) == Counter(keys)
    assert results.failures == dict.fromkeys(poison, FailureKind.CRASHED)
    crashed = [record.error for record in results.records if record.error]
    assert all(error.attempts == 2 and fault in error.message for error in crashed)


@pytest.mark.slow
def test_an_image_that_hangs_holds_nobody_up_and_is_set_aside(
    photos: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = crashing_decoder("SIGCONT")  # which changes nothing; then it waits for ever
    monkeypatch.setenv("PYTHONPATH", put_into_every_process(tmp_path / "site", hanging)["PYTHONPATH"])
    keys = write_images(photos, 40)
    make_poison(photos / keys[3])
    with pipeline_of(PlainEngine(), processes=2, stall_s=1.5) as pipeline:
        results = run(pipeline, job(photos, output), keys)
    assert Counter(results.keys) == Counter(keys)
    assert results.failures == {keys[3]: FailureKind.CRASHED}
    assert results.outcomes[-1].key == keys[3]


@pytest.fixture
def hang_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Let opening a file of this name hang in every image process, while the file that is returned is there."""

    def hang(name: str) -> Path:
        hangs = tmp_path / "hangs"
        hangs.touch()
        code = hanging_file(name, hangs)
        monkeypatch.setenv("PYTHONPATH", put_into_every_process(tmp_path / "site", code)["PYTHONPATH"])
        return hangs

    return hang


@pytest.mark.slow
def test_a_place_that_hangs_is_no_images_fault(
    photos: Path, output: Path, hang_at: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = write_images(photos, 8)
    hangs = hang_at(".png")
    monkeypatch.setattr(hanging_place, "PROBE_S", 0.5)
    scandir = os.scandir

    def hang(path: str | os.PathLike[str]) -> object:
        """List a folder, but the photographs' not before the place answers again."""
        while os.fspath(path) == str(photos) and hangs.exists():
            threading.Event().wait(0.02)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", hang)
    with pipeline_of(PlainEngine(), processes=2, stall_s=1.0) as pipeline:
        with pytest.raises(
            PlaceError, match=r"photos does not answer on this machine: the read of '000\d.png' took 1 s"
        ):
            run(pipeline, job(photos, output), keys)
        hangs.unlink()
        assert run(pipeline, job(photos, output), keys).failures == {}


@pytest.mark.slow
def test_a_file_that_hangs_while_others_can_be_read_is_unreadable(
    photos: Path, output: Path, hang_at: Callable[[str], Path]
) -> None:
    keys = write_images(photos, 400)
    hangs = hang_at(keys[3])

    done: set[str] = set()

    def take_50_ms(_images: UInt8Array) -> None:
        if hangs.exists():
            threading.Event().wait(0.05)

    class Watching(Results):
        def __call__(self, outcome: Outcome) -> None:
            super().__call__(outcome)
            done.add(outcome.key)
            if keys[3] in done:
                hangs.unlink(missing_ok=True)

    results = Watching()
    with pipeline_of(PlainEngine(on_infer=take_50_ms), processes=2, stall_s=1.0) as pipeline:
        asyncio.run(pipeline.run(job(photos, output), entries(keys), results))
    assert results.keys == keys
    assert results.failures == {keys[3]: FailureKind.READ}
    (failed,) = (record.error for record in results.records if record.error)
    assert "the read stood still (no progress in 1 s), twice, while its folder answered" in failed.message


@pytest.mark.slow
def test_the_last_image_that_hangs_is_its_own_record_too(
    photos: Path, output: Path, hang_at: Callable[[str], Path]
) -> None:
    """Nobody else works by then who could show that the place does."""
    keys = write_images(photos, 4)
    hang_at(keys[3])
    with pipeline_of(PlainEngine(), processes=2, stall_s=1.0) as pipeline:
        results = run(pipeline, job(photos, output), keys)
    assert results.keys == keys
    assert results.failures == {keys[3]: FailureKind.READ}


@pytest.mark.slow
def test_an_image_is_blamed_only_for_what_a_new_process_dies_of(
    photos: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that another image has damaged dies of a healthy one: that must not count."""
    keys = write_images(photos, 12)
    worn_out = """
import os, signal
import cv2
_imdecode, _count = cv2.imdecode, [0]

def imdecode(data, flags):
    _count[0] += 1
    if _count[0] == 4:
        os.kill(os.getpid(), signal.SIGSEGV)
        signal.pause()
    return _imdecode(data, flags)

cv2.imdecode = imdecode
"""
    monkeypatch.setenv("PYTHONPATH", put_into_every_process(tmp_path / "site", worn_out)["PYTHONPATH"])
    with pipeline_of(PlainEngine()) as pipeline:
        results = run(pipeline, job(photos, output), keys)
    assert (results.keys, results.failures) == (keys, {})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        pytest.param(
            "ZeroDivisionError('no')", FailureKind.CRASHED, "unexpected ZeroDivisionError: no", id="a-mistake"
        ),
        pytest.param("MemoryError()", FailureKind.DECODE, "out of memory", id="no-memory"),
    ],
)
def test_what_goes_wrong_with_one_image_is_its_own_record_whatever_it_is(
    photos: Path,
    output: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    kind: FailureKind,
    words: str,
) -> None:
    code = crashing_decoder("SIGCONT").replace("signal.pause()", f"raise {error}")
    monkeypatch.setenv("PYTHONPATH", put_into_every_process(tmp_path / "site", code)["PYTHONPATH"])
    keys = write_images(photos, 8)
    make_poison(photos / keys[3])
    with pipeline_of(PlainEngine()) as pipeline:
        results = run(pipeline, job(photos, output), keys)
    assert results.keys == keys
    assert results.failures == {keys[3]: kind}
    (failed,) = (record.error for record in results.records if record.error)
    assert words in failed.message


@pytest.mark.slow
def test_image_processes_that_cannot_start_are_an_error_and_no_endless_loop(
    photos: Path, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, sys\nif any('image_process' in word for word in sys.orig_argv): os._exit(3)\n"
    site = put_into_every_process(tmp_path / "site", code)
    keys = write_images(photos, 10)
    with monkeypatch.context() as patch, pipeline_of(PlainEngine(), processes=2) as pipeline:
        patch.setenv("PYTHONPATH", site["PYTHONPATH"])
        with pytest.raises(EngineError, match="image processes end before they can work: exit code 3"):
            run(pipeline, job(photos, output), keys)
        patch.undo()
        assert run(pipeline, job(photos, output), keys).keys == keys


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_pipeline_that_is_closed_gives_its_ring_back_at_once(photos: Path, output: Path) -> None:
    def rings() -> int:
        return Path("/proc/self/maps").read_text().count("trtjob-ring")

    keys = write_images(photos, 5)
    gc.collect()
    before = rings()
    gc.disable()  # a ring can be of gigabytes: it must not wait for a collection
    try:
        for _ in range(2):
            with pipeline_of(PlainEngine(), processes=1) as pipeline:
                run(pipeline, job(photos, output), keys)
                assert rings() == before + 1
            assert rings() == before
    finally:
        gc.enable()


@pytest.mark.slow
def test_images_above_the_budget_go_one_at_a_time(photos: Path, output: Path) -> None:
    """Of four image processes with 16 KiB each, none can have one of these; together they wait for one another."""
    keys = [f"{number}.png" for number in range(12)]
    for key in keys:
        write_image(photos / key, hw=(90, 100))
    engine = PlainEngine(max_batch=4, concurrency=2)
    with pipeline_of(engine, processes=4, slots=12, memory_bytes=16 << 10) as pipeline:
        results = run(pipeline, job(photos, output, Annotate.ALL), keys)
        assert pipeline.slots.grants.granted_bytes == 0
    assert results.keys == sorted(keys)
    assert not results.failures


def test_images_that_fit_only_in_turn_all_come_through(photos: Path, output: Path) -> None:
    keys = write_images(photos, 30)
    with pipeline_of(PlainEngine(max_batch=8, concurrency=2), slots=20, memory_bytes=4000) as pipeline:
        results = run(pipeline, job(photos, output, Annotate.ALL), keys)
    assert results.keys == keys
    assert not results.failures


def test_without_memory_for_the_ring_the_error_says_what_to_do() -> None:
    engine = PlainEngine()
    engine.spec = engine.spec.model_copy(update={"input_hw": (1 << 20, 1 << 20)})
    with pytest.raises(EngineError, match="TRTJOB_WINDOW"), pipeline_of(engine):
        pass


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_seconds_of_work_are_told_by_stage_also_of_processes_that_are_gone(photos: Path, output: Path) -> None:
    keys = write_images(photos, 20)
    with pipeline_of(PlainEngine(), processes=1) as pipeline:
        run(pipeline, job(photos, output, Annotate.ALL), keys)
        first = pipeline.busy_s()
        os.kill(pipeline.process_pool.handles[0].process.pid, signal.SIGKILL)
        run(pipeline, job(photos, output, Annotate.ALL), keys)
        second = pipeline.busy_s()
        assert set(first) == {"read", "decode", "resize", "thumbnail", "infer", "nms", "draw", "encode", "write"}
        assert all(second[stage] > first[stage] for stage in first)
        assert pipeline.process_pool.rss_bytes() > 1 << 20
        assert pipeline.process_pool.cpu_s() > 0


def test_shares_say_how_busy_each_pool_was() -> None:
    worked_s = {"read": 2.0, "decode": 8.0, "resize": 2.0, "infer": 10.0, "write": 1.0}
    shares = PipelineLimits(processes=4, batch=1, slots=8).shares(worked_s, 10.0, callers=2)
    assert shares == {"decode": 0.3, "infer": 0.5, "finish": 0.025}
    assert PipelineLimits(4, 1, 8, requests=8).shares({"fetch": 40.0}, 10.0, 1)["fetch"] == 0.5
    assert PipelineLimits(4, 1, 8).shares({"decode_gpu": 9.0}, 10.0, 1)["decode_gpu"] == 0.9


def test_steps_and_batches_are_counted(photos: Path, output: Path) -> None:
    counts: Counter[str] = Counter()
    pipeline = Pipeline(
        PlainEngine(),
        PipelineLimits(1, 1, 4),
        on_batch=lambda: counts.update(["batch"]),
        on_step=lambda: counts.update(["step"]),
    )
    run(pipeline, job(photos, output), write_images(photos, 7))
    pipeline.close()
    assert counts["batch"] == 7
    assert counts["step"] > 7


def test_the_engine_is_told_of_the_ring_before_an_image_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(PlainEngine, "pin", lambda _engine, memory: told.append(memory))
    with pipeline_of(PlainEngine()) as pipeline:
        assert told == [pipeline.ring.memory]


def test_the_tensors_that_the_engine_sees_lie_in_the_ring(photos: Path, output: Path) -> None:
    """No copy of the pixels is made between an image process and the engine."""
    engine = PlainEngine()
    places: list[int] = []
    answer = engine.answer

    def note(images: list[UInt8Array], into: list[np.ndarray]) -> None:
        places.extend(image.ctypes.data for image in images)
        answer(images, into)

    engine.answer = note  # type: ignore[method-assign,assignment]
    with pipeline_of(engine) as pipeline:
        run(pipeline, job(photos, output), write_images(photos, 5))
        ring = {tensor.ctypes.data for tensor in pipeline.ring.tensors}
    assert len(places) == 5
    assert set(places) <= ring
