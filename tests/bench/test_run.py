"""The bench: the engine alone, each stage, and the pipeline, over images that are made up or a user's own."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
from worker.mean_model import write_model
from worker.plain_engine import CLASSIFIER, POISON, PlainEngine, write_image, write_images

from trtjob.bench.parts import PHASES, BenchStopped, EnginePart, Part, PipelinePart, Rig, Sample, StagesPart
from trtjob.bench.run import BenchOptions, BenchReport, bench, made_up_samples, measure, sample_of
from trtjob.config import Settings
from trtjob.converters.registry import ModelRegistry, RegisteredModel
from trtjob.engines.protocol import UInt8Array
from trtjob.errors import ConfigError, TrtjobError
from trtjob.jobs.spec import Annotate
from trtjob.worker.pipeline.engine_side import Pipeline

BRIEF = BenchOptions(images=None, batches=(), seconds=0.05)


def silent(_stage: str, _done: int, _total: int) -> None:
    """Show nothing."""


def never() -> bool:
    return False


def rig_of(
    folder: Path, engine: PlainEngine, *, is_stopping: Callable[[], bool] = never, window: int = 0, batch: int = 0
) -> Rig:
    model = RegisteredModel("plain", "0" * 64, folder / "plain.onnx", engine.spec, None, 1, 0.0)
    settings = Settings(home=folder / "home", threads=2, image_processes=1, window=window, batch=batch)
    return Rig(model, engine, settings, folder / "out", is_stopping)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Four images."""
    write_images(tmp_path / "photos", 4)
    return sample_of(tmp_path / "photos")


@pytest.fixture
def model(tmp_path: Path) -> RegisteredModel:
    """A model that is really there."""
    reference = write_model(tmp_path / "mean.onnx")
    return ModelRegistry(tmp_path / "models").add("mean", Path(reference.path))


def measured(rig: Rig, sample: Sample, *batches: int) -> BenchReport:
    return measure(rig, [sample], BenchOptions(None, batches, 0.05), silent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param(PlainEngine(), id="a detector, an image at a time"),
        pytest.param(PlainEngine(CLASSIFIER, max_batch=3, concurrency=2), id="a classifier, in batches"),
    ],
)
def test_a_report_has_a_figure_for_every_part(tmp_path: Path, sample: Sample, engine: PlainEngine) -> None:
    report = measured(rig_of(tmp_path, engine), sample)
    (of_sample,) = report.samples
    assert set(of_sample.times.phases_ms) == set(PHASES)
    assert all(ms > 0 for ms in of_sample.times.phases_ms.values())
    for rate in (of_sample.annotated, of_sample.json_only):
        assert min(rate.images_per_s, rate.of_engine, rate.ran_s) > 0
        assert 0 < rate.cores_own <= rate.cores_busy <= 1
    assert of_sample.limit.startswith("bound by ")
    assert report.elapsed_s > of_sample.annotated.ran_s


@pytest.mark.slow
def test_the_phases_are_made_of_their_stages(tmp_path: Path, sample: Sample) -> None:
    times = measured(rig_of(tmp_path, PlainEngine()), sample).samples[0].times
    assert times.phases_ms["prepare"] == pytest.approx(sum(times.stages_ms[s] for s in ("read", "decode", "resize")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("max_batch", "setting", "wanted", "sizes"),
    [
        pytest.param(1, 0, (), [1], id="an engine for one image at a time"),
        pytest.param(9, 0, (), [9], id="its own largest"),
        pytest.param(9, 4, (), [4], id="the batch that the settings ask for"),
        pytest.param(4, 0, (2,), [2, 4], id="wishes, and the pipeline's"),
        pytest.param(1, 0, (4,), [1, 4], id="more than pays"),
    ],
)
def test_the_engine_alone_is_measured_with_these_batches(
    tmp_path: Path, sample: Sample, max_batch: int, setting: int, wanted: tuple[int, ...], sizes: list[int]
) -> None:
    rig = rig_of(tmp_path, PlainEngine(max_batch=max_batch), batch=setting)
    assert [rate.batch for rate in measured(rig, sample, *wanted).engine_alone] == sizes


def test_the_engine_alone_is_called_from_all_its_threads_with_whole_batches(tmp_path: Path) -> None:
    calls: list[int] = []
    engine = PlainEngine(max_batch=4, concurrency=3, on_infer=lambda images: calls.append(len(images)))
    EnginePart(rig_of(tmp_path, engine), 4).run(0)
    assert calls == [4] * 6


@pytest.mark.parametrize(
    ("at_once", "seconds_a_call"),
    [pytest.param(2, 0.02, id="two at once"), pytest.param(1, 0.04, id="in turn, as a GPU does")],
)
def test_the_engines_rate_is_what_all_its_threads_get(tmp_path: Path, at_once: int, seconds_a_call: float) -> None:
    room = threading.BoundedSemaphore(at_once)

    def take_20_ms(_images: UInt8Array) -> None:
        with room:
            time.sleep(0.02)
        time.sleep(0.001)  # so that who waits gets in: a semaphore is not fair

    part = EnginePart(rig_of(tmp_path, PlainEngine(max_batch=4, concurrency=2, on_infer=take_20_ms)), 4)
    part.run(0.2)
    rate = part.report()
    assert rate.call_ms >= seconds_a_call * 1000 * 0.8  # the first call of two in turn waits for nobody
    assert rate.images_per_s <= 4 * at_once / 0.02 * 1.15
    assert rate.images_per_s == pytest.approx(2 * 4 / rate.call_ms * 1000, rel=0.3)


@pytest.mark.slow
def test_the_time_until_the_pipeline_is_full_does_not_count(tmp_path: Path, sample: Sample) -> None:
    calls: list[int] = []

    def slow_at_first(_images: UInt8Array) -> None:
        calls.append(1)
        if len(calls) == 1:
            time.sleep(0.5)

    rig = rig_of(tmp_path, PlainEngine(on_infer=slow_at_first))
    pipeline = Pipeline(rig.engine, rig.limits)
    part = PipelinePart(rig, sample, Annotate.NONE, pipeline)
    part.run(0)
    pipeline.close()
    assert part.ran_s > 0.5
    assert part.rounds[0].rate > len(calls) / 0.5


def test_a_warm_up_does_not_count(tmp_path: Path, sample: Sample) -> None:
    part = StagesPart(rig_of(tmp_path, PlainEngine()), sample)
    part.run(0.05)
    part.forget()
    part.run(0)
    assert part.report().ran_s < 0.05


@pytest.mark.parametrize("name", ["engine", "stages", "pipeline"])
def test_every_part_ends_when_the_user_stops(tmp_path: Path, sample: Sample, name: str) -> None:
    calls: list[int] = []
    engine = PlainEngine(on_infer=lambda _images: calls.append(1))
    rig = rig_of(tmp_path, engine, is_stopping=lambda: bool(calls))
    pipeline = Pipeline(rig.engine, rig.limits)
    parts: dict[str, Part] = {
        "engine": EnginePart(rig, 1),
        "stages": StagesPart(rig, sample),
        "pipeline": PipelinePart(rig, sample, Annotate.ALL, pipeline),
    }
    with pytest.raises(BenchStopped):
        parts[name].run(60)
    pipeline.close()
    assert len(calls) <= rig.limits.slots


@pytest.mark.slow
def test_an_image_that_the_engine_cannot_run_ends_the_bench(tmp_path: Path) -> None:
    write_image(tmp_path / "photos" / "poison.png", POISON)
    rig = rig_of(tmp_path, PlainEngine())
    pipeline = Pipeline(rig.engine, rig.limits)
    with pytest.raises(TrtjobError, match=r"poison\.png: poisoned"):
        PipelinePart(rig, sample_of(tmp_path / "photos"), Annotate.ALL, pipeline).run(0)
    pipeline.close()


@pytest.mark.slow
def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 3)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no image")
    (of_sample,) = measured(rig_of(tmp_path, PlainEngine()), sample_of(tmp_path / "photos")).samples
    assert [entry.key for entry in of_sample.sample.entries] == ["0000.png", "0001.png", "0002.png"]
    assert (of_sample.sample.unusable, of_sample.sample.listed) == (1, 4)


def test_a_folder_of_broken_images_is_an_error_that_names_one(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of 1 images can be used\. broken\.jpg: the file is empty"):
        measured(rig_of(tmp_path, PlainEngine()), sample_of(tmp_path / "photos"))


def test_images_are_taken_from_all_over_a_large_folder(tmp_path: Path) -> None:
    keys = write_images(tmp_path / "photos", 130)
    sample = sample_of(tmp_path / "photos")
    assert (sample.name, sample.listed) == ("photos", 130)
    assert len(sample.entries) == 64
    assert [sample.entries[0].key, sample.entries[-1].key] == [keys[0], keys[127]]
    assert len(set(sample.entries)) == 64


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        sample_of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no image in it or below it\. Images end in: avif bmp"):
        sample_of(tmp_path)


@pytest.mark.slow
def test_made_up_images_are_of_two_sizes(tmp_path: Path) -> None:
    samples = made_up_samples(tmp_path)
    assert [(sample.name, len(sample.entries)) for sample in samples] == [("640x480", 12), ("1920x1080", 12)]


@pytest.mark.slow
def test_opencv_has_its_threads_back(tmp_path: Path, sample: Sample) -> None:
    before = cv2.getNumThreads()
    seen: set[int] = set()
    measured(rig_of(tmp_path, PlainEngine(on_infer=lambda _images: seen.add(cv2.getNumThreads()))), sample)
    assert seen == {1}
    assert cv2.getNumThreads() == before


@pytest.mark.slow
def test_progress_goes_from_the_warm_up_to_the_last_part(tmp_path: Path, sample: Sample) -> None:
    shown: list[tuple[str, int, int]] = []
    measure(rig_of(tmp_path, PlainEngine()), [sample], BRIEF, lambda *step: shown.append(step))
    assert [stage for stage, done, _ in shown if done == 0] == ["looking at the images", "warming up", "measuring"]
    assert shown[-1] == ("measuring", 19, 20)


@pytest.mark.slow
@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_is_left_behind(
    tmp_path: Path, sample: Sample, model: RegisteredModel, monkeypatch: pytest.MonkeyPatch, is_stopped: bool
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    written: list[Path] = []

    def is_stopping() -> bool:
        written.extend(temporary.rglob("*.png"))
        return is_stopped and bool(written)

    options = BenchOptions(sample.root, (), 0.05)
    try:
        bench(model, Settings(engine="cpu"), options, on_progress=silent, is_stopping=is_stopping)
    except BenchStopped:
        assert is_stopped
    assert written
    assert list(temporary.iterdir()) == []
    assert {path.name for path in sample.root.iterdir()} == {entry.key for entry in sample.entries}
